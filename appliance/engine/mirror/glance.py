"""A mirror at a glance, as operators are told: open or not, why, and what only they can decide.

Owns the words; touches no drive, so that one that hangs is reported too. Any thread.
"""

from __future__ import annotations

from collections.abc import Iterable

from appliance.core.errors import ApplianceError
from appliance.core.ports import Space
from appliance.engine.interface import Health, MemberHealth, Question
from appliance.engine.interface import MirrorState as Condition
from appliance.engine.mirror.assembled import MayForce, WentApart
from appliance.engine.mirror.lost import NAMES_MAX
from appliance.engine.mirror.member import Member
from appliance.engine.mirror.reading_alone import ReadingAlone
from appliance.engine.mirror.state import MirrorState
from appliance.engine.mirror.transfer import ResyncProgress
from appliance.engine.mirror.votes import WitnessMissing


def closed_health(drives: Iterable[str], reason: str, failure: ApplianceError | None) -> Health:
    """No store is open. ``drives``: those that are present. ``failure``: of the last attempt."""
    question, choices = Question.NONE, {}
    if isinstance(failure, MayForce | WitnessMissing):
        question = Question.FORCE
    elif isinstance(failure, WentApart):
        question, choices = Question.CHOOSE, failure.heads
    members = [
        MemberHealth(drive, False, True, choices.get(drive, "not open")) for drive in sorted(drives)
    ]
    return Health(Condition.OFFLINE, reason, members, question=question, choices=choices)


def health_of(
    state: MirrorState,
    space: Space,
    resync_drive: str,
    progress: ResyncProgress,
    reading: ReadingAlone,
) -> Health:
    """``resync_drive`` is being brought in, empty while none is; ``progress`` is that transfer's,
    or the last one's."""
    in_sync = [
        MemberHealth(
            drive,
            True,
            True,
            advice_words(state, member),
            read_errors=member.read_errors_ever,
            repaired=member.repaired,
        )
        for drive, member in sorted(state.members.items())
    ]
    question = reading.question
    if state.stopped:
        condition = Condition.READ_ONLY
    elif len(in_sync) > 1:
        condition = Condition.IN_SYNC  # also while one of the two is being replaced
    else:
        condition = Condition.RESYNCING if resync_drive else Condition.DEGRADED
    return Health(
        condition,
        state.stopped,
        [*in_sync, *_away(state)],
        state.votes.epoch.number,
        state.planner.tail.sequence,
        space.total_bytes,
        max(space.free_bytes - state.reserve_bytes, 0),
        progress.done_bytes if resync_drive else 0,
        progress.total_bytes if resync_drive else 0,
        resync_drive=resync_drive,
        unreadable=dict(progress.lost),
        question=question,
        choices=dict.fromkeys(state.members, "") if question is Question.CHOOSE else {},
        lost=[one.words() for one in reading.lost[:NAMES_MAX]],
        lost_more=max(len(reading.lost) - NAMES_MAX, 0),
    )


def _away(state: MirrorState) -> list[MemberHealth]:
    reasons = {**dict.fromkeys(state.outsiders, "not in sync"), **state.absent}
    kept = {volume.name: reason for volume, reason in state.detached}
    away = [
        MemberHealth(drive, False, drive in state.outsiders, reason, failed=state.has_failed(drive))
        for drive, reason in sorted(reasons.items())
        if drive not in kept
    ]
    return away + [
        MemberHealth(drive, False, True, reason, detached=True)
        for drive, reason in sorted(kept.items())
    ]


def advice_words(state: MirrorState, member: Member) -> str:
    """That a drive should be replaced before it fails; empty while it is good enough."""
    count = member.read_errors_ever
    if count < state.settings.read_errors_advised:
        return ""
    return f"replace it: {count} read errors since it was claimed"


def lost_words(drive: str, progress: ResyncProgress) -> str:
    """That a drive joined without what no drive could give, and whose it was."""
    whose = ", ".join(f"{count} of {name}" for name, count in sorted(progress.lost.items()))
    return (
        f"drive {drive} is in sync, but these records no drive could give, and reading them fails:"
        f" {whose}"
    )
