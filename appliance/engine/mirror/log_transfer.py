"""The log's half of a state transfer: segments copied, compared, followed, and proven equal.

Owns what is known to be equal so far. Refuses, with ``Refused``, a copy whose last batch is not the
members' last, or in which a batch does not name the checksum of the one before it. Invariant:
``verify`` returns only when every batch up to the goal is whole on the target, but for those that
no member has.

Blocking; the transfer's thread, or the committer's while commits wait.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from appliance.core.errors import Damaged, Refused
from appliance.engine.mirror.crew import Piece
from appliance.engine.mirror.format import BatchHeader, DecodedBatch, FileBlob
from appliance.engine.mirror.log import Log
from appliance.engine.mirror.member import Member
from appliance.engine.mirror.planner import Tail
from appliance.engine.mirror.recovery import file_blobs
from appliance.engine.mirror.segment import (
    FIRST_OFFSET,
    SegmentHeader,
    SegmentState,
    encode_segment_header,
    segment_ids,
    segment_path,
)
from appliance.engine.mirror.state import MirrorState
from appliance.engine.mirror.transfer import Spot, Transfer
from appliance.engine.mirror.trust import Trust
from appliance.engine.mirror.walk import Gap, SegmentWalk


@dataclass(frozen=True, slots=True)
class Goal:
    """The log as it was at one moment: what the next round of copying brings about."""

    segments: tuple[SegmentState, ...]
    tail: Tail


@dataclass(frozen=True, slots=True)
class _Walked:
    """What a walk found of a segment: where no whole batch is, the first one's header, and the tail
    after the last one."""

    gaps: Sequence[Gap]
    first: BatchHeader | None
    tail: Tail | None

    def follows(self, before: Tail) -> bool:
        """Whether it is what was written after ``before``, as far as that can be seen: what lay
        between may have been freed."""
        first = self.first
        if first is None or first.place.sequence != before.sequence + 1:
            return True
        return first.place.previous_crc == before.crc


_Walk: TypeAlias = tuple[SegmentState, SegmentWalk, int]
"""A segment, what walks it, and from where."""


class LogTransfer:
    """The log of one drive that is brought in. ``trust`` is set before the first ``copy``."""

    def __init__(
        self, state: MirrorState, sources: Sequence[Member], target: Member, transfer: Transfer
    ) -> None:
        self._state = state
        self._sources = sources
        self._target = target
        self._transfer = transfer
        self._trust = Trust()
        self._done: dict[int, tuple[int, int]] = {}
        """Segment → generation and end offset up to which the target equals the source."""
        self._verified = Tail()

    def believe(self, trust: Trust) -> None:
        """What the target is trusted with from here on."""
        self._trust, self._verified = trust, trust.tail

    def copy(self, goal: Goal) -> None:
        """Bring the target's segments to the goal. Raises ``DriveFault``, ``Refused``."""
        self._remove_foreign_segments(goal)
        self._target.log.close()  # it may hold a file that is replaced
        walks = list(self._walks(self._target.log, goal, self._verified))
        found: dict[int, _Walked] = {}
        self._transfer.work(self._copying(goal, walks, found))
        self._verify(goal, walks, found)

    def left_bytes(self, goal: Goal) -> int:
        """What ``copy`` would have to look at: all of a segment it has not made yet, be it free."""
        left = 0
        for segment in goal.segments:
            end = self._end(segment)
            wanted_end = _wanted_end(self._state, segment, goal.tail)
            whole = (
                wanted_end if self._trust.in_segment(segment) else self._state.segment_size_bytes
            )
            left += max(wanted_end - end, 0) if end else whole
        return left

    def total_bytes(self, goal: Goal) -> int:
        """The same before anything is done, for progress."""
        return sum(
            _wanted_end(self._state, segment, goal.tail)
            for segment in goal.segments
            if segment.first_sequence and not self._trust.in_segment(segment)
        )

    def _end(self, segment: SegmentState) -> int:
        generation, end = self._done.get(segment.segment, (0, 0))
        return end if generation == segment.generation else 0

    def blobs_since(self, goal: Goal, tail: Tail) -> list[FileBlob]:
        """The blobs of every batch behind ``tail`` up to the goal."""
        found: dict[bytes, FileBlob] = {}
        for source in self._sources:
            is_whole = True
            for place in self._places(source.log, goal, tail):
                batch = _read_batch(source.log, *place) if place is not None else None
                is_whole = is_whole and batch is not None
                found.update({blob.blob_id: blob for blob in file_blobs(batch)})
            if is_whole:
                break
        return list(found.values())

    def _places(
        self, log: Log, goal: Goal, after: Tail
    ) -> Iterator[tuple[SegmentState, int] | None]:
        """Where every batch behind ``after`` lies; None for a part that does not verify."""
        for segment, walk, start in self._walks(log, goal, after):
            for step in walk.steps(start, after.sequence, segment.last_sequence):
                yield None if isinstance(step, Gap) else (segment, step.header.place.offset)

    def _walks(self, log: Log, goal: Goal, after: Tail) -> Iterator[_Walk]:
        """The segments behind ``after`` from old to new, and where each is to be walked from."""
        used = sorted(
            (s for s in goal.segments if s.first_sequence and s.last_sequence > after.sequence),
            key=lambda state: state.first_sequence,
        )
        for segment in used:
            # A segment may have been recycled and entered again since: only its own generation's
            # offset means anything.
            is_same = (segment.segment, segment.generation) == (after.segment, after.generation)
            start = after.offset if is_same else FIRST_OFFSET
            yield segment, self._walk(log, segment), start

    def _verify(self, goal: Goal, walks: Sequence[_Walk], found: Mapping[int, _Walked]) -> None:
        """Every batch on the target verifies, and the last is the members' last. What does not is
        taken from one member after the other. What they all lost does not block the join: it is
        counted. While commits wait nothing is recycled, so the goal of the join is proven."""
        last, is_chain = self._verified, True
        for segment, _, start in walks:
            walked = found[segment.segment]
            if walked.gaps and not self._is_recycled(segment):
                walked = self._heal(segment, start, walked.gaps)
            is_chain = is_chain and walked.follows(last)
            last = walked.tail or last
        is_chain = is_chain and (last.sequence, last.crc) == (goal.tail.sequence, goal.tail.crc)
        if not is_chain and not any(
            # Then the goal is overtaken, and only a later one can be proven.
            self._is_recycled(segment)
            for segment, _, _ in walks
        ):
            raise Refused(
                f"cannot let drive {self._target.drive_id} join: its copy of the log differs; "
                "all of it is compared and copied again"
            )
        self._verified = last

    def _walked(self, segment: SegmentState, walk: SegmentWalk, start: int) -> _Walked:
        gaps, first, tail = [], None, None
        for step in walk.steps(start, self._verified.sequence, segment.last_sequence):
            if isinstance(step, Gap):
                gaps.append(step)
                continue
            place, first = step.header.place, first or step.header
            tail = Tail(place.sequence, step.header.crc, place.segment, place.generation, step.end)
        return _Walked(gaps, first, tail)

    def _heal(self, segment: SegmentState, start: int, gaps: Sequence[Gap]) -> _Walked:
        """The segment with its gaps filled as far as any source can fill them."""
        walked = _Walked(gaps, None, None)
        for source in self._sources:
            for gap in walked.gaps:
                self._transfer.copy_differences(segment.segment, gap.start, gap.end, source)
            walked = self._walked(segment, self._walk(self._target.log, segment), start)
            if not walked.gaps:
                break
        for gap in walked.gaps:
            self._transfer.progress.lose(
                Spot(segment=segment.segment, offset=gap.start, length=gap.end - gap.start)
            )
        return walked

    def _walk(self, log: Log, segment: SegmentState) -> SegmentWalk:
        def read(offset: int, length: int) -> bytes:
            with self._transfer.pace(length):
                return log.read_raw(segment.segment, offset, length)

        return SegmentWalk(read, self._state.mirror_bytes, segment, self._state.segment_size_bytes)

    def _is_recycled(self, segment: SegmentState) -> bool:
        """Whether what the goal says of a segment is over by now. Any thread may ask."""
        now = self._state.planner.table.get(segment.segment)
        return now is None or now.generation != segment.generation

    def _remove_foreign_segments(self, goal: Goal) -> None:
        wanted = {segment.segment for segment in goal.segments}
        for segment in segment_ids(self._target.volume):
            if segment not in wanted:
                self._target.log.remove(segment)

    def _copying(
        self, goal: Goal, walks: Sequence[_Walk], found: dict[int, _Walked]
    ) -> Iterator[Piece]:
        """A piece copies a segment and walks the copy: so one drive's reads fall together with the
        other one's writes."""
        to_walk = {walk[0].segment: walk for walk in walks}

        def make(segment: SegmentState, end: int, wanted_end: int) -> None:
            if end < wanted_end:
                self._copy_segment(segment, end, wanted_end)
            walk = to_walk.get(segment.segment)
            if walk is not None:
                found[segment.segment] = self._walked(*walk)

        for segment in goal.segments:
            end = self._end(segment)
            wanted_end = _wanted_end(self._state, segment, goal.tail)
            if end < wanted_end or segment.segment in to_walk:
                yield partial(make, segment, end, wanted_end)

    def _copy_segment(self, segment: SegmentState, end: int, wanted_end: int) -> None:
        """Make the target's segment equal from ``end`` up to where it is written."""
        size, is_used = self._state.segment_size_bytes, bool(segment.first_sequence)
        try:
            if self._target.volume.stat(segment_path(segment.segment)) is None:
                if is_used:
                    self._transfer.copy_whole(segment, self._header(segment))
                else:
                    self._target.log.prepare(segment)
            elif end:
                self._transfer.copy_differences(segment.segment, end, wanted_end)
            elif not self._is_equal(segment):
                # All of it, also what is not written yet: no void batch may lie there.
                start = FIRST_OFFSET
                for kept in self._rotten_on_source(segment):
                    self._transfer.copy_differences(segment.segment, start, kept.start)
                    start = kept.end
                self._transfer.copy_differences(segment.segment, start, size)
                self._target.log.recycle(segment)  # its header
        except Damaged:
            if not self._is_recycled(segment):
                raise
            return  # freed and unlinked on the source meanwhile: the next goal knows
        self._done[segment.segment] = (segment.generation, wanted_end)
        if is_used and not self._trust.in_segment(segment):
            self._transfer.progress.add(done=wanted_end - end)

    def _rotten_on_source(self, segment: SegmentState) -> list[Gap]:
        """Where the source's batches do not verify and the target's do, which may be the last good
        ones. Both drives' chains of checksums prove that they are the same history's."""
        if not segment.first_sequence:
            return []
        found: list[Gap] = []
        before: BatchHeader | None = None
        gap: Gap | None = None
        walk = self._walk(self._sources[0].log, segment)
        for step in walk.steps(FIRST_OFFSET, segment.first_sequence - 1, segment.last_sequence):
            if isinstance(step, Gap):
                gap = step
                continue
            if gap and before and self._bridges(segment, gap, before, step.header):
                found.append(gap)
            before, gap = step.header, None
        return found

    def _bridges(
        self, segment: SegmentState, gap: Gap, before: BatchHeader, behind: BatchHeader
    ) -> bool:
        """Whether the target has whole batches in the gap that link those around it."""
        walk = self._walk(self._target.log, segment)
        crc, offset = before.crc, gap.start
        while offset < gap.end:
            header = walk.batch_at(offset)
            if header is None or header.place.previous_crc != crc:
                return False
            crc, offset = header.crc, offset + header.padded_bytes
        return behind.place.previous_crc == crc

    def _is_equal(self, segment: SegmentState) -> bool:
        """Whether a segment the target has needs no comparing: one that was sealed before it left,
        and, of a drive that is believed, a free one that no batch was begun in."""
        own = self._target.log.read_raw(segment.segment, 0, FIRST_OFFSET)
        if own != encode_segment_header(self._header(segment)):
            return False
        if self._trust.in_segment(segment):
            return True
        if segment.first_sequence or not self._trust.believed:
            return False
        return self._walk(self._target.log, segment).batch_at(FIRST_OFFSET) is None

    def _header(self, segment: SegmentState) -> SegmentHeader:
        return SegmentHeader(
            self._state.mirror_bytes,
            segment.segment,
            segment.generation,
            self._state.segment_size_bytes,
        )


def _wanted_end(state: MirrorState, segment: SegmentState, tail: Tail) -> int:
    if not segment.first_sequence:
        return FIRST_OFFSET
    return tail.offset if segment.segment == tail.segment else state.segment_size_bytes


def _read_batch(log: Log, segment: SegmentState, offset: int) -> DecodedBatch | None:
    try:
        return log.read_batch(segment.segment, segment.generation, offset)
    except Damaged:
        return None
