"""The decision who may serve a mirror, from the votes that are present.

Owns ``decide`` and nothing else: pure, and tested over its whole space of small cases. It rests on
the order of writes described in ``core.epochs``, whose values it offers too. Each rule stands
beside its reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from appliance.core.ballots import Votes, count_votes, is_dead, leading_heads, take_back_voids
from appliance.core.epochs import (
    BEATS_UNDER_WAY_MAX,
    REJECTS_MAX,
    VOIDS_MAX,
    WITNESS,
    Decision,
    DriveVote,
    Epoch,
    History,
    ReadOnly,
    Refuse,
    Serve,
    Standing,
    Wait,
    WitnessVote,
)
from appliance.core.histories import contains, electorate, is_ancestor, is_older, is_rejected


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
    votes = count_votes(drives, witness)
    if not votes.histories:
        if votes.clones:
            names = ", ".join(sorted(votes.clones))
            return Refuse(f"cannot serve: drive {names} is present twice; remove the copy")
        return Refuse("cannot serve: no drive is present") if waited else Wait("no drive yet")
    take_back_voids(votes)
    heads = leading_heads(votes)
    if len(heads) > 1:
        if chosen is None or chosen not in votes.histories:
            return ReadOnly(
                "the drives' histories went apart: choose the one whose content is right;"
                " the other is kept as it is",
                {drive: history[-1] for drive, history in votes.histories.items()},
            )
        winner = votes.histories[chosen]
        rejects = tuple(head.id for head in heads if head.id != winner[-1].id)
        serve = _serve(votes, winner, (chosen,), force=True)
        return replace(serve, rejects=serve.rejects + rejects)
    winner = max(
        (h for h in votes.all_histories() if h[-1].id == heads[0].id),
        key=len,
    )
    return _decide_winner(votes, winner, waited=waited, forced=forced, chosen=chosen)


def _decide_winner(
    votes: Votes, winner: History, *, waited: bool, forced: bool, chosen: str | None
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


def _outlived(votes: Votes, in_sync: tuple[str, ...]) -> str:
    """Without W: a drive that left and shows a later heartbeat than every drive in sync. Whoever
    writes a vote writes the newest heartbeat with it, so they all went back in time."""
    newest = max(votes.heartbeats[drive] for drive in in_sync) + BEATS_UNDER_WAY_MAX
    outside = [d for d in votes.histories if d not in in_sync and votes.heartbeats[d] > newest]
    return outside[0] if outside and votes.witness is None else ""


def _doubters(votes: Votes, winner: History) -> tuple[str, ...]:
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


def _best(votes: Votes, chosen: str | None) -> str:
    """The present drive with the newest vote, for an operator who forces one."""
    if chosen in votes.histories:
        return chosen
    heads = {drive: history[-1] for drive, history in votes.histories.items()}
    return max(heads, key=lambda drive: (heads[drive].number, drive in heads[drive].in_sync, drive))


def _has_quorum(votes: Votes, winner: History, in_sync: tuple[str, ...]) -> bool:
    """Two voters. Of two drives in sync and W any two meet any other two. A single one writes every
    later epoch itself: any second voter proves that this drive is not the forgotten one."""
    if votes.witness is not None:
        return True
    if len(winner[-1].in_sync) > 1:
        return len(in_sync) > 1
    return len(electorate(winner) & votes.histories.keys()) > 1


def _standings(votes: Votes, winner: History) -> dict[str, Standing]:
    standings = dict.fromkeys(votes.clones, Standing.CLONE)
    for drive in votes.histories:
        standings[drive] = _standing(votes, winner, drive)
    return standings


def _standing(votes: Votes, winner: History, drive: str) -> Standing:
    history = votes.histories[drive]
    head = history[-1]
    if is_rejected(head, winner):
        return Standing.DIVERGED
    if not is_ancestor(head, winner):
        return Standing.STALE if is_dead(votes, history) else Standing.DIVERGED
    if drive not in winner[-1].in_sync:
        return Standing.STALE if is_older(history, winner) else Standing.DIVERGED
    owed = votes.witness[-1] if votes.witness is not None else None
    if owed is not None and drive in owed.in_sync and not contains(votes.full[drive], owed):
        return Standing.ROLLED_BACK
    if votes.missed_beats(drive, winner[-1].in_sync):
        return Standing.ROLLED_BACK
    since = [epoch for epoch in winner if epoch.number >= head.number]
    if contains(winner, head) and all(drive in epoch.in_sync for epoch in since):
        return Standing.IN_SYNC
    return Standing.ROLLED_BACK


def _serve(votes: Votes, winner: History, in_sync: tuple[str, ...], *, force: bool) -> Serve:
    epoch = winner[-1]
    standings = _standings(votes, winner)
    # An operator forced a drive that lacks what others hold by these: not for it to be wiped there.
    behind = any(standings[drive] is not Standing.IN_SYNC for drive in in_sync)
    rejects = _passed_over(votes, winner, in_sync) if behind else ()
    for drive in in_sync:
        standings[drive] = Standing.IN_SYNC
    voids = tuple(
        void.id
        for void in sorted(votes.voids, key=lambda void: void.number)
        if not contains(winner, void)
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
        rejects=rejects,
        witness_lost=votes.witness is None,
    )
    # An epoch with absent drives must not reach W through us: W would hold what they lack. Its
    # successor is written to everybody who counts, with this history before it.
    return serve if serve.leaves_needed else replace(serve, behind=_behind(votes, serve))


def _passed_over(votes: Votes, winner: History, in_sync: tuple[str, ...]) -> tuple[str, ...]:
    """The winner's end, and the epochs before it that none of these drives has."""
    held = {epoch.id for drive in in_sync for epoch in votes.histories[drive]}
    lacking = [epoch.id for epoch in winner[:-1] if epoch.id not in held]
    return (*lacking, winner[-1].id)[-REJECTS_MAX:]


def _behind(votes: Votes, serve: Serve) -> tuple[str, ...]:
    """Who lacks the epoch: the drives in sync, then W, which must hold nothing they do not. Without
    W, stale drives stand in, so that two voters have it."""
    behind = [drive for drive in serve.in_sync if votes.full[drive][-1].id != serve.epoch.id]
    if votes.witness is None:
        behind += [
            drive
            for drive in sorted(votes.histories)
            if serve.standings[drive] is Standing.STALE
            and drive in electorate(serve.history)
            and votes.full[drive][-1].id != serve.epoch.id
        ]
    elif votes.witness[-1].id != serve.epoch.id:
        behind.append(WITNESS)
    return tuple(behind)
