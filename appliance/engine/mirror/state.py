"""What an open mirror is made of, shared by the parts that each own one piece of its work.

Owns the set of in-sync members and the decision to stop. Invariant: once stopped, nothing is
written any more; only a fresh start, with its recovery, serves again.

Committer thread only, but for ``stopped``, ``view`` and the counters, which any thread may read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from appliance.core.epochs import IN_SYNC_MAX, Leave
from appliance.core.errors import EngineError, Unavailable
from appliance.core.ports import Clock, Entropy, Volume
from appliance.engine.mirror.brake import Brake
from appliance.engine.mirror.index import Index
from appliance.engine.mirror.member import Calls, Member
from appliance.engine.mirror.planner import BatchPlanner
from appliance.engine.mirror.starts import CRASH_LIMIT_DEFAULT, CRASH_WINDOW_S_DEFAULT
from appliance.engine.mirror.throttle import Pace
from appliance.engine.mirror.votes import VoteFailed, Votes, WitnessMissing

INLINE_LIMIT_BYTES_DEFAULT: Final = 256 * 1024
SCRUB_EVERY_S_DEFAULT: Final = 30 * 86_400.0


READ_ERRORS_ADVISED_DEFAULT: Final = 10


def _close(volume: Volume) -> None:
    """For whoever has no thread to close a drive's volume in."""
    volume.close()


def _nobody(*_: object) -> None:
    """For callbacks nobody asked for."""


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """What an operator may choose about a mirror. Times in seconds, sizes in bytes."""

    inline_limit_bytes: int = INLINE_LIMIT_BYTES_DEFAULT
    batch_target_bytes: int = 2 * 1024 * 1024
    deadline_s: float = 30.0
    reserve_bytes: int | None = None
    """None: by the size of the drives, see ``reserve_for``."""
    segments_ahead: int = 2
    """Free log segments kept prepared."""
    release_grace_s: float = 3600.0
    recycle_grace_s: float = 60.0
    checkpoint_every_bytes: int = 64 * 1024 * 1024
    compaction_pace: Pace = field(default_factory=lambda: Pace(64.0, 25))
    """While room is not short; the limit is for what compaction writes."""
    mark_after_s: float = 0.010
    heartbeat_every_s: float = 3600.0
    missing_members_wait_s: float = 90.0
    crash_limit: int = CRASH_LIMIT_DEFAULT
    """So many crashes on the same data within ``crash_window_s`` and the store starts for reading
    alone; 0: never."""
    crash_window_s: float = CRASH_WINDOW_S_DEFAULT
    read_errors_advised: int = READ_ERRORS_ADVISED_DEFAULT
    """After so many read errors since it was claimed a drive should be replaced."""
    resync_pace: Pace = Pace()  # noqa: RUF009 - immutable
    resync_threads: int = 8
    """Blobs and segments that a state transfer copies at a time while no client is active."""
    resync_commit_percent: int = 50
    """While a drive that is brought in cannot catch up with what clients write: what they may write
    in percent of what is copied meanwhile, 1 to 99."""
    scrub_every_s: float = SCRUB_EVERY_S_DEFAULT
    """Time of service between two scrubs; 0: only when told."""
    scrub_pace: Pace = Pace()  # noqa: RUF009 - immutable


def reserve_for(total_bytes: int) -> int:
    """The room kept for the log, deletes and epochs: 1 %, at least 4 GiB, but never more than a
    sixteenth of a small drive."""
    return max(total_bytes // 100, min(4 * 1024**3, total_bytes // 16))


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Whom the store tells: of trouble for the operator, of changed members, and of a failed
    drive's open files, and an outsider's volume, which must be closed where a hang harms nobody."""

    alert: Callable[[str], None] = _nobody
    members_changed: Callable[[], None] = _nobody
    retire: Callable[[Member], None] = Member.close
    discard: Callable[[Volume], None] = _close


class Stopped(Unavailable):
    """The store takes nothing more until it is opened anew; what was under way is found by a
    retry."""


@dataclass(slots=True)
class Counts:
    """What happened since the start."""

    commits: int = 0
    refusals: int = 0
    batches: int = 0
    batch_bytes: int = 0
    adopted_bytes: int = 0
    marks: int = 0
    repaired: int = 0
    moved_records: int = 0
    moved_bytes: int = 0
    recycled_segments: int = 0
    removed_segments: int = 0
    collected_files: int = 0
    released_blobs: int = 0


@dataclass(eq=False, slots=True)
class MirrorState:
    """An open mirror."""

    mirror_id: str
    settings: StoreSettings
    clock: Clock
    entropy: Entropy
    calls: Calls
    votes: Votes
    planner: BatchPlanner
    index: Index
    incarnation: int
    members: dict[str, Member]
    """In sync."""
    outsiders: dict[str, Volume] = field(default_factory=dict)
    """Present, not in sync: to be brought back by a state transfer."""
    detached: list[tuple[Volume, str]] = field(default_factory=list)
    """Present and kept as they are, and why: of a history that is not ours, or a clone."""
    callbacks: Callbacks = field(default_factory=Callbacks)
    stopped: str = ""
    held: str = ""
    """Why it serves reads alone until the witness takes its vote."""
    counts: Counts = field(default_factory=Counts)
    absent: dict[str, str] = field(default_factory=dict)
    """Drives that left, and why."""
    dropped_blobs: list[bytes] | None = None
    """Blobs unlinked since a state transfer began; None while none runs."""
    unread_after: int | None = None
    """Segments with a later sequence are yet to be read by a scrub and are not freed meanwhile,
    except under pressure; None while none reads. Set by the scrub's thread."""
    segment_size_bytes: int = 0
    reserve_bytes: int = 0
    replaces: Mapping[str, str] = field(default_factory=dict)
    """New drives and the one that each takes the place of, as control says."""

    brake: Brake = field(init=False)
    """What commits wait for while a drive catches up with them."""

    def __post_init__(self) -> None:
        counts = self.counts
        self.brake = Brake(self.clock, lambda: counts.batch_bytes + counts.adopted_bytes)

    @property
    def mirror_bytes(self) -> bytes:
        """The mirror's id as the log holds it."""
        return bytes.fromhex(self.mirror_id)

    def check_running(self) -> None:
        """Raises ``Stopped``."""
        if self.stopped:
            raise Stopped(self.stopped)

    def stop(self, reason: str) -> Stopped:
        """Nothing is written from here on; returns what to raise."""
        if not self.stopped:
            self.stopped = f"the mirror takes no writes: {reason}"
            self.callbacks.alert(self.stopped)
        return Stopped(self.stopped)

    def lose(self, faults: Mapping[str, EngineError | Exception], *, clean: bool = False) -> None:
        """The drives of ``faults`` failed (``clean``: were taken away while all was well): go on
        without them, under an epoch that is valid when this returns. Raises ``Stopped`` when that
        cannot be had.

        The last sequence all drives are known to have is the tail's: a batch under way may or may
        not be on a leaving drive, and whatever lies there behind its leave sequence is void.
        """
        leaving = {drive: self.members[drive] for drive in faults if drive in self.members}
        if not leaving:
            return
        staying = {d: m for d, m in self.members.items() if d not in leaving}
        for drive in leaving:
            self.absent[drive] = str(faults[drive])
            self.callbacks.alert(f"drive {drive} left the mirror: {faults[drive]}")
        if not staying:
            raise self.stop("its last drive failed")
        sequence = self.planner.tail.sequence
        leaves = tuple(
            Leave(drive, sequence, clean=clean and not leaving[drive].read_errors)
            for drive in sorted(leaving)
        )
        try:
            self.votes.leave(staying, leaves)
        except WitnessMissing as missing:
            # Whatever was acknowledged is on those that stay, and nobody else can go on.
            self.held = str(missing)
            stopped = self.stop(self.held)
            self._go_on_with(staying, leaving)
            raise stopped from missing
        except VoteFailed as failure:
            raise self.stop(str(failure)) from failure
        self._go_on_with(staying, leaving)

    def _go_on_with(self, staying: dict[str, Member], leaving: Mapping[str, Member]) -> None:
        self.members = staying
        for member in leaving.values():
            self.callbacks.retire(member)
        self.callbacks.members_changed()

    def beat(self, times: int = 1) -> None:
        """Raise the heartbeat; a drive that does not take it leaves. Raises ``Stopped``."""
        self.lose(self.votes.level(self.members))
        for _ in range(times):
            self.lose(self.votes.beat(self.members))

    def probe(self) -> None:
        """Some call does not come back: a member that does not take a vote it has already while
        another one does is failed. Raises ``Stopped``."""

        def voting(member: Member) -> Callable[[], object]:
            return lambda: member.superblock.write(member.superblock.value)

        self.lose(self.calls.each({d: voting(m) for d, m in self.members.items()}).failed)

    def has_failed(self, drive: str) -> bool:
        """Whether a drive that is not in sync left because a call on it failed."""
        for epoch in reversed(self.votes.history):
            for leave in epoch.leaves:
                if leave.drive_id == drive:
                    return not leave.clean
        return False

    def outgoing_for(self, drive: str) -> str:
        """The member that leaves when ``drive`` joins: the one it replaces, or one whose successor
        is in already. Empty while there is a free place, or if nobody makes room."""
        if len(self.members) < IN_SYNC_MAX:
            return ""
        outgoing = self.replaces.get(drive, "")
        if outgoing in self.members:
            return outgoing
        succeeded = [old for new, old in self.replaces.items() if {new, old} <= set(self.members)]
        return "" if drive in self.replaces.values() else "".join(succeeded[:1])

    def may_join(self, drive: str) -> bool:
        """Whether there is a place for an outsider."""
        return len(self.members) < IN_SYNC_MAX or bool(self.outgoing_for(drive))

    def let_go(self, drive: str) -> None:
        """A whole, in-sync member leaves, because another drive has all it has. The caller lets
        that one join before anything else is written; should that fail, the one that left is
        brought back like any other. Raises ``Stopped``.

        Crash points: (1) the epoch is on the survivor: with all voters there it is void, and both
        old members go on (2) on W too: the survivor serves alone, and the new drive, which lacks
        nothing but its vote, is brought in next."""
        leaving = self.members[drive]
        staying = {d: m for d, m in self.members.items() if d != drive}
        leave = Leave(drive, self.planner.tail.sequence, clean=not leaving.read_errors)
        try:
            self.votes.leave(staying, (leave,))
        except VoteFailed as failure:
            raise self.stop(str(failure)) from failure
        self.members = staying
        self.callbacks.retire(leaving)

    def detach(self, volume: Volume, reason: str) -> None:
        """Nobody writes to this present drive."""
        self.outsiders.pop(volume.name, None)
        self.detached.append((volume, reason))

    def take_outsiders(self, drive: str) -> list[Volume]:
        """A drive was taken away: its volumes, if it was not in sync, which count no more."""
        taken = [volume for volume, _ in self.detached if volume.name == drive]
        self.detached = [(volume, why) for volume, why in self.detached if volume.name != drive]
        outsider = self.outsiders.pop(drive, None)
        return taken if outsider is None else [*taken, outsider]

    def add(self, member: Member) -> None:
        """``member`` joined: its epoch is valid."""
        member.generation = self.votes.epoch.number
        self.members = {**self.members, member.drive_id: member}
        self.absent.pop(member.drive_id, None)
        self.absent.pop(self.replaces.get(member.drive_id, ""), None)
        self.outsiders.pop(member.drive_id, None)
        self.callbacks.members_changed()

    def close(self) -> None:
        """Give everything back. Idempotent."""
        self.index.close()
        self.votes.close()
        for member in self.members.values():
            member.close()
        for volume in (*self.outsiders.values(), *(kept for kept, _ in self.detached)):
            volume.close()
