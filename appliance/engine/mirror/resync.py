"""State transfer: making a present drive equal to the mirror while clients go on, then letting it
join. A return after a minute, a replacement and a spare are the same thing with more or less to do.

Owns the outsider while it is copied to. Refuses a drive whose history went its own way. Invariant:
the joining epoch is written only when the drive's log is byte for byte the members' up to the tail
and it has every blob the index names; until then nothing counts on it, so a transfer that is cut
short is simply begun again.

``copy`` runs on a thread of its own beside the committer; ``begin`` and ``finish`` on the
committer's.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from appliance.core.errors import Damaged, DriveFault, DriveTimeout, Refused
from appliance.core.ports import Volume
from appliance.engine.mirror.adoption import unlink_quietly
from appliance.engine.mirror.attach import claim_outsider, trusted_sequence
from appliance.engine.mirror.blob import blob_path, file_bytes
from appliance.engine.mirror.format import BLOCK_BYTES, DecodedBatch, FileBlob
from appliance.engine.mirror.index import IndexReader
from appliance.engine.mirror.log import Log, LogReader
from appliance.engine.mirror.member import Member
from appliance.engine.mirror.planner import Tail
from appliance.engine.mirror.recovery import copy_segment, file_blobs
from appliance.engine.mirror.segment import (
    FIRST_OFFSET,
    SegmentState,
    segment_ids,
    segment_path,
)
from appliance.engine.mirror.state import MirrorState
from appliance.engine.mirror.transfer import ResyncProgress, Transfer
from appliance.engine.mirror.votes import VoteFailed

FINISH_BYTES_MAX: Final = 8 * 1024 * 1024
"""What may be left to copy while commits wait."""
PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class _Goal:
    """The log as it was at one moment: what the next round of copying brings about."""

    segments: tuple[SegmentState, ...]
    tail: Tail


class Resync:
    """One drive's way back. Made by ``begin``."""

    def __init__(
        self, state: MirrorState, source: Member, target: Member, trusted_sequence: int
    ) -> None:
        self._state = state
        self._source = source
        self._target = target
        self._trusted_sequence = trusted_sequence
        self._goal = self._take_goal()
        self._done: dict[int, tuple[int, int]] = {}
        """Segment → generation and end offset up to which the target equals the source."""
        self._followed = Tail()
        """Blobs of all batches up to here are copied; ``Tail()``: none were yet."""
        self._verified = Tail()
        self.progress: Final = ResyncProgress()
        self._transfer = Transfer(source, target, self.progress)

    @classmethod
    def begin(cls, state: MirrorState, drive: str) -> Resync:
        """Look at the drive and prepare it. Raises ``Refused``, ``DriveFault``."""
        volume = state.outsiders.get(drive)
        if volume is None:
            raise Refused(f"cannot bring drive {drive} in: it is not present")
        found: list[Member] = []
        # On its lane: a drive that hangs again must not hold up the others.
        fault = state.calls.within(drive, lambda: found.append(_open_target(state, volume)))
        if fault is not None:
            raise fault
        (target,) = found
        history = target.superblock.value.history
        trusted = trusted_sequence(state.votes.history, history, drive)
        source = next(iter(state.members.values()))
        state.dropped_blobs = []
        return cls(state, source, target, trusted)

    @property
    def volume(self) -> Volume:
        """The drive it is brought back on."""
        return self._target.volume

    def _take_goal(self) -> _Goal:
        planner = self._state.planner
        return _Goal(tuple(planner.table.states()), planner.tail)

    # -- the long part, beside the committer -----------------------------------------------------

    def copy(self) -> None:
        """One round towards the goal last taken. Raises ``DriveFault``."""
        goal = self._goal
        if self._followed == Tail():
            self._count(goal)
            self._transfer.compare_blobs()
            self._transfer.copy_losses()
        else:
            for blob in self._blobs_since(self._followed):
                self._transfer.copy_blob(blob)
        self._followed = goal.tail
        self._remove_foreign_segments(goal)
        for segment in goal.segments:
            self._copy_segment(segment, goal.tail)
        self._verify(goal)

    def _count(self, goal: _Goal) -> None:
        index = IndexReader(self._state.index.path)
        try:
            blobs = sum(file_bytes(size) for _, size in _all_blobs(index))
        finally:
            index.close()
        log = sum(
            self._state.segment_size_bytes
            for segment in goal.segments
            if not self._is_trusted(segment)
        )
        self.progress.total_bytes = blobs + log

    def _blobs_since(self, tail: Tail) -> Iterator[FileBlob]:
        for batch in self._walk(self._source.log, self._goal, tail):
            if batch is not None:
                yield from file_blobs(batch)

    def _walk(
        self, log: Log, goal: _Goal, after: Tail, heal: Callable[[int], None] | None = None
    ) -> Iterator[DecodedBatch | None]:
        """The batches of a log behind ``after`` up to the goal; None for a part that does not
        verify, even after ``heal`` was given its chance."""
        used = sorted(
            (s for s in goal.segments if s.first_sequence and s.last_sequence > after.sequence),
            key=lambda state: state.first_sequence,
        )
        for segment in used:
            # A segment may have been recycled and entered again since: only its own generation's
            # offset means anything.
            is_same = (segment.segment, segment.generation) == (after.segment, after.generation)
            offset = after.offset if is_same else FIRST_OFFSET
            sequence, may_heal = after.sequence, heal is not None
            while sequence < segment.last_sequence:
                batch = _read_batch(log, segment, offset)
                if batch is None and may_heal and heal is not None:
                    heal(segment.segment)
                    may_heal = False
                    continue
                if batch is None:
                    yield None
                    found = self._next_batch(log, segment, offset, sequence)
                    if found is None:
                        break
                    offset, batch = found
                yield batch
                sequence = batch.header.place.sequence
                offset += batch.header.padded_bytes

    def _next_batch(
        self, log: Log, segment: SegmentState, offset: int, sequence: int
    ) -> tuple[int, DecodedBatch] | None:
        """The first batch behind a bad one, and where it lies."""
        for at in range(offset + BLOCK_BYTES, self._state.segment_size_bytes, BLOCK_BYTES):
            batch = _read_batch(log, segment, at)
            if batch is not None and batch.header.place.sequence > sequence:
                return at, batch
        return None

    def _verify(self, goal: _Goal) -> None:
        """Every batch on the target verifies, and the last is the members' last. A segment that was
        trusted and does not verify is compared with the source's after all. What the source has
        lost does not block the join: it is counted."""
        last = self._verified
        for batch in self._walk(self._target.log, goal, self._verified, self._heal):
            if batch is None:
                self.progress.unreadable += 1
            else:
                last = Tail.after(batch)
        if (last.sequence, last.crc) != (goal.tail.sequence, goal.tail.crc):
            raise Refused(
                f"cannot let drive {self._target.drive_id} join: its copy of the log differs"
            )
        self._verified = last

    def _heal(self, segment: int) -> None:
        self._transfer.copy_differences(segment, 0, self._state.segment_size_bytes)

    def _remove_foreign_segments(self, goal: _Goal) -> None:
        wanted = {segment.segment for segment in goal.segments}
        for segment in segment_ids(self._target.volume):
            if segment not in wanted:
                self._target.log.remove(segment)

    def _is_trusted(self, segment: SegmentState) -> bool:
        """Whether the target was in sync when the segment was sealed, and has it still."""
        return (
            0 < segment.last_sequence <= self._trusted_sequence
            and self._goal.tail.segment != segment.segment
        )

    def _copy_segment(self, segment: SegmentState, tail: Tail) -> None:
        """Make the target's segment equal, up to where it is written."""
        generation, end = self._done.get(segment.segment, (0, 0))
        size = self._state.segment_size_bytes
        sealed = segment.first_sequence and segment.segment != tail.segment
        wanted_end = size if sealed else tail.offset if segment.first_sequence else FIRST_OFFSET
        if generation != segment.generation:
            end = 0
        if end >= wanted_end:
            return
        # The first time all of it, also what is not written yet: no void batch may lie there.
        stop = wanted_end if end else size
        if self._target.volume.stat(segment_path(segment.segment)) is None:
            copy_segment(self._source, self._target, segment.segment)
        elif not (self._is_trusted(segment) and self._has_header(segment)):
            self._transfer.copy_differences(segment.segment, end, stop)
        self.progress.done_bytes += wanted_end - end
        self._done[segment.segment] = (segment.generation, wanted_end)

    def _has_header(self, segment: SegmentState) -> bool:
        own = self._target.log.read_raw(segment.segment, 0, FIRST_OFFSET)
        return own == self._source.log.read_raw(segment.segment, 0, FIRST_OFFSET)

    # -- the short part, while commits wait --------------------------------------------------------

    def finish(self) -> bool:
        """Join if little is left, else take a new goal for ``copy``. Raises ``Stopped``,
        ``DriveFault``, ``Refused`` when the copies are not equal."""
        state = self._state
        if self._source.drive_id not in state.members:
            raise Refused("the drive that was copied from has left the mirror")
        self._goal = goal = self._take_goal()
        if self._left_bytes(goal) > FINISH_BYTES_MAX:
            return False
        fault = state.calls.within(self._target.drive_id, self.copy)
        if fault is not None:
            raise fault
        for blob_id in state.dropped_blobs or ():
            unlink_quietly(self._target.volume, blob_path(blob_id))
        members = {**state.members, self._target.drive_id: self._target}
        try:
            state.votes.join(members, self._target.drive_id)
        except VoteFailed as failure:
            raise state.stop(str(failure)) from failure
        state.dropped_blobs = None
        state.add(self._target)
        return True

    def _left_bytes(self, goal: _Goal) -> int:
        left = sum(file_bytes(b.size_bytes) for b in self._blobs_since(self._followed))
        for segment in goal.segments:
            generation, end = self._done.get(segment.segment, (0, 0))
            if generation != segment.generation:
                left += self._state.segment_size_bytes
            elif segment.segment == goal.tail.segment:
                left += goal.tail.offset - end
        return left

    def abandon(self) -> None:
        """Close what the transfer opened on the drive, but for its volume."""
        self._target.log.close()
        self._target.reader.close()
        self._target.superblock.close()


def _open_target(state: MirrorState, volume: Volume) -> Member:
    superblock = claim_outsider(state, volume)
    return Member(
        superblock.value.drive_id,
        volume,
        superblock,
        Log(volume, state.mirror_bytes, state.segment_size_bytes),
        LogReader(volume, state.mirror_bytes),
    )


def _all_blobs(index: IndexReader) -> Iterator[tuple[bytes, int]]:
    after = b""
    while page := index.blob_ids(after, PAGE):
        yield from page
        after = page[-1][0]


def _read_batch(log: Log, segment: SegmentState, offset: int) -> DecodedBatch | None:
    """The batch at a place, None if it does not verify or cannot be read there."""
    try:
        return log.read_batch(segment.segment, segment.generation, offset)
    except Damaged:
        return None
    except DriveTimeout:
        raise
    except DriveFault as fault:
        if fault.errno != errno.EIO:
            raise
        return None
