"""Where the next batch goes and what it looks like: the one plan both drives carry out.

Owns the log's tail and the table of segments. Pure; one thread. Invariant: building changes
nothing; only ``advance``, called when the batch is durable on every drive it must be on, moves the
tail, so a batch that could not be written is simply built again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from appliance.core.errors import InvalidInput
from appliance.engine.mirror.format import (
    BATCH_HEADER_BYTES,
    BatchPlace,
    DecodedBatch,
    LogRecord,
    encode_batch,
    encode_manifest,
    padded,
    record_bytes,
)
from appliance.engine.mirror.segment import FIRST_OFFSET, SegmentState, SegmentTable

MANIFEST_ROOM_BYTES: Final = 64 * 1024
"""Room a segment keeps for its manifest (2,700 used segments); see ``batch_bytes_max``."""


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of the log: where the next batch goes, and the sequence and CRC of the last one.
    ``segment`` 0: nothing was ever written."""

    sequence: int = 0
    crc: int = 0
    segment: int = 0
    generation: int = 0
    offset: int = 0

    @classmethod
    def after(cls, batch: DecodedBatch) -> Tail:
        """The tail once ``batch`` is written."""
        place = batch.header.place
        return cls(
            sequence=place.sequence,
            crc=batch.header.crc,
            segment=place.segment,
            generation=place.generation,
            offset=place.offset + batch.header.padded_bytes,
        )


@dataclass(frozen=True, slots=True)
class NeedSegment:
    """No free segment is left: prepare this one on every in-sync drive, tell ``table.prepared``,
    and build again."""

    state: SegmentState


def batch_bytes_max(segment_size_bytes: int) -> int:
    """The most record bytes one batch may carry. A commit larger than this is refused."""
    room = segment_size_bytes - FIRST_OFFSET - BATCH_HEADER_BYTES
    return room - min(MANIFEST_ROOM_BYTES, room // 4)


class BatchPlanner:
    """Builds batches for the log's tail."""

    def __init__(
        self, mirror_id: bytes, segment_size_bytes: int, table: SegmentTable, tail: Tail
    ) -> None:
        self._mirror_id = mirror_id
        self._size_bytes = segment_size_bytes
        self._table = table
        self._tail = tail

    @property
    def tail(self) -> Tail:
        """The end of the log as advanced so far."""
        return self._tail

    @property
    def table(self) -> SegmentTable:
        """The segments; changed by ``advance`` and by the caller's preparing and recycling."""
        return self._table

    @property
    def next_sequence(self) -> int:
        """The sequence the next batch will have; records' versions are made from it."""
        return self._tail.sequence + 1

    def fits(self, records: Sequence[LogRecord]) -> bool:
        """Whether the batch still goes into the current segment."""
        length = BATCH_HEADER_BYTES + sum(map(record_bytes, records))
        return self._tail.segment != 0 and self._tail.offset + padded(length) <= self._size_bytes

    def build(
        self,
        records: Sequence[LogRecord],
        *,
        epoch: int,
        incarnation: int,
        time_ns: int,
        enter: bool = False,
    ) -> DecodedBatch | NeedSegment:
        """The next batch. Begins a segment, with its manifest, when the current one has no room, or
        to ``enter`` one. Raises ``InvalidInput`` if the records do not fit in any segment."""
        tail = self._tail
        segment, generation, offset = tail.segment, tail.generation, tail.offset
        if enter or not self.fits(records):
            free = self._table.free()
            if not free:
                return NeedSegment(self._table.next_to_prepare())
            segment, generation, offset = free[0].segment, free[0].generation, FIRST_OFFSET
            manifest = self._table.manifest_on_entering(segment, self.next_sequence)
            records = [encode_manifest(manifest), *records]
        place = BatchPlace(
            mirror_id=self._mirror_id,
            epoch=epoch,
            incarnation=incarnation,
            sequence=self.next_sequence,
            time_ns=time_ns,
            segment=segment,
            generation=generation,
            offset=offset,
            previous_crc=tail.crc,
        )
        batch = encode_batch(place, records)
        if offset + len(batch.data) > self._size_bytes:
            raise InvalidInput(
                f"cannot commit: {len(batch.data)} bytes in one batch; "
                f"a log segment has {self._size_bytes}"
            )
        return batch

    def advance(self, batch: DecodedBatch) -> None:
        """``batch`` is durable on every drive it must be on."""
        place = batch.header.place
        assert place.sequence == self.next_sequence and place.previous_crc == self._tail.crc
        self._tail = Tail.after(batch)
        self._table.written(place.segment, place.sequence)
