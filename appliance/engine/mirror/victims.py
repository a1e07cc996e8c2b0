"""Which log segment is worth compacting.

Owns the choice, by what it would free and what it would cost: a segment's dead share, weighed by
its age, for what is old and still lives will live on, and what is young dies by itself. Invariant:
whatever is chosen frees more than is written for it, but for the oldest segment, which now and then
is rewritten so that deletes behind it can go.

Pure but for the index, which is asked for its sums. Committer thread only.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from appliance.engine.mirror.format import Entry, LogRecord
from appliance.engine.mirror.segment import SegmentState
from appliance.engine.mirror.segment_pieces import PieceReading
from appliance.engine.mirror.state import MirrorState

ALL_DEAD_SHARE: Final = 0.9
"""A segment with so little left is always worth it."""
TOMBSTONE_SHARE: Final = 1 / 16
"""Of the log: when deletes take more, the oldest segment is rewritten, and then the next."""


class Zeal(enum.Enum):
    """How much is done for room: (dead share of the log that is let be, dead share from which on a
    segment is worth it)."""

    BUSY = (0.30, 0.20)
    IDLE = (0.12, 0.10)
    SHORT = (0.0, 0.05)
    TRANSFER = (1.0, ALL_DEAD_SHARE)
    """A state transfer copies segments: it shall not follow more of them than must change."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A segment to compact. ``kept_bytes``: about what must be logged again, but for outcomes."""

    state: SegmentState
    is_oldest: bool
    dead_share: float
    kept_bytes: int


@dataclass(slots=True)
class Victim:
    """A segment on its way out."""

    state: SegmentState
    is_oldest: bool
    outcomes: deque[LogRecord]
    entries: deque[Entry] = field(default_factory=deque)
    reading: PieceReading | None = None
    is_read: bool = False
    is_given_up: bool = False
    """It cannot be read, or not now."""
    last_move: int = 0
    carried: set[tuple[bytes, bytes]] = field(default_factory=set)

    @property
    def is_over(self) -> bool:
        """Whether all of it was looked at."""
        return self.is_read and not self.entries and not self.outcomes

    @property
    def waits(self) -> bool:
        """Whether nothing can be done before more of it is read."""
        ready = self.entries or self.outcomes or self.is_read
        return not ready and self.reading is not None and not self.reading.is_done


class Victims:
    """Chooses among a mirror's segments."""

    def __init__(self, state: MirrorState) -> None:
        self._state = state
        self._left_alone: set[tuple[int, int]] = set()

    def leave_alone(self, segment: SegmentState) -> None:
        """It cannot be read: do not choose it again."""
        self._left_alone.add((segment.segment, segment.generation))

    def choose(self, zeal: Zeal, leaving: Collection[int]) -> Chosen | None:
        """The best segment, but for those that are ``leaving`` already; None if none is worth it.
        Raises ``Damaged``, ``DriveFault`` of the index."""
        tail = self._state.planner.tail
        used = self._state.planner.table.used()
        living, deletes = self._state.index.segments(), self._state.index.tombstones()
        sealed = [
            self._judge(state, living, deletes, is_oldest=state == used[0])
            for state in used
            if state.segment != tail.segment and state.segment not in leaving
        ]
        sealed = [
            chosen
            for chosen in sealed
            if (chosen.state.segment, chosen.state.generation) not in self._left_alone
        ]
        if not sealed:
            return None
        size = self._state.segment_size_bytes
        held = sum(deletes.get(chosen.state.segment, 0) for chosen in sealed)
        is_due = sealed[0].is_oldest and zeal is not Zeal.TRANSFER
        if is_due and held > max(size, len(sealed) * size * TOMBSTONE_SHARE):
            return sealed[0]
        allowed, worth = zeal.value
        dead = sum(chosen.dead_share for chosen in sealed)
        if dead < 1.0 or dead < allowed * len(sealed):
            worth = ALL_DEAD_SHARE
        worthy = [chosen for chosen in sealed if chosen.dead_share >= worth]
        for chosen in sorted(worthy, key=self._benefit, reverse=True):
            if chosen.dead_share - self._outcome_share(chosen) >= worth:
                return chosen
        return None

    def _judge(
        self,
        state: SegmentState,
        living: Mapping[int, int],
        deletes: Mapping[int, int],
        *,
        is_oldest: bool,
    ) -> Chosen:
        kept = living.get(state.segment, 0)
        if not is_oldest:
            kept += deletes.get(state.segment, 0)
        return Chosen(state, is_oldest, 1 - kept / self._state.segment_size_bytes, kept)

    def _benefit(self, chosen: Chosen) -> float:
        age = self._state.planner.tail.sequence - chosen.state.last_sequence + 1
        return chosen.dead_share * age / (2 - chosen.dead_share)

    def _outcome_share(self, chosen: Chosen) -> float:
        state = chosen.state
        outcomes = self._state.index.outcome_bytes(state.first_sequence, state.last_sequence)
        return outcomes / self._state.segment_size_bytes
