"""Room on the drives: segments for the log, and the reserve that keeps deletes possible.

Owns the preparing of free segments, beside the committer where threads may be had, their giving
back, and the answer to "are puts admitted?". A full drive is no failed drive: what was begun is
taken back on both, and puts are refused until room is there again. Invariant: puts leave two free
segments alone, one for compaction, which makes room, and one for deletes and epochs' batches.

Committer thread only; the preparing itself may run in another.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from appliance.core.errors import DriveFault, DriveTimeout
from appliance.core.ports import Space
from appliance.engine.mirror.format import BATCH_HEADER_BYTES, padded
from appliance.engine.mirror.member import HOLD_POLL_S, Answers, Member
from appliance.engine.mirror.segment import SegmentState
from appliance.engine.mirror.state import MirrorState

SPACE_CHECK_EVERY_S: Final = 1.0
SEGMENTS_KEPT: Final = 2
"""Free segments puts never enter: for compaction, and for deletes when that has used its own."""
SHORT_SHARE: Final = 20
"""Room is short when less than this part of a drive is left above the reserve."""
SURPLUS_SHARE: Final = 16
"""Of the used segments, so many may be free besides before their room is given back."""
GIVE_ALL_SHARE: Final = 40
"""All that are free besides are given back when less than this part of a drive is left for files:
not before, for a segment that is made anew is written once more."""

Spawn: TypeAlias = Callable[[Callable[[], None]], None]
"""Runs a call beside the committer, or at once where there are no threads."""


def at_once(call: Callable[[], None]) -> None:
    """The ``Spawn`` of simulations."""
    call()


@dataclass(slots=True)
class _Part:
    """A segment being made on one member."""

    wanted: SegmentState
    member: Member
    done: threading.Event = field(default_factory=threading.Event)
    fault: DriveFault | None = None

    def run(self) -> None:
        """On whatever thread it was spawned on."""
        try:
            self.member.log.prepare(self.wanted)
        except DriveFault as fault:
            self.fault = fault
        self.done.set()


@dataclass(slots=True)
class _Preparation:
    """A segment being made on the members there were when it began, each by itself: one that hangs
    holds up none of the others."""

    wanted: SegmentState
    parts: Mapping[str, _Part]

    def late(self, drives: Iterable[str]) -> list[str]:
        """Those of ``drives`` that are not through yet."""
        return [d for d in drives if d in self.parts and not self.parts[d].done.is_set()]


class RoomKeeper:
    """Keeps free segments prepared and judges admission."""

    def __init__(self, state: MirrorState, spawn: Spawn, *, batch_target_bytes: int) -> None:
        self._state = state
        self._spawn = spawn
        self._target_bytes = batch_target_bytes
        self._preparation: _Preparation | None = None
        self._checked_s = float("-inf")
        self.has_space = True
        self.space = Space(total_bytes=0, free_bytes=0)
        """As last looked at. Any thread may read it."""

    def admits_puts(self, segment_size_bytes: int) -> bool:
        """Whether commits that add something are admitted now."""
        state = self._state
        self._harvest(wait=False)
        now_s = state.clock.monotonic_s()
        if now_s - self._checked_s >= SPACE_CHECK_EVERY_S:
            self.look()
        if self._fits(2 * (self._target_bytes + BATCH_HEADER_BYTES), segment_size_bytes):
            return self.has_space
        while state.planner.table.free_count <= SEGMENTS_KEPT:
            if not self._may_prepare() or not self.prepare():
                return False
        return self.has_space

    @property
    def free_bytes(self) -> int:
        """As last looked at: of the drives, and in the log's segments."""
        size, planner = self._state.segment_size_bytes, self._state.planner
        left = size - planner.tail.offset if planner.tail.segment else 0
        return self.space.free_bytes + planner.table.free_count * size + left

    def takes(self, size_bytes: int) -> bool:
        """Whether a file of so many bytes, and what is logged of it, are admitted as room was last
        looked at."""
        fits = self.space.free_bytes - size_bytes >= self._state.reserve_bytes
        return fits and self.admits_puts(self._state.segment_size_bytes)

    def keeps_enough(self) -> bool:
        """Whether what puts leave alone is there, or can be made whenever it is wanted."""
        state = self._state
        lacking = SEGMENTS_KEPT - state.planner.table.free_count
        return lacking <= 0 or self.space.free_bytes >= (lacking + 1) * state.segment_size_bytes

    def admits_moves(self, size_bytes: int, *, last: bool = False) -> bool:
        """Whether compaction may log so many bytes; ``last``: even in the last free segment."""
        table = self._state.planner.table
        if self._fits(size_bytes + BATCH_HEADER_BYTES, self._state.segment_size_bytes):
            return True
        return table.free_count > (0 if last else 1) or self.prepare()

    def _fits(self, size_bytes: int, segment_size_bytes: int) -> bool:
        tail = self._state.planner.tail
        return bool(tail.segment) and tail.offset + padded(size_bytes) <= segment_size_bytes

    def _may_prepare(self) -> bool:
        """Whether a segment for puts leaves the reserve alone."""
        size = self._state.segment_size_bytes
        return self.space.free_bytes - size >= self._state.reserve_bytes

    @property
    def _wanted(self) -> int:
        """Free segments, so that puts enter one without waiting for it to be made."""
        return max(SEGMENTS_KEPT, self._state.settings.segments_ahead) + 1

    @property
    def is_short(self) -> bool:
        """Whether what is dead should make room now, sooner than it would at leisure."""
        free = self._state.planner.table.free_count - SEGMENTS_KEPT
        room = self.space.free_bytes - self._state.reserve_bytes
        room += max(free, 0) * self._state.segment_size_bytes
        return room < self.space.total_bytes // SHORT_SHARE

    @property
    def surplus(self) -> int:
        """Free segments whose room files could use better."""
        table, kept = self._state.planner.table, self._wanted
        room = self.space.free_bytes - self._state.reserve_bytes
        if room >= self.space.total_bytes // GIVE_ALL_SHARE:
            kept += len(table.used()) // SURPLUS_SHARE
        return max(table.free_count - kept, 0)

    def give_back(self) -> bool:
        """Unlink one free segment nobody needs, on every member; whether there was one. Not while a
        state transfer copies segments, and none the newest manifest names: that would be missed.

        Crash point: on one drive only: recovery makes it there again, free, and it is unlinked
        later."""
        state = self._state
        removable = state.planner.table.removable()
        if not removable or not self.surplus or state.dropped_blobs is not None:
            return False
        self.settle()
        chosen = removable[-1]

        def removing(member: Member) -> Callable[[], object]:
            return lambda: member.log.remove(chosen.segment)

        answers = state.calls.each({d: removing(m) for d, m in state.members.items()})
        state.lose(answers.faults)
        state.planner.table.removed(chosen.segment)
        state.counts.removed_segments += 1
        return True

    def look(self) -> None:
        """Ask the members for their room now. ``space`` is the least of each."""
        state = self._state
        self._checked_s = state.clock.monotonic_s()
        answers = state.calls.each({d: m.volume.space for d, m in state.members.items()})
        state.lose(answers.faults)
        spaces = [space for space in answers.values.values() if isinstance(space, Space)]
        self.space = Space(
            total_bytes=min(space.total_bytes for space in spaces),
            free_bytes=min(space.free_bytes for space in spaces),
        )
        self.has_space = self.space.free_bytes >= state.reserve_bytes

    def prepare(self) -> bool:
        """One more free segment on every member before this returns; False when one is full."""
        if self._preparation is None:
            self._begin()
        return self._harvest(wait=True)

    def prepare_ahead(self) -> None:
        """Begin one more free segment if fewer than wanted are there, the one the next puts enter
        included. Does not wait."""
        self._harvest(wait=False)
        short = self._state.planner.table.free_count < self._wanted
        if short and self._preparation is None and self._may_prepare():
            self._begin()

    def settle(self) -> None:
        """Wait for a preparation under way, so that the segments are the same on all members."""
        if self._preparation is not None:
            self._harvest(wait=True)

    def _begin(self) -> None:
        state = self._state
        wanted = state.planner.table.next_to_prepare()
        parts = {drive: _Part(wanted, member) for drive, member in state.members.items()}
        self._preparation = _Preparation(wanted, parts)
        for part in parts.values():
            self._spawn(part.run)

    def _harvest(self, *, wait: bool) -> bool:
        """Take in a finished preparation. A member that hangs in one is found by its next batch:
        only when a segment is needed now does the committer wait for it."""
        preparation, state = self._preparation, self._state
        if preparation is None:
            return False
        if preparation.late(state.members):
            if not wait:
                return False
            self._wait_for(preparation)
        self._preparation = None
        faults = {
            drive: part.fault
            for drive, part in preparation.parts.items()
            if part.fault is not None and drive in state.members
        }
        answers = Answers(faults=faults)
        state.lose(answers.failed)
        if answers.full:
            self._take_back(preparation, faults)
            return False
        state.planner.table.prepared(preparation.wanted)
        return True

    def _wait_for(self, preparation: _Preparation) -> None:
        """Until each member is through. One that is over its deadline is failed if another is
        through; while none is, hold."""
        state = self._state
        for drive in preparation.late(state.members):
            preparation.parts[drive].done.wait(state.settings.deadline_s)
        late = preparation.late(state.members)
        if len(late) == len(state.members):
            state.callbacks.alert("no drive answers: writing is held until one does")
            while len(late) == len(state.members):
                preparation.parts[late[0]].done.wait(HOLD_POLL_S)
                late = preparation.late(state.members)
            for drive in late:  # what held them all lets go of them one by one
                preparation.parts[drive].done.wait(state.settings.deadline_s)
            late = preparation.late(state.members)
            state.callbacks.alert("drives answer again")
        what = "making a log segment"
        state.lose({drive: DriveTimeout(drive, what, errno.ETIMEDOUT) for drive in late})

    def _take_back(self, preparation: _Preparation, faults: Mapping[str, DriveFault]) -> None:
        """Leave no member with a segment another has no room for."""
        state = self._state

        def removing(member: Member) -> Callable[[], object]:
            return lambda: member.log.remove(preparation.wanted.segment)

        made = [drive for drive in state.members if drive not in faults]
        answers = state.calls.each({drive: removing(state.members[drive]) for drive in made})
        state.lose(answers.faults)
