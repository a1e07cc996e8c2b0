"""State transfer: making a present drive equal to the mirror while clients go on, then letting it
join. A return after a minute, a replacement and a spare are the same thing with more or less to do.

Owns the outsider while it is copied to. Refuses a drive whose history went its own way, and one
there is no place for. What it still has is judged by ``trust``. Invariant: the joining epoch is
written only when the drive's log is batch for batch the members' up to the tail and it has every
blob the index names; until then nothing counts on it, so a transfer that is cut short is simply
begun again.

A drive that replaces a member is brought in the same way while that member stays; only when nothing
is left to copy, and between two batches, the old one leaves and the new one joins.

``copy`` runs on a thread of its own beside the committer; ``begin`` and ``finish`` on the
committer's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import partial
from typing import Final

from appliance.core.epochs import BEATS_PER_START, Leave
from appliance.core.errors import Refused, Unavailable
from appliance.core.ports import Volume
from appliance.engine.mirror.adoption import Pacer, unlink_quietly, unpaced
from appliance.engine.mirror.attach import claim_outsider
from appliance.engine.mirror.blob import blob_path, file_bytes
from appliance.engine.mirror.crew import Crew, in_turn
from appliance.engine.mirror.index import IndexReader
from appliance.engine.mirror.log import Log, LogReader
from appliance.engine.mirror.log_transfer import Goal, LogTransfer
from appliance.engine.mirror.member import Member
from appliance.engine.mirror.planner import Tail
from appliance.engine.mirror.state import MirrorState
from appliance.engine.mirror.transfer import ResyncProgress, Transfer, count_lost
from appliance.engine.mirror.trust import Trust, judge, leave_of
from appliance.engine.mirror.votes import VoteFailed
from appliance.engine.mirror.watched import Watch

FINISH_BYTES_MAX: Final = 8 * 1024 * 1024
"""What may be left to copy while commits wait."""
SHRINKING: Final = 0.5
"""What a round may leave of what the one before had to copy. While each does, the transfer keeps
its pace and clients notice little."""
PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Means:
    """With what a transfer works: its pace, the threads, and who sees whether its calls come back.
    ``avoided``: drives that are read from only for what no other can give. ``doubting``: believe
    the drive in nothing, for its copy turned out to be another one."""

    pace: Pacer = unpaced
    crew: Crew = in_turn
    watch: Watch = field(default_factory=lambda: Watch(float("inf")))
    avoided: frozenset[str] = frozenset()
    doubting: bool = False
    is_paused: Callable[[], bool] = lambda: False


class Haste(IntEnum):
    """What is done so that the next round leaves less than the last one."""

    NONE = 0
    UNPACED = 1
    """The transfer rests for nobody."""
    BRAKED = 2
    """Commits wait as well: they get a share of the speed at which the last round copied."""


class Resync:
    """One drive's way in. Made by ``begin``."""

    def __init__(
        self,
        state: MirrorState,
        members: list[Member],
        volume: Volume,
        target: Member,
        leave: Leave | None,
        means: Means,
    ) -> None:
        self._state = state
        self.volume: Final = volume
        """The mount it is brought in on."""
        self.watch: Final = means.watch
        self._lane = f"bringing in {target.drive_id}"
        """While commits wait. A lane of its own, for a source may be the one that hangs."""
        self._began_with = {member.drive_id: member for member in members}
        self._sources = sources = [_watched(member, means.watch) for member in members]
        self._target = target
        self._leave = leave
        self._trust = Trust()
        self._goal = self._take_goal()
        self._dropped = 0
        """So many of the blobs that members unlinked since are unlinked here too."""
        self._is_paused = means.is_paused
        self._haste = Haste.NONE
        self._written = _written(state)
        """By clients, when the goal was taken: into the log, and in blobs."""
        self._round_bytes = 0
        """What clients had written of what the round under way, or the last one, copies."""
        self._bytes_per_s = 1.0
        """How much of that the last round did."""
        self._followed = Tail()
        """Blobs of all batches up to here are copied; ``Tail()``: none were yet."""
        self.progress: Final = ResyncProgress()
        self._transfer = Transfer(sources, target, self.progress, pace=means.pace, crew=means.crew)
        self._log = LogTransfer(state, sources, target, self._transfer)

    @classmethod
    def begin(cls, state: MirrorState, drive: str, means: Means | None = None) -> Resync:
        """Look at the drive and prepare it. Raises ``Refused``, ``DriveFault``."""
        means = means or Means()
        volume = state.outsiders.get(drive)
        if volume is None:
            raise Refused(f"cannot bring drive {drive} in: it is not present")
        if not state.may_join(drive):
            raise Refused(f"cannot bring drive {drive} in: both drives of the mirror are in sync")
        outgoing = state.outgoing_for(drive)
        # The outgoing drive late: there may be a reason why it goes.
        members = sorted(
            state.members.values(),
            key=lambda member: (member.drive_id in means.avoided, member.drive_id == outgoing),
        )
        found: list[Member] = []
        watched = means.watch.volume(volume)
        # On its lane: a drive that hangs again must not hold up the others.
        fault = state.calls.within(drive, lambda: found.append(_open_target(state, watched)))
        if fault is not None:
            raise fault
        (target,) = found
        history = target.superblock.value.history
        leave = None if means.doubting else leave_of(state.votes.history, history, drive)
        state.dropped_blobs = []
        return cls(state, members, volume, target, leave, means)

    @property
    def drive_id(self) -> str:
        """The drive it brings in."""
        return self._target.drive_id

    @property
    def trust(self) -> Trust:
        """What the drive is believed to still have; known after the first ``copy``."""
        return self._trust

    def _take_goal(self) -> Goal:
        planner = self._state.planner
        return Goal(tuple(planner.table.states()), planner.tail)

    # -- the long part, beside the committer -----------------------------------------------------

    def copy(self) -> None:
        """One round towards the goal last taken. Raises ``DriveFault``, ``Unavailable`` once its
        pace was stopped."""
        clock = self._state.clock
        self._transfer.hurry(hurried=self._haste is not Haste.NONE)
        began_s = clock.monotonic_s()
        self._copy()
        if self._haste is not Haste.NONE:
            taken_s = max(clock.monotonic_s() - began_s, 1e-6)
            self._bytes_per_s = max(self._round_bytes, 1) / taken_s
        if self.progress.spots or self._transfer.misses_files:
            index = IndexReader(self._state.index.path)
            try:
                self._transfer.count_absent(index)
                self.progress.lost = count_lost(index, self.progress.spots)
            finally:
                index.close()

    def _copy(self) -> None:
        goal = self._goal
        self._drop()
        if self._followed == Tail():
            self._compare_blobs(goal)
        else:
            blobs = self._log.blobs_since(goal, self._followed)
            self._transfer.work(partial(self._transfer.copy_blob, blob) for blob in blobs)
            self._transfer.flush_names()
        self._followed = goal.tail
        self._log.copy(goal)

    def _compare_blobs(self, goal: Goal) -> None:
        self._trust = self._judge(goal)
        self._log.believe(self._trust)
        index = IndexReader(self._state.index.path)
        try:
            self.progress.total_bytes = self._log.total_bytes(goal) + self._count(index)
            self._round_bytes = self.progress.total_bytes
            self._transfer.compare_blobs(index, self._trust)
        finally:
            index.close()
        self._transfer.copy_losses()

    def _judge(self, goal: Goal) -> Trust:
        for source in self._sources:
            trust = judge(
                self._leave,
                goal.segments,
                source.log,
                self._target.log,
                mirror_id=self._state.mirror_bytes,
                segment_size_bytes=self._state.segment_size_bytes,
            )
            if trust.believed:
                return trust
        return trust

    def _count(self, index: IndexReader) -> int:
        """Bytes of the blobs that must be looked at."""
        blobs, start = 0, b""
        while page := index.blob_versions(start, b"\xff" * 17, PAGE):
            blobs += sum(
                file_bytes(size) for _, size, version in page if not self._trust.in_blob(version)
            )
            start = page[-1][0] + b"\0"
        return blobs

    # -- the short part, while commits wait --------------------------------------------------------

    def finish(self) -> bool:
        """Join if little is left, else take a new goal for ``copy``. Raises ``Stopped``,
        ``DriveFault``, ``Refused`` when the copies are not equal."""
        state = self._state
        self.drop_lost_sources()
        is_first = self._followed == Tail()
        before, self._written = self._written, _written(state)
        self._goal = goal = self._take_goal()
        adopted_bytes = self._written[1] - before[1]
        if is_first or self._log.left_bytes(goal) + adopted_bytes > FINISH_BYTES_MAX:
            self._hasten(self._written[0] - before[0] + adopted_bytes)
            return False
        self._transfer.hurry(hurried=True)
        self._on_lane(self._copy_last)
        joiner = self._prove_vote()
        outgoing = state.outgoing_for(self.drive_id)
        if outgoing:
            state.let_go(outgoing)
        members = {**state.members, self.drive_id: joiner}
        try:
            state.votes.join(members, self.drive_id)
        except VoteFailed as failure:
            state.callbacks.retire(joiner)
            raise state.stop(str(failure)) from failure
        state.dropped_blobs = None
        state.brake.release()
        state.add(joiner)
        self.abandon()  # what was open for the copying
        # Before anything rests on the join: should the others go back to before it, it shows.
        state.beat(BEATS_PER_START)
        return True

    def _copy_last(self) -> None:
        self._copy()
        self._drop()

    def _drop(self) -> None:
        """What members unlinked since would take room here that they have no more."""
        dropped = self._state.dropped_blobs or []
        count = len(dropped)
        for blob_id in dropped[self._dropped : count]:
            unlink_quietly(self._target.volume, blob_path(blob_id))
        self._dropped = count

    def _on_lane(self, call: Callable[[], None]) -> None:
        """While commits wait: nobody does so for longer than a drive's deadline. Raises
        ``DriveFault``, of the drive that does not answer if one does not."""
        calls = self._state.calls
        fault = calls.within(self._lane, call)
        calls.renew(self._lane)
        if fault is not None:
            raise (self.watch.oldest() or fault) if fault.drive == self._lane else fault

    def _prove_vote(self) -> Member:
        """The drive as a member, that is to say unwatched. That it takes a vote is found out before
        one hangs on it: a join that fails half way stops the store. Raises ``DriveFault``."""
        found: list[Member] = []

        def prove() -> None:
            member = _open_target(self._state, self.volume)
            member.superblock.write(member.superblock.value)
            found.append(member)

        fault = self._state.calls.within(self.drive_id, prove)
        if fault is not None:
            raise fault
        return found[0]

    def drop_lost_sources(self) -> None:
        """Read only from drives that are in sync still. Raises ``Unavailable`` when none is left
        of those it began with: it must begin anew."""
        members, began_with = self._state.members, self._began_with
        self._sources[:] = [
            one for one in self._sources if began_with[one.drive_id] is members.get(one.drive_id)
        ]
        if not self._sources:
            raise Unavailable("the drive that was copied from has left the mirror")

    def _hasten(self, written_bytes: int) -> None:
        """Why it ends: each round copies what was committed while the one before ran. Where that
        does not get less quickly, the rests are left out; where that is not enough, commits get no
        more than a share of the speed at which the last round copied what they had written. So
        each round has at most that share of the one before to copy, or, where one batch is more
        than a whole round, some round finds nothing new, because what the batch took too much is
        waited for."""
        if written_bytes > self._round_bytes * SHRINKING and self._haste is not Haste.BRAKED:
            self._haste = Haste(self._haste + 1)
        self._round_bytes = written_bytes
        if self._haste is Haste.BRAKED:
            # Here and not where the round begins: a transfer that was given up holds nobody back.
            share = self._state.settings.resync_commit_percent / 100
            self._state.brake.hold(self._bytes_per_s * share, self._is_paused)

    def abandon(self) -> None:
        """Let what the transfer opened on the drive be closed, where a hang harms nobody."""
        self._state.callbacks.retire(self._target)


def _written(state: MirrorState) -> tuple[int, int]:
    return state.counts.batch_bytes, state.counts.adopted_bytes


def _watched(member: Member, watch: Watch) -> Member:
    """The same member, for reading beside its lane."""
    volume = watch.volume(member.volume)
    return replace(member, volume=volume, log=member.log.through(volume))


def _open_target(state: MirrorState, volume: Volume) -> Member:
    superblock = claim_outsider(state, volume)
    return Member(
        superblock.value.drive_id,
        volume,
        superblock,
        Log(volume, state.mirror_bytes, state.segment_size_bytes),
        LogReader(volume, state.mirror_bytes),
    )
