"""A drive whose every call is made on a lane of its own, under a deadline of its own.

Owns nothing: it is a ``Volume`` around another one. Refuses, with ``DriveTimeout``, to wait for a
call that does not come back. Invariant: work on several drives, such as a copy from one to another,
blames a hang on the drive that hangs, however long the whole of it takes.

Thread: that of whoever the lanes belong to. Durability is that of the volume within.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias

from appliance.core.errors import DriveFault
from appliance.core.ports import Buffer, File, FileStat, Space, Volume

Guard: TypeAlias = Callable[[Callable[[], Any]], Any]
"""Makes a call on the drive's lane: its result, or what it raised, or ``DriveTimeout``."""


class GuardedVolume:
    """``core.ports.Volume`` by way of a guard."""

    def __init__(self, volume: Volume, guard: Guard) -> None:
        self._volume = volume
        self._guard = guard
        self.name: Final = volume.name

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
        return _GuardedFile(self._guard(opening), self._guard, written=write or create)

    def make_directory(self, path: str) -> None:
        """See ``core.ports.Volume``."""
        self._guard(partial(self._volume.make_directory, path))

    def rename(self, source: str, target: str) -> None:
        """See ``core.ports.Volume``."""
        self._guard(partial(self._volume.rename, source, target))

    def take_over(self, path: str) -> None:
        """See ``core.ports.Volume``."""
        self._guard(partial(self._volume.take_over, path))

    def unlink(self, path: str) -> None:
        """See ``core.ports.Volume``."""
        self._guard(partial(self._volume.unlink, path))

    def names(self, path: str) -> list[str]:
        """See ``core.ports.Volume``."""
        found: list[str] = self._guard(partial(self._volume.names, path))
        return found

    def stat(self, path: str) -> FileStat | None:
        """See ``core.ports.Volume``."""
        found: FileStat | None = self._guard(partial(self._volume.stat, path))
        return found

    def flush_directory(self, path: str) -> None:
        """See ``core.ports.Volume``."""
        self._guard(partial(self._volume.flush_directory, path))

    def space(self) -> Space:
        """See ``core.ports.Volume``."""
        found: Space = self._guard(self._volume.space)
        return found

    def close(self) -> None:
        """The volume within is whoever's that opened it."""


class _GuardedFile:
    """``core.ports.File`` by way of a guard."""

    def __init__(self, file: File, guard: Guard, *, written: bool) -> None:
        self._file = file
        self._guard = guard
        self._written = written

    def read_at(self, offset: int, length: int, *, past_cache: bool = False) -> bytes:
        data: bytes = self._guard(
            partial(self._file.read_at, offset, length, past_cache=past_cache)
        )
        return data

    def read_cached(self, offset: int, length: int) -> bytes | None:
        return self._file.read_cached(offset, length)

    def write_at(self, offset: int, data: Buffer) -> None:
        self._guard(partial(self._file.write_at, offset, data))

    def flush(self) -> None:
        self._guard(self._file.flush)

    def allocate(self, length: int) -> None:
        self._guard(partial(self._file.allocate, length))

    def truncate(self, length: int) -> None:
        self._guard(partial(self._file.truncate, length))

    def size_bytes(self) -> int:
        size: int = self._guard(self._file.size_bytes)
        return size

    def close(self) -> None:
        """One that was written may have to ask the drive, and stays open in one that hangs."""
        if not self._written:
            self._file.close()
            return
        with contextlib.suppress(DriveFault):
            self._guard(self._file.close)
