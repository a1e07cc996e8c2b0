"""Calls on drives that somebody watches: one that does not come back is noticed, and whoever made
it is left behind.

Owns the list of the calls that one piece of work has out. Refuses, with ``Unavailable``, every call
that begins after the work was ended. Invariant: once ``end`` has returned, nothing of the work
reaches a drive but the calls that are out by then, and ``is_out`` tells of each of them until it is
back.

Any thread.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from appliance.core.errors import DriveTimeout, Unavailable
from appliance.core.ports import Buffer, File, FileStat, Space, Volume

T = TypeVar("T")


class Watch:
    """The calls of one piece of work on however many drives."""

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        """How long one call may take. Whatever lies between two calls has no end by this."""
        self._numbers = itertools.count()
        self._out: dict[int, tuple[str, str]] = {}
        self._seen_s: dict[int, float] = {}
        self._ended = ""

    def volume(self, volume: Volume) -> Volume:
        """The same volume, its calls watched. Closing this one closes nothing: its owner does."""
        return WatchedVolume(volume, self)

    def call(self, drive: str, operation: str, call: Callable[[], T]) -> T:
        """Make it. Raises ``Unavailable`` once ended, and what it raises."""
        number = next(self._numbers)
        # Listed before it asks: so an end either stops it or sees it.
        self._out[number] = (drive, operation)
        try:
            if self._ended:
                raise Unavailable(self._ended)
            return call()
        finally:
            self._out.pop(number, None)

    def overdue(self, now_s: float) -> DriveTimeout | None:
        """The call that was seen out for longest, if that is over the deadline. To be asked again
        and again, by one thread: a call counts from when it was first seen."""
        out = self._out.copy()
        self._seen_s = {number: self._seen_s.get(number, now_s) for number in out}
        number = min(out, default=None)
        if number is None or now_s - self._seen_s[number] < self.deadline_s:
            return None
        return self._late(number, out)

    def oldest(self) -> DriveTimeout | None:
        """The call that is out for longest, of whom somebody knows that it takes too long."""
        out = self._out.copy()
        return self._late(min(out), out) if out else None

    def _late(self, number: int, out: dict[int, tuple[str, str]]) -> DriveTimeout:
        drive, operation = out[number]
        text = f"it did not come back within {self.deadline_s:g} s"
        return DriveTimeout(drive, operation, errno.ETIMEDOUT, text)

    def end(self, reason: str) -> None:
        """Whoever makes one more call gets ``Unavailable`` with this reason. Idempotent."""
        self._ended = self._ended or reason

    def forget(self, drive: str) -> None:
        """What is out on this drive harms nobody any more: its mount is gone, and the drive has a
        fresh one."""
        for number, (name, _) in self._out.copy().items():
            if name == drive:
                self._out.pop(number, None)

    def is_out(self, drive: str = "") -> bool:
        """Whether a call on this drive, or on any, is not back."""
        return any(drive in {"", name} for name, _ in self._out.copy().values())


class WatchedVolume:
    """``core.ports.Volume``, each call of which a ``Watch`` knows of."""

    def __init__(self, volume: Volume, watch: Watch) -> None:
        self._volume = volume
        self._watch = watch

    @property
    def name(self) -> str:
        """See ``core.ports.Volume``."""
        return self._volume.name

    def _call(self, operation: str, call: Callable[[], T]) -> T:
        return self._watch.call(self._volume.name, operation, call)

    def open(
        self,
        path: str,
        *,
        write: bool = False,
        create: bool = False,
        durable: bool = False,
        direct: bool = False,
    ) -> File:
        """See ``core.ports.Volume``."""
        opening = partial(
            self._volume.open, path, write=write, create=create, durable=durable, direct=direct
        )
        file = self._call(f"opening {path}", opening)
        return WatchedFile(file, self._volume.name, path, self._watch)

    def make_directory(self, path: str) -> None:
        """See ``core.ports.Volume``."""
        self._call(f"making the directory {path}", partial(self._volume.make_directory, path))

    def rename(self, source: str, target: str) -> None:
        """See ``core.ports.Volume``."""
        self._call(f"renaming {source}", partial(self._volume.rename, source, target))

    def take_over(self, path: str) -> None:
        """See ``core.ports.Volume``."""
        self._call(f"taking over {path}", partial(self._volume.take_over, path))

    def unlink(self, path: str) -> None:
        """See ``core.ports.Volume``."""
        self._call(f"unlinking {path}", partial(self._volume.unlink, path))

    def names(self, path: str) -> list[str]:
        """See ``core.ports.Volume``."""
        return self._call(f"listing {path}", partial(self._volume.names, path))

    def stat(self, path: str) -> FileStat | None:
        """See ``core.ports.Volume``."""
        return self._call(f"looking at {path}", partial(self._volume.stat, path))

    def flush_directory(self, path: str) -> None:
        """See ``core.ports.Volume``."""
        self._call(f"flushing the directory {path}", partial(self._volume.flush_directory, path))

    def space(self) -> Space:
        """See ``core.ports.Volume``."""
        return self._call("asking for its room", self._volume.space)

    def close(self) -> None:
        """Nothing: the volume is somebody else's."""


class WatchedFile:
    """``core.ports.File`` of a ``WatchedVolume``."""

    def __init__(self, file: File, drive: str, path: str, watch: Watch) -> None:
        self._file = file
        self._drive = drive
        self._path = path
        self._watch = watch

    def _call(self, operation: str, call: Callable[[], T]) -> T:
        return self._watch.call(self._drive, operation, call)

    def read_at(self, offset: int, length: int, *, past_cache: bool = False) -> bytes:
        """See ``core.ports.File``."""
        reading = partial(self._file.read_at, offset, length, past_cache=past_cache)
        return self._call(f"reading {self._path}", reading)

    def read_cached(self, offset: int, length: int) -> bytes | None:
        """See ``core.ports.File``. It never waits for the drive."""
        return self._file.read_cached(offset, length)

    def write_at(self, offset: int, data: Buffer) -> None:
        """See ``core.ports.File``."""
        self._call(f"writing {self._path}", partial(self._file.write_at, offset, data))

    def flush(self) -> None:
        """See ``core.ports.File``."""
        self._call(f"flushing {self._path}", self._file.flush)

    def allocate(self, length: int) -> None:
        """See ``core.ports.File``."""
        self._call(f"reserving room for {self._path}", partial(self._file.allocate, length))

    def truncate(self, length: int) -> None:
        """See ``core.ports.File``."""
        self._call(f"truncating {self._path}", partial(self._file.truncate, length))

    def size_bytes(self) -> int:
        """See ``core.ports.File``."""
        return self._call(f"looking at {self._path}", self._file.size_bytes)

    def close(self) -> None:
        """See ``core.ports.File``."""
        self._file.close()
