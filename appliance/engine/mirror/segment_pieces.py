"""Reading a sealed segment piece by piece, every batch verified, beside the committer.

Owns one piece: where it begins, what was found, and what went wrong instead. Refuses bytes that are
not the batch that belongs there. Invariant: pieces follow each other without a gap up to the
segment's last batch.
"""

from __future__ import annotations

import threading
from typing import Final

from appliance.core.errors import Damaged, DriveFault
from appliance.engine.mirror.format import (
    BATCH_HEADER_BYTES,
    DecodedBatch,
    decode_batch,
    decode_header,
)
from appliance.engine.mirror.member import Member
from appliance.engine.mirror.segment import FIRST_OFFSET, SegmentState

PIECE_BYTES: Final = 1024 * 1024


class PieceReading:
    """One piece being read. ``run`` on any thread; the rest is for the committer's."""

    def __init__(
        self,
        member: Member,
        mirror_id: bytes,
        segment: SegmentState,
        after: PieceReading | None = None,
        tried: frozenset[str] = frozenset(),
    ) -> None:
        """``after``: the piece before; ``tried``: drives this piece did not verify on."""
        self.member: Final = member
        self.tried: Final = tried
        self.after: Final = None if after is None else after._bounds()
        self._mirror_id = mirror_id
        self._segment = segment
        self._offset: int = FIRST_OFFSET if after is None else after._offset
        self._sequence: int = segment.first_sequence - 1 if after is None else after._sequence
        self._done = threading.Event()
        self.batches: list[DecodedBatch] = []
        self.fault: Damaged | DriveFault | None = None

    def _bounds(self) -> PieceReading:
        """Where this piece ended, without what it found."""
        bounds = PieceReading(self.member, self._mirror_id, self._segment)
        bounds._offset, bounds._sequence = self._offset, self._sequence
        return bounds

    @property
    def is_done(self) -> bool:
        """Whether it is read, or failed."""
        return self._done.is_set()

    @property
    def at_end(self) -> bool:
        """Whether it is read and was the segment's last."""
        return self.is_done and self.fault is None and self._sequence >= self._segment.last_sequence

    def wait(self, timeout_s: float) -> None:
        """Until it is done, but no longer."""
        self._done.wait(timeout_s)

    def run(self) -> None:
        """Read it."""
        try:
            self._read()
        except (Damaged, DriveFault) as fault:
            self.fault = fault
            self.batches.clear()
        self._done.set()

    def _read(self) -> None:
        log, segment = self.member.log, self._segment
        start, length = self._offset, PIECE_BYTES
        offset, sequence = self._offset, self._sequence
        data = log.read_raw(segment.segment, start, length)
        while sequence < segment.last_sequence:
            at = offset - start
            if len(data) - at < BATCH_HEADER_BYTES and self.batches:
                break
            header = decode_header(data[at : at + BATCH_HEADER_BYTES])
            place = header.place
            found = (place.mirror_id, place.segment, place.generation, place.offset, place.sequence)
            if found != (
                self._mirror_id,
                segment.segment,
                segment.generation,
                offset,
                sequence + 1,
            ):
                raise Damaged("cannot read a segment: another batch lies where the next one was")
            if at + header.padded_bytes > len(data):
                if self.batches:
                    break
                data = log.read_raw(segment.segment, offset, header.padded_bytes)
                start, at = offset, 0
            self.batches.append(decode_batch(data[at : at + header.padded_bytes]))
            offset += header.padded_bytes
            sequence += 1
        self._offset, self._sequence = offset, sequence
