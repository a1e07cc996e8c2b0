"""The votes that count, of all that are present.

Owns which voters are believed, which epochs at the end of a drive's history are void, and which
histories lead. Changes nothing but its own picture. What follows is decided in
``core.membership``; it rests on the order of writes described in ``core.epochs``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from appliance.core.epochs import (
    BEATS_UNDER_WAY_MAX,
    WITNESS,
    DriveVote,
    Epoch,
    History,
    WitnessVote,
)
from appliance.core.histories import (
    contains,
    electorate,
    is_ancestor,
    is_beside,
    is_refuted,
    is_rejected,
)


@dataclass(slots=True)
class Votes:
    """The votes that count. ``histories`` are the drives', without void epochs at their end;
    ``full`` with them."""

    histories: dict[str, History]
    full: dict[str, History]
    witness: History | None
    clones: frozenset[str]
    number_seen: int
    heartbeats: dict[str, int]
    """The drives', and W's under its name while W counts."""
    voids: list[Epoch] = field(default_factory=list)

    def all_histories(self) -> list[History]:
        """The drives' and W's."""
        return [*self.histories.values(), *self.of_witness()]

    def of_witness(self) -> list[History]:
        """W's, if there is one."""
        return [] if self.witness is None else [self.witness]

    def knows(self, epoch: Epoch) -> bool:
        """Whether W has voted for the epoch, or for a descendant of it."""
        return self.witness is not None and contains(self.witness, epoch)

    def missed_beats(self, drive: str, among: Iterable[str]) -> bool:
        """Whether a drive lacks more than the heartbeat that may have been under way, by what W and
        the drives ``among`` show: if it should have had them all, it is an old copy."""
        newest = max(self.heartbeats.get(voter, 0) for voter in (*among, WITNESS))
        return self.heartbeats[drive] < newest - BEATS_UNDER_WAY_MAX

    def count_for(self, epoch: Epoch) -> int:
        """How many voters have it: a vote for an epoch is one for its ancestors."""
        count = sum(contains(history, epoch) for history in self.full.values())
        return count + self.knows(epoch)


def count_votes(drives: Sequence[DriveVote], witness: WitnessVote | None) -> Votes:
    """Leave out clones, which cannot be told from the original, and a W that is another mirror's
    or an old copy: its heartbeat, raised before the drives', is below one of theirs. A drive that
    an operator went on without has raised its own with the W before this one."""
    present = Counter(vote.drive_id for vote in drives)
    clones = frozenset(drive for drive, count in present.items() if count > 1)
    full = {vote.drive_id: vote.history for vote in drives if vote.drive_id not in clones}
    numbers = [epoch.number for vote in drives for epoch in vote.history]
    if witness is not None:
        numbers += [epoch.number for epoch in witness.history]
        known = [vote for vote in drives if not _is_apart(vote.history, witness.history)]
        beat = max((vote.heartbeat for vote in known), default=0)
        foreign = any(vote.mirror_id != witness.mirror_id for vote in drives)
        if foreign or witness.heartbeat < beat:
            witness = None
    return Votes(
        histories=dict(full),
        full=full,
        witness=None if witness is None else witness.history,
        clones=clones,
        number_seen=max(numbers, default=0),
        heartbeats={vote.drive_id: vote.heartbeat for vote in drives}
        | ({} if witness is None else {WITNESS: witness.heartbeat}),
    )


def _is_apart(history: History, valid: History) -> bool:
    return is_beside(history, valid) and not is_refuted(history, valid)


def take_back_voids(votes: Votes) -> None:
    """Take back the epochs that do not count, so that their predecessors do."""
    changed = True
    while changed:
        changed = False
        for drive, history in votes.histories.items():
            if len(history) > 1 and _is_void(votes, drive, history):
                votes.histories[drive] = history[:-1]
                votes.voids.append(history[-1])
                changed = True


def _is_void(votes: Votes, drive: str, history: History) -> bool:
    """With all voters present, an epoch that only one has was never valid: nothing was acknowledged
    under it, and its predecessor, under which more drives may be in sync, counts.

    Seen on a drive alone that joins by it, an epoch never counts: the members may have gone on
    without knowing of it. A lone epoch of a drive that was in sync before does: whatever was
    acknowledged without it needed W, which would show it. Nothing is void where an operator went on
    without a voter: that one may have had it."""
    head = history[-1]
    if head.forced or votes.count_for(head) > 1:
        return False
    if not all(is_refuted(history, other) for other in (*votes.full.values(), *votes.of_witness())):
        return False
    if drive not in history[-2].in_sync:
        return True
    # A drive that may be an old copy does not testify by lacking it.
    testify = {d for d in votes.histories if not votes.missed_beats(d, votes.histories)}
    return votes.witness is not None and electorate(history) <= testify


def leading_heads(votes: Votes) -> list[Epoch]:
    """The heads that no other history continues: one, unless the histories went apart."""
    histories = votes.all_histories()
    # W's epoch is valid (W is written last). A branch beside it does not lead unless an operator
    # forced it.
    for history in votes.histories.values():
        if is_dead(votes, history):
            votes.voids.append(history[-1])
        elif not _is_decided_against(votes, history):
            continue
        histories = [h for h in histories if h is not history]
    heads: dict[str, Epoch] = {}
    for history in histories:
        head = history[-1]
        others = [h for h in histories if h[-1].id != head.id]
        if not any(is_ancestor(head, h) or is_rejected(head, h) for h in others):
            heads[head.id] = head
    return list(heads.values())


def is_dead(votes: Votes, history: History) -> bool:
    """Whether a drive's history is a branch beside W's that never counted."""
    valid = votes.witness
    if valid is None or not _is_unforced_branch(history, valid):
        return False
    return votes.count_for(history[-1]) == 1 and is_refuted(history, valid)


def _is_decided_against(votes: Votes, history: History) -> bool:
    """Whether a drive's history is a branch that may have counted, with the W before this one, and
    an operator went on without it."""
    valid = votes.witness
    if valid is None or not _is_unforced_branch(history, valid):
        return False
    return not is_refuted(history, valid)


def _is_unforced_branch(history: History, valid: History) -> bool:
    forced = any(epoch.forced and not contains(valid, epoch) for epoch in history)
    return is_beside(history, valid) and not forced
