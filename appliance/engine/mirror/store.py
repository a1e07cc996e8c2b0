"""The store: the single writer of one mirror.

Owns an open mirror from its first batch to its end, and is the one door to it for the committer
thread. Refuses everything once stopped: only a new ``Store.open`` serves again. See DESIGN.md for
what lies on the drives, ``commit`` for the order of a commit, ``opening`` for the start.

Blocking. One thread, but for what says otherwise.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from appliance.core.epochs import BEATS_PER_START
from appliance.core.errors import (
    ApplianceError,
    Damaged,
    DriveFault,
    EngineError,
)
from appliance.core.ports import Volume
from appliance.engine.interface import Health
from appliance.engine.mirror.adoption import BlobKeeper
from appliance.engine.mirror.assembled import Assembly, Orders, Ports
from appliance.engine.mirror.commit import CommitOutcome, Committer
from appliance.engine.mirror.compaction import Compactor
from appliance.engine.mirror.glance import health_of
from appliance.engine.mirror.index_trust import IndexTrust
from appliance.engine.mirror.joining import Joining
from appliance.engine.mirror.lost import LostRecord
from appliance.engine.mirror.messages import CommitOrder, MembersView, MemberView, Staged
from appliance.engine.mirror.opening import Opened, open_mirror
from appliance.engine.mirror.reading_alone import ReadingAlone
from appliance.engine.mirror.repair import Repairer
from appliance.engine.mirror.resync import Means, Resync
from appliance.engine.mirror.room import RoomKeeper, Spawn, at_once
from appliance.engine.mirror.scrub import Scrub
from appliance.engine.mirror.scrub_kit import ScrubMeans
from appliance.engine.mirror.starts import Starts
from appliance.engine.mirror.state import Callbacks, MirrorState, Stopped, StoreSettings
from appliance.engine.mirror.upkeep import Sweep, Upkeep
from appliance.engine.mirror.victims import Zeal


def never_sweep(_volumes: Sequence[Volume], _directory: str) -> int:
    """The ``Sweep`` for when no lock can be asked."""
    return 0


class Store:
    """An open mirror."""

    def __init__(
        self, assembly: Assembly, opened: Opened, starts: Starts, *, spawn: Spawn, sweep: Sweep
    ) -> None:
        self._assembly = assembly
        self._starts = starts
        self._state: Final[MirrorState] = opened.state
        self._blobs = BlobKeeper(self._state.calls)
        target = self._state.settings.batch_target_bytes
        self._room = RoomKeeper(self._state, spawn, batch_target_bytes=target)
        self._committer = Committer(
            self._state,
            self._blobs,
            self._room,
            segment_size_bytes=opened.segment_size_bytes,
        )
        self._compactor = Compactor(
            self._state, self._committer, self._room, spawn, lambda: self.checkpoint()
        )
        self._committer.relieve = self._compactor.relieve
        self._upkeep = Upkeep(
            self._state, self._blobs, self._room, self._committer, self._compactor, sweep
        )
        self._repairer = Repairer(self._state)
        self.recovery: Final = opened.recovery
        self._reading = ReadingAlone(opened, starts)
        self._trust = IndexTrust(self._state, assembly.index_directory)
        self.joining: Final = Joining(self._state, self._room)
        self._flushing = threading.Lock()

    @classmethod
    def open(
        cls,
        assembly: Assembly,
        ports: Ports,
        settings: StoreSettings | None = None,
        *,
        callbacks: Callbacks | None = None,
        orders: Orders | None = None,
        spawn: Spawn = at_once,
        sweep: Sweep = never_sweep,
    ) -> Store:
        """Recover and begin to serve. The store closes the assembly's volumes when it is closed;
        the caller does when this fails. Raises ``NotYet``, ``Refused``, ``ReadOnly``,
        ``Unavailable``. With data lost on every drive, and after too many crashes on the same data,
        the store is open for reading alone."""
        settings, callbacks = settings or StoreSettings(), callbacks or Callbacks()
        starts = Starts(
            assembly.index_directory,
            ports.clock,
            limit=settings.crash_limit,
            window_s=settings.crash_window_s,
            alert=callbacks.alert,
        )
        try:
            opened = open_mirror(assembly, ports, settings, callbacks, orders or Orders(), starts)
        except ApplianceError:
            starts.give_up()
            raise
        store = cls(assembly, opened, starts, spawn=spawn, sweep=sweep)
        if opened.read_only:
            callbacks.alert(f"the mirror takes no writes: {opened.read_only}")
        else:
            try:
                store._committer.write_start()
                store._state.beat(BEATS_PER_START)
                store._room.look()
                store._upkeep.sweep_staging()
            except ApplianceError:
                starts.give_up()
                store.close()
                raise
        return store

    # -- commits -------------------------------------------------------------------------------

    def commit(self, commits: Sequence[CommitOrder]) -> list[CommitOutcome]:
        """The outcome of each, all durable on every in-sync drive. Raises ``Stopped``: then a retry
        after the next start finds out."""
        with self._trust.while_it_holds():
            return self._committer.commit(commits)

    @property
    def commit_wait_s(self) -> float:
        """How long commits have to wait for a drive that catches up; mostly 0. Whoever makes them
        is to ask: ``commit`` itself does not wait."""
        return 0.0 if self._state.stopped else self._state.brake.wait_s

    @property
    def needs_mark(self) -> bool:
        """Whether an idle store should write a mark now."""
        return self._committer.unmarked and not self._state.stopped

    def mark(self) -> None:
        """See ``Committer.write_mark``."""
        self._committer.write_mark()

    def complete_staged(self, staged: Staged) -> Staged:
        """Copy a staged blob to the in-sync drives that lack it. Any thread."""
        return self._blobs.complete(self._state.members, staged)

    def lacks(self, staged: Staged) -> bool:
        """Whether some in-sync drive does not have it. Any thread. Raises
        ``MembershipChanged``."""
        return bool(self._blobs.lacking(self._state.members, staged))

    def make_room(self, size_bytes: int) -> float:
        """See ``Upkeep.make_room``."""
        self._state.check_running()
        with self._trust.while_it_holds():
            return self._upkeep.make_room(size_bytes)

    # -- members -------------------------------------------------------------------------------

    @property
    def members(self) -> Mapping[str, Volume]:
        """The in-sync drives."""
        return {drive: member.volume for drive, member in self._state.members.items()}

    @property
    def stopped(self) -> str:
        """Why it takes no writes any more; empty while it does. Any thread."""
        return self._state.stopped

    @property
    def read_only(self) -> str:
        """Why it is open for reading alone; empty for one that takes writes, or is to be closed.
        Any thread."""
        return self._reading.reason

    @property
    def losses(self) -> list[str]:
        """The parts of the log no drive has, for which it is open for reading alone."""
        return self._reading.losses

    @property
    def lost(self) -> list[LostRecord]:
        """The records in them, as far as their names are known."""
        return self._reading.lost

    def refuse(self, order: CommitOrder) -> int | EngineError:
        """See ``ReadingAlone.refuse``."""
        return self._reading.refuse(order)

    def lose(self, drive: str, reason: str) -> None:
        """Control says that a drive is gone. Raises ``Stopped``."""
        self._state.check_running()
        self.joining.take_away(drive)
        if drive in self._state.members:
            gone = DriveFault(drive, "being present", errno.ENODEV, reason)
            self._state.lose({drive: gone}, clean=True)

    def outsiders(self) -> Mapping[str, Volume]:
        """Present drives that are not in sync, each to be given to ``begin_resync``."""
        return dict(self._state.outsiders)

    def add_outsider(self, volume: Volume) -> None:
        """A drive came (back), on a fresh mount."""
        self.joining.add(volume)

    def bring(self, drive: str, make: Callable[[], Volume]) -> None:
        """The same for one whose volume is yet to be opened. Raises ``DriveFault``."""
        self.joining.bring(drive, make)

    def replacing(self, replaces: Mapping[str, str]) -> None:
        """Control says which new drive takes the place of which."""
        self._state.replaces = dict(replaces)

    def candidates(self) -> list[str]:
        """See ``Joining.candidates``. Any thread."""
        return self.joining.candidates()

    def begin_resync(self, drive: str, means: Means | None = None) -> Resync:
        """Start bringing an outsider in; the caller calls its ``copy`` on a thread of its own, then
        ``finish_resync`` here. Raises ``Refused``, ``DriveFault``."""
        self._state.check_running()
        return self.joining.begin(drive, means)

    def continue_resync(self, resync: Resync) -> None:
        """A drive it was copied from failed: go on with what the others hold. Raises ``Stopped``,
        ``Unavailable``."""
        self._state.check_running()
        self.joining.go_on(resync)

    def finish_resync(self, resync: Resync) -> bool:
        """Copy what little is left and let the drive join. False: too much was written meanwhile,
        ``copy`` once more. Raises ``Stopped``, ``DriveFault``; ``Unavailable`` if the drive was
        taken away meanwhile."""
        self._state.check_running()
        return self.joining.finish(resync)

    @property
    def transferring(self) -> bool:
        """Whether a state transfer is under way that may still end well. Any thread."""
        return self.joining.is_transferring

    def abandon_resync(self, resync: Resync) -> None:
        """It failed; the drive stays an outsider if it is still there."""
        self.joining.abandon(resync)

    def sweep_staging(self) -> None:
        """Drop what gateways that are gone left behind."""
        self._upkeep.sweep_staging()

    def sweep_orphans(self) -> None:
        """Drop all blob files nobody owns now, instead of bit by bit."""
        self._upkeep.sweep_orphans()

    def stop_reading(self, reason: str) -> None:
        """End an open store that serves reads alone, so that it is opened anew."""
        self._reading.end(reason)

    def repair(self, drive: str, place: bytes) -> bool:
        """A reader found a bad copy on ``drive``: prove it, then write the good bytes over it."""
        self._state.check_running()
        with self._trust.while_it_holds():
            return self._repairer.repair(drive, place)

    def copy_for_repair(self, drive: str, blob_id: bytes) -> Callable[[], bool] | None:
        """See ``Repairer.copy_file``. Any thread."""
        return self._repairer.copy_file(drive, blob_id)

    # -- scrub ---------------------------------------------------------------------------------

    @property
    def index_directory(self) -> Volume:
        """Where the index lies, and what is remembered of scrubs. Any thread."""
        return self._assembly.index_directory

    def scrub(self, means: ScrubMeans) -> Scrub:
        """A scrub, or the rest of one, to be run on a thread of its own. Any thread."""
        return Scrub(self._state, means, self._assembly, self._upkeep.sweep_directory)

    # -- upkeep --------------------------------------------------------------------------------

    def step(self) -> None:
        """Periodic work; see ``Upkeep.step`` and ``ReadingAlone.step``."""
        self._reading.step()
        if self._state.stopped:
            return
        with self._trust.while_it_holds():
            self._upkeep.step()

    @property
    def work_wait_s(self) -> float:
        """How long until ``work`` may have something to do."""
        return self._compactor.wait_s

    def work(self) -> None:
        """One bounded piece of compaction, if one is due: between any two batches."""
        self._state.check_running()
        with self._trust.while_it_holds():
            self._compactor.turn()

    def compact(self, zeal: Zeal = Zeal.SHORT) -> bool:
        """Compact and free the best log segment before this returns; whether one was freed. Raises
        ``Stopped``."""
        self._state.check_running()
        with self._trust.while_it_holds():
            return self._compactor.compact(zeal)

    def condemn_index(self, damage: Damaged) -> Stopped:
        """See ``IndexTrust.end``. Any thread."""
        return self._trust.end(damage)

    def checkpoint_if_due(self) -> None:
        """Flush the index when enough was written. Any one thread."""
        if self._upkeep.wants_checkpoint:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Flush the index now. Any thread."""
        with self._flushing:
            if not self._state.stopped:
                with self._trust.while_it_holds():
                    self._upkeep.checkpoint()

    # -- looking -------------------------------------------------------------------------------

    def view(self) -> MembersView:
        """What gateways need to know."""
        state = self._state
        members = [
            MemberView(drive, "", member.generation, in_sync=True)
            for drive, member in sorted(state.members.items())
        ]
        return MembersView(
            state.mirror_bytes,
            state.index.path,
            state.settings.inline_limit_bytes,
            members,
            state.stopped,
            state.reserve_bytes,
            next(iter(self.losses), ""),
        )

    def health(self) -> Health:
        """At a glance. Any thread; touches no drive, so that one that hangs is reported too."""
        return health_of(self._state, self._room.space, *self.joining.glance(), self._reading)

    def counts(self) -> dict[str, int]:
        """What happened since the start, for metrics."""
        counts = self._state.counts
        return {name: getattr(counts, name) for name in counts.__slots__}

    def close(self) -> None:
        """Stop and give everything back. Idempotent."""
        if not self._state.stopped:
            self._state.stopped = "the store is closed"
        with self._flushing:
            self._state.close()
        self._starts.end()
        self._assembly.close()
