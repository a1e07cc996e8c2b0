"""Walking a log segment by its checksums alone: what state transfer needs to know of one.

Owns the proof that a row of batches is whole: header and payload CRC of each, its own place in its
header, and that each names the CRC of the one before it in the segment. Decodes no record, so that
it costs little more than reading. Refuses nothing by exception: what does not verify is a ``Gap``,
and so is a row that the next batch does not follow. How one segment follows another is the
caller's to look at.

Blocking; any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from awscrt.checksums import crc32c

from appliance.core.errors import Damaged, DriveFault
from appliance.engine.mirror.format import (
    BATCH_HEADER_BYTES,
    BATCH_MAGIC,
    BLOCK_BYTES,
    BatchHeader,
    decode_header,
)
from appliance.engine.mirror.segment import SegmentState

READ_BYTES: Final = 1024 * 1024

ReadRaw = Callable[[int, int], bytes]
"""Bytes of the segment at (offset, length) as they lie. Raises ``DriveFault``, ``Damaged``."""


@dataclass(frozen=True, slots=True)
class Step:
    """A whole batch, and where the next one begins."""

    header: BatchHeader
    end: int


@dataclass(frozen=True, slots=True)
class Gap:
    """[``start``, ``end``) holds no whole batch, or cannot be read, or is a row of whole ones, told
    as steps before, of which some are not of this history."""

    start: int
    end: int


class SegmentWalk:
    """One segment of ``size_bytes``, read in large pieces."""

    def __init__(
        self, read: ReadRaw, mirror_id: bytes, state: SegmentState, size_bytes: int
    ) -> None:
        self._read_raw = read
        self._mirror_id = mirror_id
        self._state = state
        self._size_bytes = size_bytes
        self._at = 0
        self._data = b""
        self._carefully_until = 0

    def steps(self, offset: int, after: int, last: int) -> Iterator[Step | Gap]:
        """The batches from ``offset`` on, behind sequence ``after``, up to sequence ``last``."""
        sequence, row, before = after, offset, None
        while sequence < last:
            header = self.batch_at(offset)
            if header is None:
                found = self._next(offset + BLOCK_BYTES, sequence)
                yield Gap(offset, self._size_bytes if found is None else found[0])
                if found is None:
                    return
                offset, header = found
                row = offset
            elif before is not None and header.place.previous_crc != before.crc:
                # Nobody can tell which of them is the wrong one.
                yield Gap(row, offset + header.padded_bytes)
                row = offset
            before = header
            offset += header.padded_bytes
            sequence = header.place.sequence
            yield Step(header, offset)

    def batch_at(self, offset: int) -> BatchHeader | None:
        """The whole batch that begins exactly here, by its header."""
        try:
            header = decode_header(self._window(offset, BATCH_HEADER_BYTES))
        except Damaged:
            return None
        place = header.place
        own = (place.mirror_id, place.segment, place.generation, place.offset)
        wanted = (self._mirror_id, self._state.segment, self._state.generation, offset)
        if own != wanted or offset + header.padded_bytes > self._size_bytes:
            return None
        length = BATCH_HEADER_BYTES + header.payload_bytes
        payload = self._window(offset, length)[BATCH_HEADER_BYTES:length]
        if len(payload) < header.payload_bytes or crc32c(payload) != header.payload_crc:
            return None
        return header

    def _next(self, start: int, above: int) -> tuple[int, BatchHeader] | None:
        for offset in range(start, self._size_bytes, BLOCK_BYTES):
            if bytes(self._window(offset, len(BATCH_MAGIC))) != BATCH_MAGIC:
                continue
            header = self.batch_at(offset)
            if header is not None and header.place.sequence > above:
                return offset, header
        return None

    def _window(self, offset: int, length: int) -> memoryview:
        """Up to ``length`` bytes at ``offset``; fewer, or none, where they cannot be had."""
        start = offset - self._at
        if start < 0 or start + length > len(self._data):
            least = -(-length // BLOCK_BYTES) * BLOCK_BYTES
            wanted = least if offset < self._carefully_until else max(least, READ_BYTES)
            wanted = min(wanted, self._size_bytes - offset)
            self._at, self._data, start = offset, self._read(offset, wanted), 0
            if not self._data and wanted > least:
                # One bad block must not take the good ones before it along.
                self._carefully_until = offset + wanted
                self._data = self._read(offset, least)
        return memoryview(self._data)[start : start + length]

    def _read(self, offset: int, length: int) -> bytes:
        try:
            return self._read_raw(offset, length)
        except Damaged:
            return b""
        except DriveFault as fault:
            if not fault.is_bad_spot:
                raise
            return b""
