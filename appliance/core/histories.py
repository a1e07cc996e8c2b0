"""What one history of epochs says of another: pure relations, in the words of ``core.epochs``.

Owns when a history continues another one, was decided against, or proves that another one's end
never counted. A history remembers its last ``HISTORY_MAX`` epochs; what is beyond is not proven.
"""

from __future__ import annotations

from appliance.core.epochs import Epoch, History


def contains(history: History, epoch: Epoch) -> bool:
    """Whether the epoch is one of the history's."""
    return any(known.id == epoch.id for known in history)


def is_ancestor(epoch: Epoch, history: History) -> bool:
    """Whether ``history`` continues from ``epoch``, has proven it void, or is so long that its
    beginning, which would tell, is beyond memory."""
    return (
        contains(history, epoch)
        or any(epoch.id in known.voids for known in history)
        or epoch.number < history[0].number
    )


def is_rejected(epoch: Epoch, history: History) -> bool:
    """Whether an operator decided for ``history`` and against the one that ends with ``epoch``."""
    return any(epoch.id in known.rejects for known in history)


def electorate(history: History) -> set[str]:
    """Every drive that may hold a vote for the history's last epoch."""
    return {drive for epoch in history for drive in epoch.in_sync}


def is_beside(history: History, other: History) -> bool:
    """Whether neither of the two continues the other."""
    return not is_ancestor(history[-1], other) and not contains(history, other[-1])


def is_refuted(history: History, valid: History) -> bool:
    """Whether the valid history proves that what ``history`` has beyond it never counted: two
    voters for that would have met the two for what is valid since.

    An operator who forces an epoch since then goes on without a voter, who may have been the second
    one: that proves nothing. Nor does a parting beyond memory."""
    shared = [at for at, epoch in enumerate(valid) if contains(history, epoch)]
    return bool(shared) and not any(epoch.forced for epoch in valid[shared[-1] + 1 :])


def is_older(history: History, valid: History) -> bool:
    """Whether all that counts of what a drive showing ``history`` has is known to the valid one: it
    was left behind, or its end was void. Beyond memory it may have gone on by itself."""
    head = history[-1]
    known = contains(valid, head) or any(head.id in epoch.voids for epoch in valid)
    return known and not is_rejected(head, valid)
