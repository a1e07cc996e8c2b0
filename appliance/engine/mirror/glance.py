"""A mirror at a glance, as operators are told.

Owns the words; touches no drive, so that one that hangs is reported too. Any thread.
"""

from __future__ import annotations

from appliance.core.ports import Space
from appliance.engine.interface import Health, MemberHealth
from appliance.engine.interface import MirrorState as Condition
from appliance.engine.mirror.state import MirrorState
from appliance.engine.mirror.transfer import ResyncProgress


def health_of(
    state: MirrorState, space: Space, resync_drive: str, progress: ResyncProgress
) -> Health:
    """``resync_drive`` is being brought in, empty while none is; ``progress`` is that transfer's,
    or the last one's."""
    in_sync = [
        MemberHealth(drive, True, True, read_errors=member.read_errors, repaired=member.repaired)
        for drive, member in sorted(state.members.items())
    ]
    away = [
        MemberHealth(drive, False, drive in state.outsiders, reason, failed=state.has_failed(drive))
        for drive, reason in sorted(
            {**dict.fromkeys(state.outsiders, "not in sync"), **state.absent}.items()
        )
    ]
    if state.stopped:
        condition = Condition.READ_ONLY
    elif len(in_sync) > 1:
        condition = Condition.IN_SYNC  # also while one of the two is being replaced
    else:
        condition = Condition.RESYNCING if resync_drive else Condition.DEGRADED
    return Health(
        condition,
        state.stopped,
        [*in_sync, *away],
        state.votes.epoch.number,
        state.planner.tail.sequence,
        space.total_bytes,
        max(space.free_bytes - state.reserve_bytes, 0),
        progress.done_bytes if resync_drive else 0,
        progress.total_bytes if resync_drive else 0,
        resync_drive=resync_drive,
        unreadable=dict(progress.lost),
    )


def lost_words(drive: str, progress: ResyncProgress) -> str:
    """That a drive joined without what no drive could give, and whose it was."""
    whose = ", ".join(f"{count} of {name}" for name, count in sorted(progress.lost.items()))
    return (
        f"drive {drive} is in sync, but these records no drive could give, and reading them fails:"
        f" {whose}"
    )
