"""From a recording: when what was promised came to be on stable storage of a drive.

Owns the search for a batch's and a blob's bytes in a write log. A batch is told by its header and
verified by its checksums where it lies on the drive; a blob by where the file system says its file
lies and by the checksum of what was there when its commit was answered.
"""

from __future__ import annotations

import mmap
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from zlib import crc32

from appliance.core.errors import Damaged
from appliance.engine.mirror.format import BATCH_MAGIC, decode_batch, decode_header
from tests.crash.recorded_drive import RecordedDrive, copy_sparse
from tests.crash.traffic import Extent
from tests.crash.write_log import DISCARD, FUA, Entry, WriteLog

_BLOCK_BYTES: Final = 4096
_REGION_BYTES: Final = 1 << 20


class DurableState:
    """Walks a write log and notes, for each batch and extent, how long the recording was when the
    flush that covers it was done. ``batches``: by sequence; ``extents``: by extent."""

    def __init__(self, drive: RecordedDrive, wanted: Sequence[Extent], folder: Path) -> None:
        self.batches: Final[dict[int, int]] = {}
        self.extents: Final[dict[Extent, int]] = {}
        self._log = WriteLog(drive.log)
        self._by_region: dict[int, set[Extent]] = defaultdict(set)
        for extent in wanted:
            for region in _regions(extent.offset, extent.size_bytes):
                self._by_region[region].add(extent)
        self._headers: set[int] = set()
        """Where batches were written that are not known to be durable."""
        self._touched: set[Extent] = set()
        scratch = folder / f"{drive.image.stem}.walk"
        copy_sparse(drive.pristine, scratch)
        with scratch.open("r+b") as file, mmap.mmap(file.fileno(), 0) as self._image:
            self._walk()
        scratch.unlink()

    def _walk(self) -> None:
        for entry in self._log.entries:
            # What a flush, or a write that is one itself, finds done is durable once it is noted.
            if entry.is_flush:
                self._flushed(entry.end)
            if entry.size_bytes and not entry.flags & DISCARD:
                self._written(entry)
                if entry.flags & FUA:
                    raise AssertionError("qemu's FUSE export never writes through")

    def _written(self, entry: Entry) -> None:
        data = self._log.data(entry)
        self._image[entry.offset : entry.offset + entry.size_bytes] = bytes(data)
        for at in range(0, entry.size_bytes, _BLOCK_BYTES):
            if bytes(data[at : at + len(BATCH_MAGIC)]) == BATCH_MAGIC:
                self._headers.add(entry.offset + at)
        for region in _regions(entry.offset, entry.size_bytes):
            self._touched |= self._by_region.get(region, set())

    def _flushed(self, position: int) -> None:
        for at in list(self._headers):
            sequence = self._whole_batch(at)
            if sequence is not None:
                self.batches.setdefault(sequence, position)
                self._headers.discard(at)
        for extent in list(self._touched):
            there = self._image[extent.offset : extent.offset + extent.size_bytes]
            if crc32(there) == extent.crc:
                self.extents.setdefault(extent, position)
                self._touched.discard(extent)

    def _whole_batch(self, at: int) -> int | None:
        try:
            header = decode_header(self._image[at : at + _BLOCK_BYTES])
            decode_batch(self._image[at : at + header.padded_bytes])
        except Damaged:
            return None
        return header.place.sequence


def _regions(offset: int, size_bytes: int) -> Iterator[int]:
    return iter(range(offset // _REGION_BYTES, (offset + size_bytes - 1) // _REGION_BYTES + 1))
