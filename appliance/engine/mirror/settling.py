"""The epoch a start needs, made valid once the logs are one.

Owns the last step before a mirror is open: every voter is brought to the history that won, and the
epoch that follows from who is there is written. Raises ``VoteFailed`` for a voter that does not
take its vote. Invariant: nothing is served under an epoch that is not valid.

Crash points: after each vote, as ``votes`` has them; the next start decides from what it finds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from appliance.core.epochs import Leave, Serve
from appliance.engine.mirror.state import MirrorState
from appliance.engine.mirror.superblock import SuperblockFile


def settle_epoch(
    state: MirrorState,
    serve: Serve,
    others: Mapping[str, SuperblockFile],
    present: Collection[str],
) -> None:
    """Carry out what was decided. ``others``: drives that left, by id: their votes count for
    epochs, though their data does not. ``present``: drives that are there at all, so that one which
    leaves was not simply away. Raises ``VoteFailed``."""
    members = {drive: member.superblock for drive, member in state.members.items()}
    state.votes.catch_up({**others, **members}, serve.behind)
    # The absent had everything but, at most, the last batch.
    sequence = max(state.planner.tail.sequence - 1, 0)
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
