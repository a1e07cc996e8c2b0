"""Room on the drives: segments for the log, and the reserve that keeps deletes possible.

Owns the preparing of free segments, beside the committer where threads may be had, and the answer
to "are puts admitted?". A full drive is no failed drive: what was begun is taken back on both, and
puts are refused until room is there again. Invariant: one free segment is always left for what must
still be logged when the drives are full.

Committer thread only; the preparing itself may run in another.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from appliance.core.errors import DriveFault
from appliance.core.ports import Space
from appliance.engine.mirror.format import BATCH_HEADER_BYTES
from appliance.engine.mirror.member import Member
from appliance.engine.mirror.segment import SegmentState
from appliance.engine.mirror.state import MirrorState

SPACE_CHECK_EVERY_S: Final = 1.0

Spawn: TypeAlias = Callable[[Callable[[], None]], None]
"""Runs a call beside the committer, or at once where there are no threads."""


def at_once(call: Callable[[], None]) -> None:
    """The ``Spawn`` of simulations."""
    call()


@dataclass(slots=True)
class _Preparation:
    """A segment being made on the members there were when it began."""

    wanted: SegmentState
    members: Mapping[str, Member]
    done: threading.Event = field(default_factory=threading.Event)
    faults: dict[str, DriveFault] = field(default_factory=dict)

    def run(self) -> None:
        """On whatever thread it was spawned on."""
        for drive, member in self.members.items():
            try:
                member.log.prepare(self.wanted)
            except DriveFault as fault:
                self.faults[drive] = fault
        self.done.set()


class RoomKeeper:
    """Keeps free segments prepared and judges admission."""

    def __init__(self, state: MirrorState, spawn: Spawn, *, batch_target_bytes: int) -> None:
        self._state = state
        self._spawn = spawn
        self._target_bytes = batch_target_bytes
        self._preparation: _Preparation | None = None
        self._checked_s = float("-inf")
        self.has_space = True

    def admits_puts(self, segment_size_bytes: int) -> bool:
        """Whether commits that add something are admitted now."""
        state = self._state
        self._harvest(wait=False)
        now_s = state.clock.monotonic_s()
        if now_s - self._checked_s >= SPACE_CHECK_EVERY_S:
            self._checked_s = now_s
            self.has_space = self.free_bytes() >= state.reserve_bytes
        if not self.has_space:
            return False
        tail, table = state.planner.tail, state.planner.table
        needed = 2 * (self._target_bytes + BATCH_HEADER_BYTES)
        if tail.segment and tail.offset + needed <= segment_size_bytes:
            return True
        while len(table.free()) < 2:
            if not self.prepare():
                self.has_space = False
                return False
        return True

    def free_bytes(self) -> int:
        """The least of the members' free room."""
        return min(space.free_bytes for space in self._spaces())

    def total_bytes(self) -> int:
        """The least of the members' sizes."""
        return min(space.total_bytes for space in self._spaces())

    def _spaces(self) -> list[Space]:
        state = self._state
        answers = state.calls.each({d: m.volume.space for d, m in state.members.items()})
        state.lose(answers.faults)
        return [space for space in answers.values.values() if isinstance(space, Space)]

    def prepare(self) -> bool:
        """One more free segment on every member before this returns; False when one is full."""
        if self._preparation is None:
            self._begin()
        return self._harvest(wait=True)

    def prepare_ahead(self) -> None:
        """Begin one more free segment if fewer than wanted are there. Does not wait."""
        self._harvest(wait=False)
        short = len(self._state.planner.table.free()) < self._state.settings.segments_ahead
        if short and self._preparation is None and self.has_space:
            self._begin()

    def settle(self) -> None:
        """Wait for a preparation under way, so that the segments are the same on all members."""
        if self._preparation is not None:
            self._harvest(wait=True)

    def _begin(self) -> None:
        state = self._state
        wanted = state.planner.table.next_to_prepare()
        self._preparation = _Preparation(wanted, dict(state.members))
        self._spawn(self._preparation.run)

    def _harvest(self, *, wait: bool) -> bool:
        """Take in a finished preparation. A member that hangs in one is found by its next batch:
        only when a segment is needed now does the committer wait for it."""
        preparation = self._preparation
        if preparation is None:
            return False
        if not wait and not preparation.done.is_set():
            return False
        if not preparation.done.wait(self._state.settings.deadline_s):
            raise self._state.stop("a drive hangs while a log segment is made on it")
        self._preparation = None
        faults = preparation.faults
        if any(fault.errno in {errno.ENOSPC, errno.EDQUOT} for fault in faults.values()):
            self._take_back(preparation)
            return False
        self._state.lose(faults)
        self._state.planner.table.prepared(preparation.wanted)
        return True

    def _take_back(self, preparation: _Preparation) -> None:
        """Leave no member with a segment another has no room for."""
        state = self._state

        def removing(member: Member) -> Callable[[], object]:
            return lambda: member.log.remove(preparation.wanted.segment)

        made = [drive for drive in state.members if drive not in preparation.faults]
        answers = state.calls.each({drive: removing(state.members[drive]) for drive in made})
        state.lose(answers.faults)
