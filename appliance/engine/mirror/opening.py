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

from appliance.core.epochs import Leave, Serve, Standing
from appliance.core.errors import Damaged, DriveFault, Unavailable
from appliance.core.ports import Volume
from appliance.engine.mirror.adoption import BlobKeeper
from appliance.engine.mirror.assembled import Assembly, Orders, Ports
from appliance.engine.mirror.format import DecodedBatch
from appliance.engine.mirror.index import Index, Position, newest_index
from appliance.engine.mirror.log import Log, LogReader
from appliance.engine.mirror.lost import NAMES_MAX, LostRecord, name_losses
from appliance.engine.mirror.member import Calls, Member
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
from appliance.engine.mirror.roll_call import call_roll
from appliance.engine.mirror.starts import Starts
from appliance.engine.mirror.state import Callbacks, MirrorState, StoreSettings, reserve_for
from appliance.engine.mirror.superblock import Superblock, SuperblockFile
from appliance.engine.mirror.votes import Votes, WitnessHome, generation_of
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
    """Open a mirror up to, but without, its first batch. Raises ``NotYet``, ``Refused``,
    ``ReadOnly`` (diverged histories), ``Unavailable``. A drive that fails meanwhile is left out and
    the votes are counted again without it."""
    excluded: dict[Volume, str] = {}
    condemned = False
    while True:
        start = _Start(assembly, ports, settings, callbacks, orders, excluded, starts)
        try:
            return start.run()
        except DriveFault as fault:
            start.abandon()
            failed = [volume for volume in assembly.volumes if volume.name == fault.drive]
            if not failed or failed[0] in excluded:
                raise Unavailable(f"cannot open the mirror: {fault}") from fault
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
        self._members: dict[str, Member] = {}
        self._witness: WitnessFile | None = None
        self._index: Index | None = None
        self._calls = Calls(
            ports.lanes, ports.clock, deadline_s=settings.deadline_s, alert=callbacks.alert
        )

    def abandon(self) -> None:
        """Close what this attempt opened, but for the volumes, which are the caller's."""
        for member in self._members.values():
            member.log.close()
            member.reader.close()
            member.superblock.close()
        if self._witness is not None:
            self._witness.close()
        if self._index is not None:
            self._index.close()

    def run(self) -> Opened:
        """See the module."""
        roll = call_roll(
            self._assembly,
            self._excluded,
            self._orders,
            self._callbacks.alert,
            waited=self._orders.waited or bool(self._excluded),
        )
        self._witness, serve = roll.witness, roll.serve
        self._starts.begin()
        segment_size = self._open_members(serve, roll.found)
        self._index, position = self._open_index()
        everywhere = position is not None and self._everywhere(position)
        ensure = partial(BlobKeeper(self._calls).ensure, self._members)
        recovery = recover_logs(
            self._members,
            tail_after(position) if everywhere else None,
            accept_losses=self._orders.accept_losses,
            chosen=self._orders.chosen,
            ensure=ensure,
        )
        if position is not None and recovery.last is None:
            recovery.last = self._rewrite(position)
        lost: list[LostRecord] = []
        if recovery.losses:
            lost = name_losses(recovery.unaccepted, self._index, self._members)
            if recovery.contradiction or not self._orders.accept_losses:
                return self._open_for_reading(serve, segment_size, recovery, position, lost)
        for loss in (*recovery.losses, *(one.words() for one in lost[:NAMES_MAX])):
            self._callbacks.alert(f"lost, as accepted: {loss}")
        ensure(file_blobs(recovery.last))
        recovery.rebuilt_index = position is None
        recovery.replayed_batches = self._replay(position, recovery)
        opened = self._opened(serve, segment_size, recovery, [])
        self._settle_epoch(opened.state, serve, recovery)
        if self._orders.resume:
            self._starts.forget()
        elif reason := self._starts.judge(self._index.newest_request):
            opened.read_only = opened.state.stopped = reason
        return opened

    def _open_for_reading(
        self,
        serve: Serve,
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
        opened = self._opened(serve, segment_size, recovery, list(recovery.losses))
        opened.lost = lost
        return opened

    def _replay(self, position: Position | None, recovery: LogRecovery) -> int:
        assert self._index is not None, "opened before"
        log = next(iter(self._members.values())).log
        lost = recovery.accepted | recovery.unaccepted
        return replay(self._index, log, tail_after(position), lost)

    def _witness_home(self) -> WitnessHome | None:
        directory = self._assembly.witness_directory
        if directory is None:
            return None
        return WitnessHome(directory, self._assembly.witness_name, self._assembly.mirror_id)

    def _open_members(self, serve: Serve, found: list[tuple[Volume, Superblock]]) -> int:
        mirror_id = bytes.fromhex(self._assembly.mirror_id)
        size = 0
        for volume, block in found:
            if block.drive_id not in serve.in_sync:
                continue
            opened = SuperblockFile.open(volume)
            if not isinstance(opened, SuperblockFile):
                raise Unavailable(f"drive {volume.name}: its superblock cannot be opened")
            size = block.segment_size_bytes
            try:
                log = Log(volume, mirror_id, size)
            except BaseException:
                opened.close()
                raise
            self._members[block.drive_id] = Member(
                block.drive_id,
                volume,
                opened,
                log,
                LogReader(volume, mirror_id),
                generation_of(serve.history, block.drive_id),
            )
        return size

    # -- index ---------------------------------------------------------------------------------

    def _open_index(self) -> tuple[Index, Position | None]:
        """The index and the batch it ends with, proven to be in every member's log; an index that
        is not of this log is replaced by an empty one."""
        mirror_id = bytes.fromhex(self._assembly.mirror_id)
        directory, path = self._assembly.index_directory, self._assembly.index_path
        return open_index(directory, path, mirror_id, self._standing)

    def _standing(self, position: Position) -> bool:
        """Whether some member's log has exactly the batch an index ends with."""
        return any(has_batch(member.log, position) for member in self._members.values())

    def _everywhere(self, position: Position) -> bool:
        """Whether every member has it; if not, all of the log is looked through."""
        return all(has_batch(member.log, position) for member in self._members.values())

    def _rewrite(self, position: Position) -> DecodedBatch | None:
        """The last batch, which the index has already, once more on every member."""
        for member in self._members.values():
            if has_batch(member.log, position):
                batch = member.log.read_batch(
                    position.segment, position.generation, position.offset
                )
                for target in self._members.values():
                    target.log.rewrite(batch)
                return batch
        return None

    # -- what is left --------------------------------------------------------------------------

    def _opened(
        self, serve: Serve, segment_size: int, recovery: LogRecovery, losses: list[str]
    ) -> Opened:
        assert self._index is not None, "opened before"
        mirror_id = bytes.fromhex(self._assembly.mirror_id)
        heartbeat = max(m.superblock.value.heartbeat for m in self._members.values())
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
        member_volumes = {member.volume for member in self._members.values()}
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
            members=self._members,
            callbacks=self._callbacks,
            segment_size_bytes=segment_size,
            reserve_bytes=self._reserve(),
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
            self._members[drive].repaired += times
        if losses:
            state.stopped = f"data is lost on every drive: {losses[0]}"
        for drive in recovery.lied:
            serial = self._members[drive].superblock.value.serial
            self._callbacks.alert(
                f"drive {drive} (serial {serial}) lacks batches it had confirmed: replace it"
            )
        return Opened(state, segment_size, recovery, losses, state.stopped)

    def _reserve(self) -> int:
        chosen = self._settings.reserve_bytes
        if chosen is not None:
            return chosen
        return reserve_for(min(m.volume.space().total_bytes for m in self._members.values()))

    def _settle_epoch(self, state: MirrorState, serve: Serve, recovery: LogRecovery) -> None:
        """Bring the voters to the winning history, then make the epoch that is needed valid."""
        drives = self._stale_superblocks(state, serve)
        try:
            state.votes.catch_up(
                {**drives, **{d: m.superblock for d, m in state.members.items()}}, serve.behind
            )
            self._make_successor(state, serve, recovery, drives)
            if serve.witness_lost:
                self._renew_witness(state)
        finally:
            for superblock in drives.values():
                superblock.close()

    def _stale_superblocks(self, state: MirrorState, serve: Serve) -> dict[str, SuperblockFile]:
        """Present drives that left: their votes count for epochs, though their data does not."""
        found = {}
        for volume in state.outsiders.values():
            opened = SuperblockFile.open(volume)
            if isinstance(opened, SuperblockFile):
                if serve.standings.get(opened.value.drive_id) is Standing.STALE:
                    found[opened.value.drive_id] = opened
                else:
                    opened.close()
        return found

    def _make_successor(
        self,
        state: MirrorState,
        serve: Serve,
        recovery: LogRecovery,
        others: Mapping[str, SuperblockFile],
    ) -> None:
        # The absent had everything but, at most, the last batch.
        sequence = max(recovery.tail.sequence - 1, 0)
        present = {volume.name for volume in self._assembly.volumes}
        leaves = tuple(
            Leave(drive, sequence, clean=drive not in present) for drive in serve.leaves_needed
        )
        for drive in serve.leaves_needed:
            state.absent.setdefault(drive, "it is not there")
        if leaves:
            state.votes.leave(
                state.members,
                leaves,
                number=serve.next_number,
                voids=serve.voids,
                rejects=serve.rejects,
                forced=serve.force,
            )
        elif serve.needs_epoch:
            state.votes.renew(
                state.members,
                others,
                number=serve.next_number,
                voids=serve.voids,
                rejects=serve.rejects,
                forced=serve.force,
            )

    def _renew_witness(self, state: MirrorState) -> None:
        """The drives decided without W: give it a new beginning that they agree on."""
        if self._witness is not None:
            self._witness.close()
            self._witness = None
        state.votes.make_witness()
