"""A drive each call of which is made by somebody: who knows of it, may refuse it, or waits for it.

Owns nothing of the drive: volume and files pass every call on, with its name for an operator, to a
``Mediator`` that makes it. Closing a file closes it; closing the volume does nothing, for it is
somebody else's.

Any thread the mediator allows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

from appliance.core.ports import Buffer, File, FileStat, Space, Volume

T = TypeVar("T")


class Mediator(Protocol):
    """Makes the calls."""

    def call(self, drive: str, operation: str, call: Callable[[], T]) -> T:
        """What ``call`` gives. Raises what it raises, and errors of its own."""
        ...


class MediatedVolume:
    """``core.ports.Volume`` over another one."""

    def __init__(self, volume: Volume, mediator: Mediator) -> None:
        self._volume = volume
        self._mediator = mediator

    @property
    def name(self) -> str:
        """See ``core.ports.Volume``."""
        return self._volume.name

    def call(self, operation: str, call: Callable[[], T]) -> T:
        """Have a call on this drive made. See ``Mediator.call``."""
        return self._mediator.call(self._volume.name, operation, call)

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
        return MediatedFile(self.take_in(f"opening {path}", opening), path, self)

    def take_in(self, operation: str, opening: Callable[[], File]) -> File:
        """Open a file of this drive."""
        return self.call(operation, opening)

    def let_go(self, file: File) -> None:
        """Close one. Never raises."""
        file.close()

    def make_directory(self, path: str) -> None:
        """See ``core.ports.Volume``."""
        self.call(f"making the directory {path}", partial(self._volume.make_directory, path))

    def rename(self, source: str, target: str) -> None:
        """See ``core.ports.Volume``."""
        self.call(f"renaming {source}", partial(self._volume.rename, source, target))

    def take_over(self, path: str) -> None:
        """See ``core.ports.Volume``."""
        self.call(f"taking over {path}", partial(self._volume.take_over, path))

    def unlink(self, path: str) -> None:
        """See ``core.ports.Volume``."""
        self.call(f"unlinking {path}", partial(self._volume.unlink, path))

    def names(self, path: str) -> list[str]:
        """See ``core.ports.Volume``."""
        return self.call(f"listing {path}", partial(self._volume.names, path))

    def stat(self, path: str) -> FileStat | None:
        """See ``core.ports.Volume``."""
        return self.call(f"looking at {path}", partial(self._volume.stat, path))

    def flush_directory(self, path: str) -> None:
        """See ``core.ports.Volume``."""
        self.call(f"flushing the directory {path}", partial(self._volume.flush_directory, path))

    def space(self) -> Space:
        """See ``core.ports.Volume``."""
        return self.call("asking for its room", self._volume.space)

    def close(self) -> None:
        """Nothing: the volume is somebody else's."""


class MediatedFile:
    """``core.ports.File`` of a ``MediatedVolume``."""

    def __init__(self, file: File, path: str, volume: MediatedVolume) -> None:
        self._file = file
        self._path = path
        self._volume = volume

    def read_at(self, offset: int, length: int, *, past_cache: bool = False) -> bytes:
        """See ``core.ports.File``."""
        reading = partial(self._file.read_at, offset, length, past_cache=past_cache)
        return self._volume.call(f"reading {self._path}", reading)

    def read_cached(self, offset: int, length: int) -> bytes | None:
        """See ``core.ports.File``. It never waits for the drive."""
        return self._file.read_cached(offset, length)

    def write_at(self, offset: int, data: Buffer) -> None:
        """See ``core.ports.File``."""
        self._volume.call(f"writing {self._path}", partial(self._file.write_at, offset, data))

    def flush(self) -> None:
        """See ``core.ports.File``."""
        self._volume.call(f"flushing {self._path}", self._file.flush)

    def allocate(self, length: int) -> None:
        """See ``core.ports.File``."""
        self._volume.call(f"reserving room for {self._path}", partial(self._file.allocate, length))

    def truncate(self, length: int) -> None:
        """See ``core.ports.File``."""
        self._volume.call(f"truncating {self._path}", partial(self._file.truncate, length))

    def size_bytes(self) -> int:
        """See ``core.ports.File``."""
        return self._volume.call(f"looking at {self._path}", self._file.size_bytes)

    def close(self) -> None:
        """See ``core.ports.File``."""
        self._volume.let_go(self._file)
