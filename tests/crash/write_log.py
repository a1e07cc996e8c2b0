"""The log of every write and flush a recorded drive was given.

Format: Linux Documentation/admin-guide/device-mapper/log-writes.rst, as block/blklogwrites.c of
qemu writes it. Little endian, sectors of 512 bytes. Sector 0: magic u64, version u64, entry count
u64, sector size u32. Then for each entry a sector that begins with sector u64, sector count u64,
flags u64, data length u64, followed by the sectors written (none for a discard). The count is not
read: the file's length tells what is there, also while the recording goes on.

qemu notes an operation once the drive has done it and before whoever asked hears of it. Nothing
reaches a recorded drive out of turn: the kernel sends writes and flushes of one FUSE file one after
the other. So whatever stands before a flush here was finished when that flush began.
"""

from __future__ import annotations

import mmap
import struct
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SECTOR_BYTES: Final = 512
MAGIC: Final = 0x6A736677736872
FLUSH: Final = 1
FUA: Final = 2
DISCARD: Final = 4
_HEAD: Final = struct.Struct("<QQQI")
_ENTRY: Final = struct.Struct("<QQQQ")


@dataclass(frozen=True, slots=True)
class Entry:
    """One operation. ``offset`` and ``size_bytes``: on the drive; ``data``: where its bytes stand
    in the log; ``end``: where the log went on after it."""

    flags: int
    offset: int
    size_bytes: int
    data: int
    end: int

    @property
    def is_flush(self) -> bool:
        """Everything before it is on stable storage after it."""
        return bool(self.flags & FLUSH)


class WriteLog:
    """A finished recording."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        magic, _, _, sector_bytes = _HEAD.unpack_from(self._bytes)
        assert (magic, sector_bytes) == (MAGIC, SECTOR_BYTES), f"{path} is no write log"
        self.entries: Final = self._parse()
        self._ends: Final = [entry.end for entry in self.entries]

    def _parse(self) -> list[Entry]:
        entries: list[Entry] = []
        at = SECTOR_BYTES
        while at + SECTOR_BYTES <= len(self._bytes):
            sector, count, flags, _ = _ENTRY.unpack_from(self._bytes, at)
            data, size = at + SECTOR_BYTES, count * SECTOR_BYTES
            at = data if flags & DISCARD else data + size
            if at <= len(self._bytes):
                entries.append(Entry(flags, sector * SECTOR_BYTES, size, data, at))
        return entries

    def count_at(self, position: int) -> int:
        """How many entries were there when the log was ``position`` bytes long."""
        return bisect_right(self._ends, position)

    def data(self, entry: Entry) -> memoryview:
        """What the entry wrote; zeros for a discard."""
        if entry.flags & DISCARD:
            return memoryview(bytes(entry.size_bytes))
        return memoryview(self._bytes)[entry.data : entry.data + entry.size_bytes]

    def durable_count(self, count: int) -> int:
        """How many of the first ``count`` entries are certainly on stable storage: all before the
        last flush among them."""
        while count and not self.entries[count - 1].is_flush:
            count -= 1
        return count
