"""From assembled drives to an open store: votes, decision, recovery, in the order that is safe.

Owns the start. Refuses what ``core.membership.decide`` refuses, and serves reads alone when data is
lost on every drive. Invariant: nothing is served before the logs are one, the index has all of
them, the epoch is valid, and this incarnation's first batch is durable.

Crash points: every step only brings voters, logs and index nearer to each other, so a start that is
cut short is simply begun again; see ``recovery`` and ``votes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from appliance.core.epochs import Standing
from appliance.core.errors import Damaged, DriveFault, Unavailable
from appliance.core.ports import Volume
from appliance.engine.mirror.adoption import BlobKeeper
from appliance.engine.mirror.assembled import Assembly, Orders, Ports
from appliance.engine.mirror.format import DecodedBatch
from appliance.engine.mirror.index import Index, Position, newest_index
from appliance.engine.mirror.lost import NAMES_MAX, LostRecord, name_losses
from appliance.engine.mirror.member import Calls
from appliance.engine.mirror.planner import BatchPlanner
from appliance.engine.mirror.rebuild import (
    condemn,
    copy_for_reading,
    has_batch,
    open_index,
    replay,
    tail_after,
)
from appliance.engine.mirror.recovery import LogRecovery, file_blobs, recover_logs
from appliance.engine.mirror.roll_call import RollCall, call_roll
from appliance.engine.mirror.settling import settle_epoch
from appliance.engine.mirror.start_drives import StartDrives
from appliance.engine.mirror.starts import Starts
from appliance.engine.mirror.state import Callbacks, MirrorState, StoreSettings, reserve_for
from appliance.engine.mirror.votes import (
    VoteFailed,
    Votes,
    WitnessHome,
)
from appliance.engine.mirror.witness import WitnessFile

KEPT: Final = {
    Standing.DIVERGED: "its history went its own way; it is kept whole until it is claimed",
    Standing.CLONE: "another drive has the same identity; detach the one that is the copy",
}
"""Standings whose drives nobody writes to, and what is told of them."""


@dataclass(slots=True)
class Opened:
    """The result: an open mirror. ``read_only`` says why it is for reading alone; ``losses`` is
    what no drive has and nobody accepted to lose."""

    state: MirrorState
    segment_size_bytes: int
    recovery: LogRecovery
    losses: list[str] = field(default_factory=list)
    read_only: str = ""
    lost: list[LostRecord] = field(default_factory=list)


def open_mirror(
    assembly: Assembly,
    ports: Ports,
    settings: StoreSettings,
    callbacks: Callbacks,
    orders: Orders,
    starts: Starts,
) -> Opened:
    """Open a mirror up to, but without, its first batch. Raises ``NotYet`` (``NobodyAnswers``),
    ``Refused``, ``ReadOnly`` (diverged histories), ``Unavailable``. A drive that fails or hangs
    meanwhile is left out, and the votes are counted again without it."""
    excluded: dict[Volume, str] = {}
    condemned = False
    while True:
        start = _Start(assembly, ports, settings, callbacks, orders, excluded, starts)
        try:
            return start.run()
        except (DriveFault, VoteFailed) as failure:
            fault = failure.fault if isinstance(failure, VoteFailed) else failure
            if fault is None:
                start.abandon()
                raise  # W did not take its vote
            failed = [volume for volume in assembly.volumes if volume.name == fault.drive]
            start.abandon(*failed)
            if not failed or failed[0] in excluded:
                raise Unavailable(f"cannot open the mirror: {fault}") from failure
            excluded[failed[0]] = str(fault)
            callbacks.alert(f"drive {fault.drive} failed while the mirror was opened: {fault}")
        except Damaged as damage:
            # Only the index can be: a damaged log is reported as losses.
            start.abandon()
            name = newest_index(assembly.index_directory)
            if condemned or name is None:
                raise Unavailable(f"cannot open the mirror: {damage}") from damage
            condemned = True
            condemn(assembly.index_directory, name)
            callbacks.alert(f"{damage}: it is built anew")
        except BaseException:
            start.abandon()
            raise


class _Start:
    """One attempt."""

    def __init__(
        self,
        assembly: Assembly,
        ports: Ports,
        settings: StoreSettings,
        callbacks: Callbacks,
        orders: Orders,
        excluded: Mapping[Volume, str],
        starts: Starts,
    ) -> None:
        self._assembly = assembly
        self._ports = ports
        self._settings = settings
        self._callbacks = callbacks
        self._orders = orders
        self._excluded = excluded
        self._starts = starts
        self._witness: WitnessFile | None = None
        self._index: Index | None = None
        self._calls = Calls(
            ports.lanes, ports.clock, deadline_s=settings.deadline_s, alert=callbacks.alert
        )
        volumes = [volume for volume in assembly.volumes if volume not in excluded]
        mirror_id = bytes.fromhex(assembly.mirror_id)
        self._drives = StartDrives(mirror_id, volumes, self._calls, callbacks)

    def abandon(self, *failed: Volume) -> None:
        """Close what this attempt opened, but for the volumes, which are the caller's. A drive that
        failed, or hangs, is closed whole, where that harms nobody."""
        self._drives.abandon(failed)
        if self._witness is not None:
            self._witness.close()
        if self._index is not None:
            self._index.close()

    def run(self) -> Opened:
        """See the module."""
        roll = call_roll(
            self._assembly,
            self._drives.volumes,
            self._orders,
            self._calls,
            waited=self._orders.waited or bool(self._excluded),
        )
        self._witness, serve = roll.witness, roll.serve
        self._starts.begin()
        segment_size = self._drives.open(roll)
        self._index, position = self._open_index()
        everywhere = position is not None and self._everywhere(position)
        ensure = partial(BlobKeeper(self._calls).ensure, self._drives.guarded)
        recovery = recover_logs(
            self._drives.guarded,
            tail_after(position) if everywhere else None,
            accept_losses=self._orders.accept_losses,
            chosen=self._orders.chosen,
            ensure=ensure,
        )
        if position is not None and recovery.last is None:
            recovery.last = self._rewrite(position)
        lost: list[LostRecord] = []
        if recovery.losses:
            lost = name_losses(recovery.unaccepted, self._index, self._drives.guarded)
            if recovery.contradiction or not self._orders.accept_losses:
                return self._open_for_reading(roll, segment_size, recovery, position, lost)
        for loss in (*recovery.losses, *(one.words() for one in lost[:NAMES_MAX])):
            self._callbacks.alert(f"lost, as accepted: {loss}")
        ensure(file_blobs(recovery.last))
        recovery.rebuilt_index = position is None
        recovery.replayed_batches = self._replay(position, recovery)
        opened = self._opened(roll, segment_size, recovery, [])
        # Not for reading alone either when W is lacking for it: the last batch may yet be void.
        present = {volume.name for volume in self._assembly.volumes} | self._assembly.failing
        settle_epoch(opened.state, serve, self._drives.others, present)
        self._drives.close_others()
        if serve.witness_lost:
            self._renew_witness(opened.state)
        if self._orders.resume:
            self._starts.forget()
        elif reason := self._starts.judge(self._index.newest_request):
            opened.read_only = opened.state.stopped = reason
        return opened

    def _open_for_reading(
        self,
        roll: RollCall,
        segment_size: int,
        recovery: LogRecovery,
        position: Position | None,
        lost: list[LostRecord],
    ) -> Opened:
        """Part of the log is lost: show all that is left, on an index for this life alone, for what
        is lost may come back with a drive."""
        assert self._index is not None, "opened before"
        directory, path = self._assembly.index_directory, self._assembly.index_path
        mirror_id = bytes.fromhex(self._assembly.mirror_id)
        self._index = copy_for_reading(self._index, directory, path, mirror_id)
        self._replay(position, recovery)
        opened = self._opened(roll, segment_size, recovery, list(recovery.losses))
        opened.lost = lost
        return opened

    def _replay(self, position: Position | None, recovery: LogRecovery) -> int:
        assert self._index is not None, "opened before"
        log = next(iter(self._drives.guarded.values())).log
        lost = recovery.accepted | recovery.unaccepted
        return replay(self._index, log, tail_after(position), lost)

    def _witness_home(self) -> WitnessHome | None:
        directory = self._assembly.witness_directory
        if directory is None:
            return None
        return WitnessHome(directory, self._assembly.witness_name, self._assembly.mirror_id)

    # -- index ---------------------------------------------------------------------------------

    def _open_index(self) -> tuple[Index, Position | None]:
        """The index and the batch it ends with, proven to be in every member's log; an index that
        is not of this log is replaced by an empty one."""
        mirror_id = bytes.fromhex(self._assembly.mirror_id)
        directory, path = self._assembly.index_directory, self._assembly.index_path
        return open_index(directory, path, mirror_id, self._standing)

    def _standing(self, position: Position) -> bool:
        """Whether some member's log has exactly the batch an index ends with."""
        return any(has_batch(member.log, position) for member in self._drives.guarded.values())

    def _everywhere(self, position: Position) -> bool:
        """Whether every member has it; if not, all of the log is looked through."""
        return all(has_batch(member.log, position) for member in self._drives.guarded.values())

    def _rewrite(self, position: Position) -> DecodedBatch | None:
        """The last batch, which the index has already, once more on every member."""
        for member in self._drives.guarded.values():
            if has_batch(member.log, position):
                batch = member.log.read_batch(
                    position.segment, position.generation, position.offset
                )
                for target in self._drives.guarded.values():
                    target.log.rewrite(batch)
                return batch
        return None

    # -- what is left --------------------------------------------------------------------------

    def _opened(
        self, roll: RollCall, segment_size: int, recovery: LogRecovery, losses: list[str]
    ) -> Opened:
        assert self._index is not None, "opened before"
        serve, reserve = roll.serve, self._settings.reserve_bytes
        if reserve is None:
            reserve = reserve_for(self._drives.least_total_bytes())
        self._drives.hand_over(roll, segment_size)
        mirror_id = bytes.fromhex(self._assembly.mirror_id)
        heartbeat = max(m.superblock.value.heartbeat for m in self._drives.members.values())
        if serve.force and self._witness is not None:
            # Else W is ahead by the beat that was under way at most, which is made once more.
            heartbeat = max(heartbeat, self._witness.value.heartbeat)
        votes = Votes(
            serve.history,
            heartbeat,
            witness=None if serve.witness_lost else self._witness,
            home=self._witness_home(),
            calls=self._calls,
            entropy=self._ports.entropy,
        )
        member_volumes = {member.volume for member in self._drives.members.values()}
        state = MirrorState(
            mirror_id=self._assembly.mirror_id,
            settings=self._settings,
            clock=self._ports.clock,
            entropy=self._ports.entropy,
            calls=self._calls,
            votes=votes,
            planner=BatchPlanner(mirror_id, segment_size, recovery.table, recovery.tail),
            index=self._index,
            incarnation=int.from_bytes(self._ports.entropy.token(8), "little"),
            members=self._drives.members,
            callbacks=self._callbacks,
            segment_size_bytes=segment_size,
            reserve_bytes=reserve,
            replaces=self._assembly.replaces,
        )
        for volume in self._assembly.volumes:
            if volume not in member_volumes and volume not in self._excluded:
                kept = KEPT.get(serve.standings.get(volume.name, Standing.STALE))
                if kept is None:
                    state.outsiders[volume.name] = volume
                else:
                    state.detach(volume, kept)
        for volume, reason in self._excluded.items():
            state.absent[volume.name] = reason
        for drive, times in recovery.repaired.items():
            self._drives.members[drive].repaired += times
        if losses:
            state.stopped = f"data is lost on every drive: {losses[0]}"
        for drive in recovery.lied:
            serial = self._drives.members[drive].superblock.value.serial
            self._callbacks.alert(
                f"drive {drive} (serial {serial}) lacks batches it had confirmed: replace it"
            )
        return Opened(state, segment_size, recovery, losses, state.stopped)

    def _renew_witness(self, state: MirrorState) -> None:
        """The drives decided without W: give it a new beginning that they agree on."""
        if self._witness is not None:
            self._witness.close()
            self._witness = None
        state.votes.make_witness()
