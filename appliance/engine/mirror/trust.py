"""What a returning drive is believed to still have, and why.

Owns the judgement; reads no more than one segment of either drive for it. Refuses to believe a
drive that left because a call on it failed, one that was put back to an older state, and one whose
leave is beyond memory: those are compared in full.

A drive that was merely away is believed in what it had flushed when it left, up to the *leave
sequence*, which the epoch of its leave names. The proof that it still has it is one batch: the
drive must hold the batch of that sequence with the members' checksum, which covers all batches
before it. DESIGN.md, "Coming back", has the reasons.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from appliance.core.epochs import History, Leave
from appliance.engine.mirror.format import BatchHeader
from appliance.engine.mirror.log import Log
from appliance.engine.mirror.planner import Tail
from appliance.engine.mirror.record import sequence_of
from appliance.engine.mirror.segment import FIRST_OFFSET, SegmentState
from appliance.engine.mirror.walk import SegmentWalk, Step

DOUBTED_BATCHES: Final = 64
"""Blobs of so many batches before the leave are read and verified all the same: what a drive that
lied about its flushes lost is what it was given last."""


@dataclass(frozen=True, slots=True)
class Trust:
    """``sequence``: the last one the drive should hold, 0 for none; segments sealed before it need
    no comparing byte for byte. ``believed``: nor are they read, nor blobs committed before it.
    ``tail``: the end of what it was proven to hold."""

    sequence: int = 0
    believed: bool = False
    tail: Tail = field(default_factory=Tail)

    def in_segment(self, segment: SegmentState) -> bool:
        """Whether the drive had all of the segment before it left: the batch at the leave lies
        behind it, so it was sealed, and no void batch can be at its end."""
        return 0 < segment.last_sequence < self.sequence

    def in_blob(self, version: int | None) -> bool:
        """Whether a file with a blob's name and length is that blob; ``version`` is its record's,
        None for one that awaits its unlinking."""
        if not self.believed:
            return False
        return version is None or sequence_of(version) <= self.sequence - DOUBTED_BATCHES


def leave_of(history: History, theirs: History, drive: str) -> Leave | None:
    """When the drive first left after its newest vote, ``theirs``; None if nobody remembers."""
    if not theirs:
        return None
    known = False
    for epoch in history:
        known = known or epoch.id == theirs[-1].id
        for leave in epoch.leaves:
            if known and leave.drive_id == drive:
                return leave
    return None


def judge(
    leave: Leave | None,
    segments: Iterable[SegmentState],
    source: Log,
    target: Log,
    *,
    mirror_id: bytes,
    segment_size_bytes: int,
) -> Trust:
    """What ``target`` is trusted with. Raises ``DriveFault``."""
    if leave is None:
        return Trust()
    if not leave.clean:
        return Trust(leave.sequence)
    for segment in segments:
        if segment.first_sequence and (
            segment.first_sequence <= leave.sequence <= segment.last_sequence
        ):
            ends = [
                _batch_of(log, segment, leave.sequence, mirror_id, segment_size_bytes)
                for log in (source, target)
            ]
            if ends[0] is None or ends[0] != ends[1]:
                return Trust()
            header, end = ends[0]
            place = header.place
            tail = Tail(place.sequence, header.crc, place.segment, place.generation, end)
            return Trust(leave.sequence, believed=True, tail=tail)
    # The segment was recycled since: nothing proves anything.
    return Trust(leave.sequence)


def _batch_of(
    log: Log, segment: SegmentState, sequence: int, mirror_id: bytes, segment_size_bytes: int
) -> tuple[BatchHeader, int] | None:
    """The batch of a sequence and where it ends; None unless the segment is whole up to it."""

    def read(offset: int, length: int) -> bytes:
        return log.read_raw(segment.segment, offset, length)

    walk = SegmentWalk(read, mirror_id, segment, segment_size_bytes)
    found = None
    for step in walk.steps(FIRST_OFFSET, 0, sequence):
        if not isinstance(step, Step):
            return None
        found = step
    if found is None or found.header.place.sequence != sequence:
        return None
    return found.header, found.end
