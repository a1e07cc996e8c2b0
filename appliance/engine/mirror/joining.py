"""The present drives that are not in sync, and the one that is on its way in.

Owns which state transfer may still end well: at most one. Refuses whatever another one still wants.
Invariant: a drive that does not answer is no outsider any more when its transfer is given up; it
comes back on a fresh mount only, like a member that failed.

Committer thread only, but for what says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

from appliance.core.errors import DriveFault, DriveTimeout, Unavailable
from appliance.core.ports import Volume
from appliance.engine.mirror.attach import WentItsOwnWay
from appliance.engine.mirror.glance import lost_words
from appliance.engine.mirror.member import Opening
from appliance.engine.mirror.resync import Means, Resync
from appliance.engine.mirror.room import RoomKeeper
from appliance.engine.mirror.state import MirrorState
from appliance.engine.mirror.transfer import ResyncProgress
from appliance.engine.mirror.watched import Watch


class Joining:
    """Of one open mirror."""

    def __init__(self, state: MirrorState, room: RoomKeeper) -> None:
        self._state = state
        self._room = room
        self._resync: Resync | None = None
        self._progress = ResyncProgress()
        """Of the last one that ended well."""

    @property
    def is_transferring(self) -> bool:
        """Whether a state transfer is under way that may still end well. Any thread."""
        return self._resync is not None

    def glance(self) -> tuple[str, ResyncProgress]:
        """The drive that is brought in, empty while none is, and how far it is; else how the last
        one ended. Any thread."""
        resync = self._resync
        return ("", self._progress) if resync is None else (resync.drive_id, resync.progress)

    # -- outsiders -----------------------------------------------------------------------------

    def add(self, volume: Volume) -> None:
        """A drive came (back), on a fresh mount."""
        self._state.calls.renew(volume.name)
        self._state.outsiders[volume.name] = volume

    def bring(self, drive: str, make: Callable[[], Volume]) -> None:
        """The same for one whose volume is yet to be opened: on its lane, for that may hang too.
        Raises ``DriveFault``."""
        self._state.calls.renew(drive)
        opening = Opening(make, self._state.callbacks.discard)
        try:
            self._state.outsiders[drive] = self._state.calls.on(drive, opening)
        except DriveFault:
            opening.give_up()
            raise

    def take_away(self, drive: str) -> None:
        """Control says that a drive is gone: if it was not in sync, it is none of ours any more."""
        for volume in self._state.take_outsiders(drive):
            if self._resync is not None and self._resync.volume is volume:
                self._forget()
            self._state.callbacks.discard(volume)

    def candidates(self) -> list[str]:
        """The outsiders there is a place for, in the order they are to be brought in: those that
        replace another first, those that are replaced last. Any thread."""
        state = self._state
        new, old = state.replaces.keys(), state.replaces.values()
        able = [drive for drive in state.outsiders.copy() if state.may_join(drive)]
        return sorted(able, key=lambda drive: (drive in old, drive not in new, drive))

    # -- the transfer --------------------------------------------------------------------------

    def begin(self, drive: str, means: Means | None) -> Resync:
        """See ``Store.begin_resync``."""
        try:
            self._resync = resync = Resync.begin(self._state, drive, means)
        except WentItsOwnWay as refusal:
            self._state.detach(self._state.outsiders[drive], str(refusal))
            raise
        return resync

    def go_on(self, resync: Resync) -> None:
        """A drive it was copied from failed: go on with what the others hold. Raises
        ``Unavailable``."""
        self._must_be_ours(resync)
        resync.drop_lost_sources()

    def finish(self, resync: Resync) -> bool:
        """See ``Store.finish_resync``."""
        self._must_be_ours(resync)
        self._room.settle()
        joined = resync.finish()
        if joined:
            self._resync, self._progress = None, resync.progress
            if resync.progress.lost:
                self._state.callbacks.alert(lost_words(resync.drive_id, resync.progress))
        return joined

    def _must_be_ours(self, resync: Resync) -> None:
        if resync is not self._resync:
            raise Unavailable("cannot let the drive join: it was taken away meanwhile")

    def abandon(self, resync: Resync) -> None:
        """It failed; the drive stays an outsider if it is still there."""
        if resync is self._resync:
            self._forget()
        resync.abandon()

    def leave_behind(self, drive: str, volume: Volume, watch: Watch, fault: DriveTimeout) -> None:
        """A call of the transfer that brought ``drive`` in on ``volume`` does not come back, by
        ``fault``: its thread is left to it. A member has to prove that it takes a vote while
        another one does; an outsider is given up. Raises ``Stopped``."""
        state = self._state
        if self._resync is not None and self._resync.watch is watch:
            self._forget()
        state.callbacks.alert(
            f"bringing drive {drive} in was given up for now and is tried again by itself: {fault};"
            f" replace drive {fault.drive} if this comes again"
        )
        member = state.members.get(fault.drive)
        if member is not None:
            member.read_errors += 1
            state.probe()
        elif state.outsiders.get(fault.drive) is volume:
            del state.outsiders[fault.drive]
            state.absent[fault.drive] = str(fault)
            state.callbacks.discard(volume)

    def refused(self, drive: str, reason: str) -> None:
        """A drive cannot be brought in as it is: say so, for as long as it is not."""
        state = self._state
        if drive in state.outsiders and state.absent.get(drive) != reason:
            state.absent[drive] = reason
            state.callbacks.alert(reason)

    def tell(self, text: str) -> None:
        """Something the operator has to know of what does not come in."""
        self._state.callbacks.alert(text)

    def _forget(self) -> None:
        self._resync = None
        self._state.brake.release()
        self._state.dropped_blobs = None
