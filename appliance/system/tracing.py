"""A volume that writes down what it did, to prove what was durable before a reply.

Owns the trace's events. ``TracingVolume`` wraps any volume and reports each operation *after* it
completed; an operation that failed is not reported, for it proves nothing. Numbers rise in the
order of completion within a process; ``at_s`` (one monotonic clock for the machine) orders
processes.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from appliance.core.ports import Buffer, Clock, File, FileStat, Space, Volume


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One completed operation: ``open``, ``write``, ``flush``, ``allocate``, ``truncate``,
    ``rename``, ``unlink``, ``make_directory`` or ``flush_directory``, or a ``note`` of the caller's
    (a reply, say). ``durable``: on stable storage at completion."""

    number: int
    at_s: float
    drive: str
    operation: str
    path: str
    target: str = ""
    offset: int = 0
    length: int = 0
    durable: bool = False


class Trace:
    """Numbers events and hands them to a sink. Any thread."""

    def __init__(self, clock: Clock, sink: Callable[[TraceEvent], None]) -> None:
        self._clock = clock
        self._sink = sink
        self._numbers: Final[Iterator[int]] = itertools.count(1)
        self._lock = threading.Lock()

    def add(
        self,
        drive: str,
        operation: str,
        path: str,
        *,
        target: str = "",
        offset: int = 0,
        length: int = 0,
        durable: bool = False,
    ) -> None:
        """Report one completed operation."""
        with self._lock:
            number, at_s = next(self._numbers), self._clock.monotonic_s()
            self._sink(
                TraceEvent(number, at_s, drive, operation, path, target, offset, length, durable)
            )


class TraceFile:
    """A sink that appends JSON lines to a file of this process's own."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def __call__(self, event: TraceEvent) -> None:
        """Append one event."""
        self._file.write(json.dumps(asdict(event)) + "\n")

    def close(self) -> None:
        """Idempotent."""
        self._file.close()


def read_trace(path: Path) -> list[TraceEvent]:
    """The events of a ``TraceFile``; a line cut off by a kill is left out."""
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(TraceEvent(**json.loads(line)))
        except json.JSONDecodeError:
            break
    return events


class TracingFile:
    """An open file of a ``TracingVolume``."""

    def __init__(self, file: File, trace: Trace, drive: str, path: str, *, durable: bool) -> None:
        self._file = file
        self._trace = trace
        self._drive = drive
        self._path = path
        self._durable = durable

    def read_at(self, offset: int, length: int, *, past_cache: bool = False) -> bytes:
        """Reads are not traced: they make nothing durable."""
        return self._file.read_at(offset, length, past_cache=past_cache)

    def read_cached(self, offset: int, length: int) -> bytes | None:
        """See ``core.ports.File``."""
        return self._file.read_cached(offset, length)

    def write_at(self, offset: int, data: Buffer) -> None:
        """See ``core.ports.File``."""
        self._file.write_at(offset, data)
        self._trace.add(
            self._drive,
            "write",
            self._path,
            offset=offset,
            length=memoryview(data).nbytes,
            durable=self._durable,
        )

    def flush(self) -> None:
        """See ``core.ports.File``."""
        self._file.flush()
        self._trace.add(self._drive, "flush", self._path, durable=True)

    def allocate(self, length: int) -> None:
        """See ``core.ports.File``."""
        self._file.allocate(length)
        self._trace.add(self._drive, "allocate", self._path, length=length)

    def truncate(self, length: int) -> None:
        """See ``core.ports.File``."""
        self._file.truncate(length)
        self._trace.add(self._drive, "truncate", self._path, length=length)

    def size_bytes(self) -> int:
        """See ``core.ports.File``."""
        return self._file.size_bytes()

    def close(self) -> None:
        """See ``core.ports.File``."""
        self._file.close()


class TracingVolume:
    """Any volume, traced."""

    def __init__(self, volume: Volume, trace: Trace) -> None:
        self._volume = volume
        self._trace = trace

    @property
    def name(self) -> str:
        """The wrapped volume's."""
        return self._volume.name

    def open(
        self,
        path: str,
        *,
        write: bool = False,
        create: bool = False,
        durable: bool = False,
        direct: bool = False,
    ) -> TracingFile:
        """See ``core.ports.Volume``."""
        file = self._volume.open(path, write=write, create=create, durable=durable, direct=direct)
        if create:
            self._trace.add(self.name, "open", path)
        return TracingFile(file, self._trace, self.name, path, durable=durable)

    def make_directory(self, path: str) -> None:
        """See ``core.ports.Volume``."""
        self._volume.make_directory(path)
        self._trace.add(self.name, "make_directory", path)

    def rename(self, source: str, target: str) -> None:
        """See ``core.ports.Volume``."""
        self._volume.rename(source, target)
        self._trace.add(self.name, "rename", source, target=target)

    def take_over(self, path: str) -> None:
        """See ``core.ports.Volume``."""
        self._volume.take_over(path)
        self._trace.add(self.name, "take_over", path)

    def unlink(self, path: str) -> None:
        """See ``core.ports.Volume``."""
        self._volume.unlink(path)
        self._trace.add(self.name, "unlink", path)

    def names(self, path: str) -> list[str]:
        """See ``core.ports.Volume``."""
        return self._volume.names(path)

    def stat(self, path: str) -> FileStat | None:
        """See ``core.ports.Volume``."""
        return self._volume.stat(path)

    def flush_directory(self, path: str) -> None:
        """See ``core.ports.Volume``."""
        self._volume.flush_directory(path)
        self._trace.add(self.name, "flush_directory", path, durable=True)

    def space(self) -> Space:
        """See ``core.ports.Volume``."""
        return self._volume.space()

    def close(self) -> None:
        """See ``core.ports.Volume``."""
        self._volume.close()
