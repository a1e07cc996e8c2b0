"""Log compaction: what lives in a segment goes to the log's end, then the segment is freed.

Owns the choice of segments and their freeing. Refuses to lose: a segment that does not verify on
any drive stays as it is. Invariant: at every moment the log alone, without the index, adds up to
the same records, versions and counters as before.

What a segment may hold, and what becomes of it:

- a record the index points to: logged again as a ``move``, with its version;
- a delete: logged again while its key is absent and an older segment is still in use, which might
  hold a put of that key; from the oldest used segment nothing older can come back;
- the outcome of a commit within the window of remembered request ids: a ``commit`` record;
- anything else (replaced records, marks, starts, older manifests) is not needed by anybody.

Nothing is under way between the look at the index and the batch it makes, for both belong to the
committer's thread: a record that was replaced since it was read is dropped here.

Crash points, in order: (1) after some batches: what was moved is current at its new place, and
chosen again the segment has less to move; (2) after the last one, without a later batch: a mark is
written, so that this one is no ambiguous tail; (3) before the index is flushed past them: replayed;
(4) after it, before the headers: the segment holds nothing that is needed, and is chosen again;
(5) after one drive's header: recovery completes it, a higher generation is proof of (4).

Committer thread only; the reading of a segment may run in another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.engine.mirror.commit import Committer
from appliance.engine.mirror.format import Entry, Kind, LogRecord, record_bytes
from appliance.engine.mirror.member import Member
from appliance.engine.mirror.piece_source import PieceSource
from appliance.engine.mirror.room import RoomKeeper, Spawn
from appliance.engine.mirror.segment import SegmentState
from appliance.engine.mirror.state import MirrorState
from appliance.engine.mirror.throttle import MIB
from appliance.engine.mirror.victims import Victim, Victims, Zeal

MOVE_BYTES: Final = 512 * 1024
"""Records in one batch of moves: what a client's commit may have to wait for."""
MOVES_IN_A_SEGMENT: Final = 16
"""At least: a segment is left behind with less than a batch's room unused."""
ENTRIES_AT_ONCE: Final = 1024
"""Records looked up in the index for one batch."""
RELIEF_SEGMENTS_MAX: Final = 4
"""Segments compacted while commits wait, before one is refused for want of room."""
OUTCOMES_AT_ONCE: Final = 256
LAST_SEGMENT_SHARE: Final = 0.8
"""What may live in a segment that is moved to the last free one."""
POLL_S: Final = 0.002
STUCK_S: Final = 1.0
"""How long a segment rests for which there is no room to move to."""
FREE_GRACE_SHORT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Relocated:
    """A segment nothing needs any more once the index is flushed up to ``through``."""

    state: SegmentState
    through: int
    last_move: int
    since_s: float


class Compactor:
    """Compacts one segment after the other, a bounded piece at a time."""

    def __init__(
        self,
        state: MirrorState,
        committer: Committer,
        room: RoomKeeper,
        spawn: Spawn,
        checkpoint: Callable[[], None],
    ) -> None:
        """``checkpoint`` flushes the index."""
        self._state = state
        self._committer = committer
        self._room = room
        self._checkpoint = checkpoint
        self._victims = Victims(state)
        self._source = PieceSource(state, self._victims, spawn)
        self._move_bytes = min(MOVE_BYTES, state.segment_size_bytes // MOVES_IN_A_SEGMENT)
        self._victim: Victim | None = None
        self._relocated: list[_Relocated] = []
        self._not_before_s = float("-inf")
        self._commits_seen = 0
        self._is_idle = False
        self._is_undisturbed = False

    # -- the usual way: a little at each turn ------------------------------------------------------

    def look(self) -> None:
        """Once a second or so: free what may be freed, and choose the next segment."""
        commits = self._state.counts.commits
        self._is_idle, self._commits_seen = commits == self._commits_seen, commits
        self.free_relocated()
        if self._victim is None:
            self._choose(self._zeal())
        self.turn()

    @property
    def wait_s(self) -> float:
        """How long until ``turn`` may have something to do; infinite without a segment chosen."""
        victim = self._victim
        if victim is None:
            return float("inf")
        wait_s = max(0.0, self._not_before_s - self._state.clock.monotonic_s())
        return max(wait_s, POLL_S) if victim.waits else wait_s

    def turn(self) -> None:
        """One piece, if it is due. While clients are active the work rests longer than it works,
        unless room is short. Raises ``Stopped``."""
        began_s = self._state.clock.monotonic_s()
        if self._victim is None or began_s < self._not_before_s:
            return
        victim, moved = self._victim, self._state.counts.moved_bytes
        if not self._step(victim) and not victim.waits and self._victim is victim:
            self._not_before_s = began_s + STUCK_S
            return
        if self._room.is_short:
            return
        took_s = self._state.clock.monotonic_s() - began_s
        pace, rest_s, limited_s = self._state.settings.compaction_pace, 0.0, 0.0
        if not self._is_idle:
            rest_s = took_s * (100 - pace.busy_percent) / pace.busy_percent
        if pace.limit_mib_s:
            written = self._state.counts.moved_bytes - moved
            limited_s = written / (pace.limit_mib_s * MIB) - took_s
        self._not_before_s = began_s + took_s + max(rest_s, limited_s)

    @property
    def wants_checkpoint(self) -> bool:
        """Whether segments wait for the index to be flushed."""
        flushed = self._state.index.flushed
        sequence = flushed.sequence if flushed is not None else 0
        return any(relocated.through > sequence for relocated in self._relocated)

    # -- the whole way at once ---------------------------------------------------------------------

    def relieve(self, is_relieved: Callable[[], bool]) -> bool:
        """While commits wait: make room by compacting, as far as that goes. Whether it did."""
        for _ in range(RELIEF_SEGMENTS_MAX):
            if not self.compact(Zeal.SHORT):
                return False
            if is_relieved():
                return True
        return False

    def compact(self, zeal: Zeal) -> bool:
        """Compact and free one segment before this returns; False if none is worth it or the index
        cannot be flushed now. Raises ``Stopped``."""
        self._is_undisturbed = True
        try:
            return self._compact(zeal)
        finally:
            self._is_undisturbed = False

    def _compact(self, zeal: Zeal) -> bool:
        if self._victim is None:
            self._choose(zeal)
        victim = self._victim
        before = self._state.counts.recycled_segments
        while victim is not None and self._victim is victim:
            reading = victim.reading
            if reading is not None:
                reading.wait(self._state.settings.deadline_s)
            if not self._step(victim) and victim.reading is reading:
                break
        if self.wants_checkpoint:
            self._checkpoint()
        self.free_relocated(at_once=True)
        return self._state.counts.recycled_segments > before

    # -- one segment -------------------------------------------------------------------------------

    def _zeal(self) -> Zeal:
        if self._room.is_short:
            return Zeal.SHORT
        if self._state.dropped_blobs is not None:
            return Zeal.TRANSFER
        return Zeal.IDLE if self._is_idle else Zeal.BUSY

    def _choose(self, zeal: Zeal) -> None:
        state = self._state
        chosen = self._victims.choose(zeal, {r.state.segment for r in self._relocated})
        if chosen is None:
            return
        outcomes = state.index.outcomes(chosen.state.first_sequence, chosen.state.last_sequence)
        self._victim = Victim(
            chosen.state,
            chosen.is_oldest,
            deque(
                LogRecord(Kind.COMMIT, b"", b"", version=version, request_id=request_id)
                for request_id, version in outcomes
            ),
        )
        self._victim.is_read = chosen.kept_bytes == 0

    def _step(self, victim: Victim) -> bool:
        """One piece of it; whether anything was done."""
        if not victim.is_over and not self._room.admits_moves(
            self._move_bytes, last=self._gets_back(victim)
        ):
            return False
        if victim.outcomes:
            self._write(victim, _taken(victim.outcomes))
        elif victim.entries or (not victim.is_read and self._source.fetch(victim)):
            self._write(victim, self._needed(victim))
        elif victim.is_given_up:
            self._victim = None
            return False
        elif not victim.is_over:
            return False
        if victim.is_over:
            self._finish(victim)
        return True

    def _gets_back(self, victim: Victim) -> bool:
        """Whether, moved without a commit in between, it frees a segment for less than one."""
        if not self._is_undisturbed:
            return False
        kept = self._state.index.segments().get(victim.state.segment, 0)
        return kept <= LAST_SEGMENT_SHARE * self._state.segment_size_bytes

    def _finish(self, victim: Victim) -> None:
        through = self._state.planner.tail.sequence
        now_s = self._state.clock.monotonic_s()
        self._relocated.append(_Relocated(victim.state, through, victim.last_move, now_s))
        self._victim = None
        self._choose(self._zeal())

    # -- what is needed of it ----------------------------------------------------------------------

    def _needed(self, victim: Victim) -> list[LogRecord]:
        """What of the next entries must be logged again, as the index has it now."""
        entries = _first_of(victim.entries, self._move_bytes)
        keys: dict[bytes, list[bytes]] = {}
        for record, _ in entries:
            if record.key:
                keys.setdefault(record.partition, []).append(record.key)
        index, places = self._state.index, dict[tuple[bytes, bytes], bytes]()
        for partition, wanted in keys.items():
            for row in index.read(partition.decode(), wanted):
                if row is not None:
                    places[partition, row.key] = row.location.encode()
        needed = []
        for record, location in entries:
            at = (record.partition, record.key)
            if record.kind in {Kind.PUT, Kind.MOVE}:
                if places.get(at) == location.encode():
                    needed.append(record._replace(kind=Kind.MOVE, request_id=b""))
                continue
            if record.kind is not Kind.DELETE or victim.is_oldest or at in places:
                continue
            if at not in victim.carried:
                victim.carried.add(at)
                needed.append(record._replace(request_id=b""))
        return needed

    def _write(self, victim: Victim, records: Sequence[LogRecord]) -> None:
        if not records:
            return
        self._committer.write_moved(records)
        victim.last_move = self._state.planner.tail.sequence
        self._state.counts.moved_records += len(records)
        self._state.counts.moved_bytes += sum(map(record_bytes, records))

    # -- freeing -----------------------------------------------------------------------------------

    def free_relocated(self, *, at_once: bool = False) -> None:
        """Overwrite the headers of segments that nothing needs any more. Raises ``Stopped``."""
        state = self._state
        grace_s = state.settings.recycle_grace_s
        if self._room.is_short:
            grace_s = min(grace_s, FREE_GRACE_SHORT_S)
        now_s = state.clock.monotonic_s()
        waiting = []
        for relocated in self._relocated:
            flushed = state.index.flushed
            is_over = now_s - relocated.since_s >= grace_s
            due = at_once or (is_over and not self._is_unread(relocated.state))
            if due and flushed is not None and flushed.sequence >= relocated.through:
                self._free(relocated)
            else:
                waiting.append(relocated)
        self._relocated = waiting

    def _is_unread(self, segment: SegmentState) -> bool:
        """Whether a scrub is yet to read the segment. It looks again when room is short."""
        after = self._state.unread_after
        return after is not None and segment.last_sequence > after and not self._room.is_short

    def _free(self, relocated: _Relocated) -> None:
        state, segment = self._state, relocated.state
        if state.planner.tail.sequence == relocated.last_move:
            self._committer.write_mark()
        left = state.index.segments().get(segment.segment, 0)
        assert left == 0, f"segment {segment.segment:08x} still has {left} bytes of living records"
        fresh = SegmentState(segment.segment, segment.generation + 1)

        def recycling(member: Member) -> Callable[[], object]:
            return lambda: member.log.recycle(fresh)

        answers = state.calls.each({d: recycling(m) for d, m in state.members.items()})
        state.lose(answers.faults)
        state.planner.table.recycled(segment.segment)
        state.counts.recycled_segments += 1


def _taken(queue: deque[LogRecord]) -> list[LogRecord]:
    return [queue.popleft() for _ in range(min(len(queue), OUTCOMES_AT_ONCE))]


def _first_of(queue: deque[Entry], size_bytes: int) -> list[Entry]:
    """The first entries, few enough for one batch; at least one."""
    taken: list[Entry] = []
    size = 0
    while queue and len(taken) < ENTRIES_AT_ONCE:
        size += queue[0].location.length
        if taken and size > size_bytes:
            break
        taken.append(queue.popleft())
    return taken
