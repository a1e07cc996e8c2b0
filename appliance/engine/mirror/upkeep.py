"""What a running store does besides commits: marks the log, frees room, proves its witness.

Owns the order in which things may be given up: a log segment only after a flushed index checkpoint
past it, a blob file only after its record is gone for the grace period, a staging directory only
after its gateway is. Invariant: nothing a recovery or a slow reader may still need is freed.

Committer thread only, but for ``checkpoint``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

from appliance.core.errors import NoSpace
from appliance.core.ports import Volume
from appliance.engine.mirror.adoption import BlobKeeper, staging_directories, unlink_quietly
from appliance.engine.mirror.blob import BLOB_DIRECTORY, blob_id_of, file_bytes
from appliance.engine.mirror.commit import Committer
from appliance.engine.mirror.compaction import Compactor
from appliance.engine.mirror.format import BLOCK_BYTES
from appliance.engine.mirror.glance import advice_words
from appliance.engine.mirror.room import RoomKeeper
from appliance.engine.mirror.state import MirrorState
from appliance.engine.mirror.steady import SteadyTime
from appliance.engine.mirror.victims import Zeal

RELEASE_AT_ONCE: Final = 256
RELEASE_GRACE_UNDER_PRESSURE_S: Final = 60.0
RELEASE_GRACE_OUT_OF_ROOM_S: Final = 10.0
"""When a put would be refused; more than a clock may be set by unnoticed. Who reads a blob that
goes looks its key up again, but a long read of an object in parts may end early."""
GAIN_SHARE: Final = 16
"""Of a segment: compaction that gains less is not asked for more."""
ASK_SOON_S: Final = 0.01
ASK_AGAIN_S: Final = 0.5
FULL_FOR_S: Final = 1.0
"""Nothing that is dead is looked for again so soon after none was found."""
FULL_WORDS: Final = "cannot store: the mirror's drives are full up to their reserve"
WAL_PAGES_MAX: Final = 8 * 1024
STAGING_EVERY_S: Final = 30.0
SWEEP_LANE: Final = "sweep"
SURPLUS_WORTH_A_SEGMENT: Final = 4
"""Free segments that wait for a manifest without them, before one is written for their sake."""

Sweep: TypeAlias = Callable[[Sequence[Volume], str], int]
"""Removes a staging directory on these drives if its gateway is gone; how many files went."""

CLOCK_TOLD_S: Final = 900.0
"""A clock that was set by less than requests may be off is nobody's business."""
HOURS_SHOWN_MAX: Final = 72.0


class Upkeep:
    """Periodic work; ``step`` is called often and does little each time."""

    def __init__(
        self,
        state: MirrorState,
        blobs: BlobKeeper,
        room: RoomKeeper,
        committer: Committer,
        compactor: Compactor,
        sweep: Sweep,
    ) -> None:
        self._state = state
        self._blobs = blobs
        self._room = room
        self._committer = committer
        self._compactor = compactor
        self._sweep = sweep
        self._steady = SteadyTime(state.clock)
        self._advised: set[str] = set()
        self._beat_at_s = state.clock.monotonic_s() + state.settings.heartbeat_every_s
        self._sweep_at_s = float("-inf")
        self._sweep_failed = False
        self._full_until_s = float("-inf")
        self._compacts_again_s = float("-inf")
        """However many ask for room, commits have as much of the time as compaction."""
        self._checkpointed_bytes = 0
        self._unswept = [f"{number:02x}" for number in range(256)]

    def step(self) -> None:
        """Whatever is due now. Raises ``Stopped``."""
        self._state.check_running()
        now_s = self._state.clock.monotonic_s()
        self._room.look()
        self._advise()
        self._tell_of_the_clock()
        self._room.prepare_ahead()
        if self._state.index.wal_pages > WAL_PAGES_MAX:
            self._state.index.shorten_wal()
        self.release()
        self._compactor.look()
        self.give_back()
        self.sweep_orphans(1)
        if now_s >= self._sweep_at_s:
            self._sweep_at_s = now_s + STAGING_EVERY_S
            self.sweep_staging()
            self._state.votes.make_witness()
        if now_s >= self._beat_at_s:
            self._beat_at_s = now_s + self._state.settings.heartbeat_every_s
            self._state.beat()

    @property
    def wants_checkpoint(self) -> bool:
        """Whether enough was written since the last one, or the index's own log is long: then
        ``step``, which shortens it while commits wait, finds little left to do."""
        written = self._state.counts.batch_bytes - self._checkpointed_bytes
        return (
            written >= self._state.settings.checkpoint_every_bytes
            or self._state.index.wal_pages > WAL_PAGES_MAX // 2
            or self._compactor.wants_checkpoint
        )

    def checkpoint(self) -> None:
        """Flush the index. Any one thread, beside the committer."""
        self._checkpointed_bytes = self._state.counts.batch_bytes
        self._state.index.checkpoint()

    def _advise(self) -> None:
        """Tell, once in a life, that a drive should be replaced."""
        for drive, member in self._state.members.items():
            words = advice_words(self._state, member)
            if words and drive not in self._advised:
                self._advised.add(drive)
                serial = member.superblock.value.serial
                self._state.callbacks.alert(f"drive {drive} (serial {serial}): {words}")

    def _tell_of_the_clock(self) -> None:
        """Nothing is harmed by a clock that was set, but requests are signed with the time."""
        set_by_s = self._steady.set_by_s()
        if abs(set_by_s) < CLOCK_TOLD_S:
            return
        hours = abs(set_by_s) / 3600
        much = f"{hours:.1f} hours" if hours < HOURS_SHOWN_MAX else f"{hours / 24:.0f} days"
        self._state.callbacks.alert(
            f"this machine's clock was set {much} {'ahead' if set_by_s > 0 else 'back'}: nothing is"
            " lost, but clients whose clocks differ are refused; see that it is right (timedatectl)"
        )

    def give_back(self) -> None:
        """Unlink free segments above what is kept. Those the newest manifest still names as used
        wait for the next one; where many wait, it is written now."""
        while self._room.give_back():
            pass
        table = self._state.planner.table
        waiting = self._room.surplus >= SURPLUS_WORTH_A_SEGMENT and not table.removable()
        if waiting and self._state.dropped_blobs is None:
            self._committer.enter_segment()

    def make_room(self, size_bytes: int) -> float:
        """Room for a file of so many bytes beside the reserve, and for what is logged of it, before
        it is refused: 0 when it is there, else the seconds after which to ask again, because some
        of what is dead goes only then. Raises ``NoSpace``, ``Stopped``."""
        state, room = self._state, self._room
        now_s = state.clock.monotonic_s()
        room.look()
        if room.takes(size_bytes):
            return 0.0
        if now_s < self._full_until_s or not self._may_fit(size_bytes):
            raise NoSpace(FULL_WORDS)
        self.release(grace_s=min(state.settings.release_grace_s, RELEASE_GRACE_OUT_OF_ROOM_S))
        before = room.free_bytes
        if self._log_gives_room(size_bytes):
            if now_s < self._compacts_again_s:
                return ASK_SOON_S
            self._compactor.compact(Zeal.SHORT)
            self.give_back()
            ended_s = state.clock.monotonic_s()
            self._compacts_again_s = ended_s + (ended_s - now_s)
        room.look()
        if room.takes(size_bytes):
            return 0.0
        if room.free_bytes - before >= state.segment_size_bytes // GAIN_SHARE:
            return ASK_SOON_S
        if state.index.released(state.clock.now_ns(), 1):
            return ASK_AGAIN_S
        self._full_until_s = now_s + FULL_FOR_S
        raise NoSpace(FULL_WORDS)

    def _log_gives_room(self, size_bytes: int) -> bool:
        """Whether a file gets what compaction frees: while a state transfer copies segments none is
        given back, and a file that lacks room lacks it as before."""
        state = self._state
        fits = self._room.space.free_bytes - size_bytes >= state.reserve_bytes
        return fits or state.dropped_blobs is None

    def _may_fit(self, size_bytes: int) -> bool:
        """Whether a file would if nothing dead were left: else nothing is given up for it, nor is
        anybody kept waiting."""
        state = self._state
        used_bytes = len(state.planner.table.used()) * state.segment_size_bytes
        count, blob_bytes = state.index.released_bytes()
        dead_bytes = used_bytes - sum(state.index.segments().values())
        dead_bytes += file_bytes(blob_bytes) + count * BLOCK_BYTES
        return self._room.free_bytes + dead_bytes - size_bytes >= state.reserve_bytes

    def release(self, *, grace_s: float | None = None) -> None:
        """Unlink blob files whose records are gone long enough; under pressure sooner."""
        state = self._state
        if grace_s is None:
            grace_s = state.settings.release_grace_s
            if self._room.is_short:
                grace_s = min(grace_s, RELEASE_GRACE_UNDER_PRESSURE_S)
        if self._steady.steady_for_s() < grace_s:
            return  # a clock that was set makes what was released just now look old
        now_ns = state.clock.now_ns()
        before_ns = now_ns - int(grace_s * 1e9)
        released = state.index.released(before_ns, RELEASE_AT_ONCE, after_ns=now_ns)
        if not released:
            return
        blob_ids = [blob.blob_id for blob in released]
        if state.dropped_blobs is not None:
            state.dropped_blobs += blob_ids
        answers = self._blobs.drop(state.members, blob_ids)
        state.lose(answers.faults)
        state.index.forget_released(blob_ids)
        state.counts.released_blobs += len(blob_ids)

    def sweep_staging(self) -> None:
        """Drop what gateways that are gone left behind. Adoption and this never run at once: both
        belong to the committer thread."""
        state = self._state
        volumes = [member.volume for member in state.members.values()]

        def sweep() -> None:
            directories = {name for volume in volumes for name in staging_directories(volume)}
            for directory in sorted(directories):
                state.counts.collected_files += self._sweep(volumes, directory)

        # On a lane of its own. When it is over its deadline it may meet an adoption after all: then
        # one of the two finds a file gone, which both can stand.
        fault = state.calls.within(SWEEP_LANE, sweep)
        if fault is not None and not self._sweep_failed:
            # A drive that fails here fails its next write too, and is judged by that.
            state.callbacks.alert(f"staging cannot be swept: {fault}")
        self._sweep_failed = fault is not None

    def sweep_orphans(self, directories: int = 256) -> None:
        """Once after each start, a directory at a time: drop blob files that no record owns and
        none has released. A crash between adoption and the log leaves such. Between two batches no
        adoption is half done."""
        for _ in range(min(directories, len(self._unswept))):
            self.sweep_directory(f"{BLOB_DIRECTORY}/{self._unswept.pop()}")

    def sweep_directory(self, directory: str) -> dict[str, int]:
        """The drives are touched on their lanes, the index on the committer's thread. How many
        files went from which drive."""
        state = self._state

        def listing(volume: Volume) -> Callable[[], object]:
            return lambda: volume.names(directory) if volume.stat(directory) is not None else []

        listed = state.calls.each({d: listing(m.volume) for d, m in state.members.items()})
        state.lose(listed.faults)
        unlinking: dict[str, Callable[[], object]] = {}
        counts: dict[str, int] = {}
        for drive, member in state.members.items():
            names = listed.values[drive]
            assert isinstance(names, list), "that is what it lists"
            orphans = [f"{directory}/{name}" for name in names if self._is_orphan(name)]
            if orphans:
                unlinking[drive] = partial(_unlink_all, member.volume, orphans)
                counts[drive] = len(orphans)
                state.counts.collected_files += len(orphans)
        if unlinking:
            state.lose(state.calls.each(unlinking).faults)
        return counts

    def _is_orphan(self, name: str) -> bool:
        blob_id, index = blob_id_of(name), self._state.index
        return not blob_id or (index.owner(blob_id) is None and not index.is_released(blob_id))


def _unlink_all(volume: Volume, paths: Sequence[str]) -> None:
    for path in paths:
        unlink_quietly(volume, path)
