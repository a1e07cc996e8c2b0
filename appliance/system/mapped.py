"""A file system's names and extents from one place, the bytes of its files from another.

Owns reading through the extents that the kernel tells (FIEMAP). Refuses files whose extents it
cannot tell. Invariant: bytes come from the source device alone, which is only read; holes and
extents that were never written are zeros, as they are to every reader of the real file system.

Reference: Linux, Documentation/filesystems/fiemap.rst.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from bisect import bisect_right
from pathlib import Path
from typing import Final, NamedTuple

from appliance.core.errors import DriveFault
from appliance.system.files import DirectoryFile, DirectoryVolume

_FIEMAP: Final = 0xC020660B
_HEAD: Final = struct.Struct("<QQIIII")
_EXTENT: Final = struct.Struct("<QQQQQIIII")
_EXTENTS_AT_ONCE: Final = 64
_LAST: Final = 0x1
_UNKNOWN: Final = 0x2 | 0x4
_ZEROS: Final = 0x800


class Extent(NamedTuple):
    """``length`` bytes of a file from ``logical`` on, at ``physical`` of the device; -1: zeros."""

    logical: int
    physical: int
    length: int


def extents(descriptor: int) -> list[Extent]:
    """Where an open file's bytes lie, in order. Raises ``OSError``."""
    found: list[Extent] = []
    start = 0
    while True:
        head = _HEAD.pack(start, 2**63 - 1 - start, 0, 0, _EXTENTS_AT_ONCE, 0)
        asked = bytearray(head + bytes(_EXTENT.size * _EXTENTS_AT_ONCE))
        fcntl.ioctl(descriptor, _FIEMAP, asked)
        count = _HEAD.unpack_from(asked)[3]
        for number in range(count):
            fields = _EXTENT.unpack_from(asked, _HEAD.size + number * _EXTENT.size)
            logical, physical, length, flags = fields[0], fields[1], fields[2], fields[5]
            if flags & _UNKNOWN:
                raise OSError(errno.EIO, "an extent has no known place")
            found.append(Extent(logical, -1 if flags & _ZEROS else physical, length))
            start = logical + length
            if flags & _LAST:
                return found
        if count == 0:
            return found


class MappedFile(DirectoryFile):
    """An open file whose bytes are read from the source device."""

    def __init__(self, drive: str, path: str, descriptor: int, source: int) -> None:
        """Takes ``descriptor`` over, borrows ``source``. Raises ``OSError``."""
        super().__init__(drive, path, descriptor, direct=False)
        self._source: Final = source
        self._size_bytes: Final = os.fstat(descriptor).st_size
        self._extents: Final = extents(descriptor)
        self._starts: Final = [extent.logical for extent in self._extents]

    def read_at(self, offset: int, length: int, *, past_cache: bool = False) -> bytes:
        """See ``core.ports.File``."""
        end = min(offset + length, self._size_bytes)
        parts: list[bytes] = []
        while offset < end:
            part = self._read_part(offset, end)
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    def _read_part(self, offset: int, end: int) -> bytes:
        """One or more bytes at ``offset``, up to the end of what lies in one place."""
        number = bisect_right(self._starts, offset) - 1
        extent = self._extents[number] if number >= 0 else Extent(0, -1, 0)
        stop = extent.logical + extent.length
        if offset >= stop:
            follower = number + 1
            hole_end = self._starts[follower] if follower < len(self._starts) else end
            return bytes(min(end, hole_end) - offset)
        length = min(end, stop) - offset
        if extent.physical < 0:
            return bytes(length)
        try:
            data = os.pread(self._source, length, extent.physical + offset - extent.logical)
        except OSError as error:
            number = error.errno or errno.EIO
            raise DriveFault(self._drive, f"reading {self._path}", number, str(error)) from error
        if not data:
            raise DriveFault(self._drive, f"reading {self._path}", errno.EIO, "the device ends")
        return data

    def read_cached(self, offset: int, length: int) -> bytes | None:
        """Nobody can tell."""
        return None


class MappedVolume(DirectoryVolume):
    """The directory tree at ``path``, the files' bytes from the device ``node``. For reading."""

    def __init__(self, path: Path, name: str, node: str) -> None:
        """Raises ``DriveFault``."""
        super().__init__(path, name)
        try:
            self._source = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            super().close()
            raise DriveFault(name, "opening it", error.errno or errno.EIO, str(error)) from error

    def open(
        self,
        path: str,
        *,
        write: bool = False,
        create: bool = False,
        durable: bool = False,
        direct: bool = False,
    ) -> MappedFile:
        """See ``core.ports.Volume``; for reading alone."""
        if write or create:
            raise DriveFault(self.name, f"opening {path}", errno.EROFS, "it is only looked at")
        opened = super().open(path)
        descriptor = opened.descriptor()
        try:
            return MappedFile(self.name, path, descriptor, self._source)
        except OSError as error:
            os.close(descriptor)
            raise DriveFault(
                self.name, f"mapping {path}", error.errno or errno.EIO, str(error)
            ) from error
        finally:
            opened.close()

    def close(self) -> None:
        """See ``core.ports.Volume``."""
        super().close()
        source, self._source = self._source, -1
        if source >= 0:
            os.close(source)
