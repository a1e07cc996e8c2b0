"""The decision who may serve a mirror, from the votes that are present.

Owns ``decide`` and nothing else: pure, and tested over its whole space of small cases. It rests on
the order of writes described in ``core.epochs``, whose values it offers too. Each rule stands
beside its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from appliance.core.epochs import (
    BEATS_UNDER_WAY_MAX,
    HISTORY_MAX,
    IN_SYNC_MAX,
    VOIDS_MAX,
    WITNESS,
    Decision,
    DriveVote,
    Epoch,
    History,
    Leave,
    ReadOnly,
    Refuse,
    Serve,
    Standing,
    Wait,
    WitnessVote,
    WritePlan,
    join_plan,
    leave_plan,
    renew_plan,
    successor,
)

__all__ = [
    "HISTORY_MAX",
    "IN_SYNC_MAX",
    "VOIDS_MAX",
    "WITNESS",
    "Decision",
    "DriveVote",
    "Epoch",
    "History",
    "Leave",
    "ReadOnly",
    "Refuse",
    "Serve",
    "Standing",
    "Wait",
    "WitnessVote",
    "WritePlan",
    "decide",
    "join_plan",
    "leave_plan",
    "renew_plan",
    "successor",
]


def decide(
    drives: Sequence[DriveVote],
    witness: WitnessVote | None,
    *,
    waited: bool,
    forced: bool = False,
    chosen: str | None = None,
) -> Decision:
    """Who serves, from the votes of the present drives and W (None: absent, blank or unreadable).

    ``waited``: the time for missing drives is over. ``forced``: the operator accepts to lose what
    only absent drives hold. ``chosen``: the drive the operator picked among diverged ones.
    """
    if len({vote.mirror_id for vote in drives}) > 1:
        names = ", ".join(sorted(vote.drive_id for vote in drives))
        return Refuse(f"cannot serve: the drives {names} belong to different mirrors")
    votes = _count(drives, witness)
    if not votes.histories:
        if votes.clones:
            names = ", ".join(sorted(votes.clones))
            return Refuse(f"cannot serve: drive {names} is present twice; remove the copy")
        return Refuse("cannot serve: no drive is present") if waited else Wait("no drive yet")
    _void(votes)
    heads = _leading(votes)
    if len(heads) > 1:
        if chosen is None or chosen not in votes.histories:
            return ReadOnly(
                "the drives' histories went apart: choose the one whose content is right;"
                " the other is kept as it is",
                {drive: history[-1] for drive, history in votes.histories.items()},
            )
        winner = votes.histories[chosen]
        rejects = tuple(head.id for head in heads if head.id != winner[-1].id)
        return replace(_serve(votes, winner, (chosen,), force=True), rejects=rejects)
    winner = max(
        (h for h in votes.all_histories() if h[-1].id == heads[0].id),
        key=len,
    )
    return _decide_winner(votes, winner, waited=waited, forced=forced, chosen=chosen)


@dataclass(slots=True)
class _Votes:
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
        found = list(self.histories.values())
        return found if self.witness is None else [*found, self.witness]

    def knows(self, epoch: Epoch) -> bool:
        """Whether W has voted for the epoch, or for a descendant of it."""
        return self.witness is not None and _contains(self.witness, epoch)

    def missed_beats(self, drive: str, among: Iterable[str]) -> bool:
        """Whether a drive lacks more than the heartbeat that may have been under way, by what W and
        the drives ``among`` show: if it should have had them all, it is an old copy."""
        newest = max(self.heartbeats.get(voter, 0) for voter in (*among, WITNESS))
        return self.heartbeats[drive] < newest - BEATS_UNDER_WAY_MAX

    def count_for(self, epoch: Epoch) -> int:
        """How many voters have it: a vote for an epoch is one for its ancestors."""
        count = sum(_contains(history, epoch) for history in self.full.values())
        return count + self.knows(epoch)


def _count(drives: Sequence[DriveVote], witness: WitnessVote | None) -> _Votes:
    """Leave out clones, which cannot be told from the original, and a W that is another mirror's
    or an old copy: its heartbeat, raised before the drives', is below one of theirs."""
    present = Counter(vote.drive_id for vote in drives)
    clones = frozenset(drive for drive, count in present.items() if count > 1)
    full = {vote.drive_id: vote.history for vote in drives if vote.drive_id not in clones}
    numbers = [epoch.number for vote in drives for epoch in vote.history]
    if witness is not None:
        numbers += [epoch.number for epoch in witness.history]
        beat = max((vote.heartbeat for vote in drives), default=0)
        foreign = any(vote.mirror_id != witness.mirror_id for vote in drives)
        if foreign or witness.heartbeat < beat:
            witness = None
    return _Votes(
        histories=dict(full),
        full=full,
        witness=None if witness is None else witness.history,
        clones=clones,
        number_seen=max(numbers, default=0),
        heartbeats={vote.drive_id: vote.heartbeat for vote in drives}
        | ({} if witness is None else {WITNESS: witness.heartbeat}),
    )


def _contains(history: History, epoch: Epoch) -> bool:
    return any(known.id == epoch.id for known in history)


def _is_ancestor(epoch: Epoch, history: History) -> bool:
    """Whether ``history`` continues from ``epoch``, has proven it void, or is so long that its
    beginning, which would tell, is beyond memory."""
    return (
        _contains(history, epoch)
        or any(epoch.id in known.voids for known in history)
        or epoch.number < history[0].number
    )


def _is_rejected(epoch: Epoch, history: History) -> bool:
    """Whether an operator decided for ``history`` and against the one that ends with ``epoch``."""
    return any(epoch.id in known.rejects for known in history)


def _electorate(history: History) -> set[str]:
    """Every drive that may hold a vote for the history's last epoch."""
    return {drive for epoch in history for drive in epoch.in_sync}


def _void(votes: _Votes) -> None:
    """Take back the epochs that do not count, so that their predecessors do."""
    changed = True
    while changed:
        changed = False
        for drive, history in votes.histories.items():
            if len(history) > 1 and _is_void(votes, drive, history):
                votes.histories[drive] = history[:-1]
                votes.voids.append(history[-1])
                changed = True


def _is_void(votes: _Votes, drive: str, history: History) -> bool:
    """With all voters present, an epoch that only one has was never valid: nothing was acknowledged
    under it, and its predecessor, under which more drives may be in sync, counts.

    Seen on a drive alone that joins by it, an epoch never counts: the members may have gone on
    without knowing of it. A lone epoch of a drive that was in sync before does: whatever was
    acknowledged without it needed W, which would show it."""
    head = history[-1]
    if head.forced or votes.count_for(head) > 1:
        return False
    if drive not in history[-2].in_sync:
        return True
    # A drive that may be an old copy does not testify by lacking it.
    testify = {d for d in votes.histories if not votes.missed_beats(d, votes.histories)}
    return votes.witness is not None and _electorate(history) <= testify


def _leading(votes: _Votes) -> list[Epoch]:
    """The heads that no other history continues: one, unless the histories went apart."""
    histories = votes.all_histories()
    if votes.witness is not None:
        # W's epoch is valid (W is written last). A branch beside it was never valid unless an
        # operator forced it.
        for drive, history in votes.histories.items():
            if _is_dead(votes, history) and history[-1] not in votes.voids:
                votes.voids.append(history[-1])
                histories = [h for h in histories if h is not history]
                assert drive in votes.full
    heads: dict[str, Epoch] = {}
    for history in histories:
        head = history[-1]
        others = [h for h in histories if h[-1].id != head.id]
        if not any(_is_ancestor(head, h) or _is_rejected(head, h) for h in others):
            heads[head.id] = head
    return list(heads.values())


def _is_dead(votes: _Votes, history: History) -> bool:
    """Whether a drive's history is a branch beside W's that nobody forced."""
    assert votes.witness is not None
    head, vote = history[-1], votes.witness[-1]
    if _is_ancestor(head, votes.witness) or _contains(history, vote):
        return False
    return not any(epoch.forced and not votes.knows(epoch) for epoch in history)


def _decide_winner(
    votes: _Votes, winner: History, *, waited: bool, forced: bool, chosen: str | None
) -> Decision:
    """The winning epoch is known; may its drives serve?"""
    epoch = winner[-1]
    standings = _standings(votes, winner)
    in_sync = tuple(d for d in epoch.in_sync if standings.get(d) is Standing.IN_SYNC)
    absent = tuple(d for d in epoch.in_sync if d not in votes.histories)
    if not waited:
        missing = absent + _doubters(votes, winner)
        if missing:
            names = ", ".join(dict.fromkeys(missing))
            return Wait(f"waiting for drive {names}", tuple(dict.fromkeys(missing)))
    if not in_sync:
        if forced:
            return _serve(votes, winner, (_best(votes, chosen),), force=True)
        return Refuse(_why_none(epoch, absent), may_force=True)
    if not _has_quorum(votes, winner, in_sync):
        if forced:
            return _serve(votes, winner, in_sync, force=True)
        names = ", ".join(in_sync)
        return Refuse(
            f"cannot serve: drive {names} is alone and the witness is lost, so a newer state may"
            " exist on an absent drive; bring a second drive back, or force it and lose what only"
            " absent drives hold",
            may_force=True,
        )
    if (witnessed := _outlived(votes, in_sync)) and not forced:
        names = ", ".join(in_sync)
        return Refuse(
            f"cannot serve: drive {witnessed} has seen later starts than drive {names}, and the"
            " witness is lost: what is there was rolled back; bring its newer state back, or force"
            " it and lose what only that holds",
            may_force=True,
        )
    return _serve(votes, winner, in_sync, force=forced and bool(witnessed))


def _outlived(votes: _Votes, in_sync: tuple[str, ...]) -> str:
    """Without W: a drive that left and shows a later heartbeat than every drive in sync. Whoever
    writes a vote writes the newest heartbeat with it, so they all went back in time."""
    newest = max(votes.heartbeats[drive] for drive in in_sync) + BEATS_UNDER_WAY_MAX
    outside = [d for d in votes.histories if d not in in_sync and votes.heartbeats[d] > newest]
    return outside[0] if outside and votes.witness is None else ""


def _doubters(votes: _Votes, winner: History) -> tuple[str, ...]:
    """Absent drives that could show an epoch with one vote to be void: worth waiting for."""
    epoch = winner[-1]
    if epoch.forced or votes.witness is None or votes.count_for(epoch) > 1 or len(winner) < 2:
        return ()
    return tuple(drive for drive in winner[-2].in_sync if drive not in votes.histories)


def _why_none(epoch: Epoch, absent: tuple[str, ...]) -> str:
    if absent:
        names = ", ".join(absent)
        return (
            f"cannot serve: only drive {names} holds the newest state and is absent; bring it back,"
            " or force the present one and lose what only the absent one holds"
        )
    names = ", ".join(epoch.in_sync)
    return (
        f"cannot serve: the witness has seen a newer state of epoch {epoch.number} than drive"
        f" {names}, which must hold it too: it was rolled back or lost writes it had confirmed"
    )


def _best(votes: _Votes, chosen: str | None) -> str:
    """The present drive with the newest vote, for an operator who forces one."""
    if chosen in votes.histories:
        return chosen
    return max(votes.histories, key=lambda drive: (votes.histories[drive][-1].number, drive))


def _has_quorum(votes: _Votes, winner: History, in_sync: tuple[str, ...]) -> bool:
    """Two voters. Of two drives in sync and W any two meet any other two. A single one writes every
    later epoch itself: any second voter proves that this drive is not the forgotten one."""
    if votes.witness is not None:
        return True
    if len(winner[-1].in_sync) > 1:
        return len(in_sync) > 1
    return len(_electorate(winner) & votes.histories.keys()) > 1


def _standings(votes: _Votes, winner: History) -> dict[str, Standing]:
    standings = dict.fromkeys(votes.clones, Standing.CLONE)
    for drive in votes.histories:
        standings[drive] = _standing(votes, winner, drive)
    return standings


def _standing(votes: _Votes, winner: History, drive: str) -> Standing:
    history = votes.histories[drive]
    head = history[-1]
    if _is_rejected(head, winner):
        return Standing.DIVERGED
    if not _is_ancestor(head, winner):
        dead = votes.witness is not None and _is_dead(votes, history)
        return Standing.STALE if dead else Standing.DIVERGED
    if drive not in winner[-1].in_sync:
        known = _contains(winner, head) or any(head.id in epoch.voids for epoch in winner)
        return Standing.STALE if known else Standing.DIVERGED
    owed = votes.witness[-1] if votes.witness is not None else None
    if owed is not None and drive in owed.in_sync and not _contains(votes.full[drive], owed):
        return Standing.ROLLED_BACK
    if votes.missed_beats(drive, winner[-1].in_sync):
        return Standing.ROLLED_BACK
    since = [epoch for epoch in winner if epoch.number >= head.number]
    if _contains(winner, head) and all(drive in epoch.in_sync for epoch in since):
        return Standing.IN_SYNC
    return Standing.ROLLED_BACK


def _serve(votes: _Votes, winner: History, in_sync: tuple[str, ...], *, force: bool) -> Serve:
    epoch = winner[-1]
    standings = _standings(votes, winner)
    for drive in in_sync:
        standings[drive] = Standing.IN_SYNC
    voids = tuple(
        void.id
        for void in sorted(votes.voids, key=lambda void: void.number)
        if not _contains(winner, void)
    )[-VOIDS_MAX:]
    serve = Serve(
        epoch=epoch,
        history=winner,
        in_sync=in_sync,
        standings=standings,
        next_number=votes.number_seen + 1,
        leaves_needed=tuple(drive for drive in epoch.in_sync if drive not in in_sync),
        renew=bool(voids) or votes.number_seen > epoch.number,
        force=force,
        voids=voids,
        witness_lost=votes.witness is None,
    )
    # An epoch with absent drives must not reach W through us: W would hold what they lack. Its
    # successor is written to everybody who counts, with this history before it.
    return serve if serve.leaves_needed else replace(serve, behind=_behind(votes, serve))


def _behind(votes: _Votes, serve: Serve) -> tuple[str, ...]:
    """Who lacks the epoch: the drives in sync, then W, which must hold nothing they do not. Without
    W, stale drives stand in, so that two voters have it."""
    behind = [drive for drive in serve.in_sync if votes.full[drive][-1].id != serve.epoch.id]
    if votes.witness is None:
        behind += [
            drive
            for drive in sorted(votes.histories)
            if serve.standings[drive] is Standing.STALE
            and drive in _electorate(serve.history)
            and votes.full[drive][-1].id != serve.epoch.id
        ]
    elif votes.witness[-1].id != serve.epoch.id:
        behind.append(WITNESS)
    return tuple(behind)
