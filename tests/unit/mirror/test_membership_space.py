"""Every decision there is in a small world: each drive and W absent, present with any history of a
tree, current or put back, twice; waited for or not, forced or not, chosen or not."""

from __future__ import annotations

import itertools
from collections import Counter

from appliance.core.epochs import (
    Decision,
    DriveVote,
    History,
    ReadOnly,
    Refuse,
    Serve,
    Standing,
    Wait,
    WitnessVote,
)
from appliance.core.membership import decide
from tests.unit.mirror.test_membership import A2, A3_FORCED, A3_JOIN, B2, E1, after

REJECTING = after(A3_FORCED, "c", "A", forced=True, number=9)
HISTORIES: tuple[History, ...] = (E1, A2, B2, A3_JOIN, A3_FORCED, REJECTING)
BEATS = (5, 7)
"""Of an old copy, and of one that has seen every heartbeat."""

Vote = tuple[History, int] | None


def every_vote() -> list[Vote]:
    return [None, *itertools.product(HISTORIES, BEATS)]


def check(decision: Decision, drives: list[DriveVote], witness: WitnessVote | None) -> None:
    """What holds of any decision, whatever the votes."""
    present = {vote.drive_id for vote in drives}
    if isinstance(decision, Wait):
        return
    if isinstance(decision, Refuse):
        assert decision.reason.startswith("cannot serve: ")
        assert present or not decision.may_force
        return
    if isinstance(decision, ReadOnly):
        assert set(decision.heads) == present
        assert len(present) > 1 or witness is not None
        return
    assert decision.in_sync and set(decision.in_sync) <= present
    numbers = [epoch.number for vote in drives for epoch in vote.history]
    assert decision.next_number > max(numbers)
    assert set(decision.standings) == present
    beats = [vote.heartbeat for vote in drives if vote.drive_id in decision.in_sync]
    if not decision.force:
        assert set(decision.in_sync) <= set(decision.epoch.in_sync)
        assert len(present) + (witness is not None and not decision.witness_lost) >= 2
        assert len(set(beats)) == 1, "no old copy is in sync beside a current one"
        if witness is not None and not decision.witness_lost:
            assert min(beats) >= witness.heartbeat - 1, "nor under a witness that knows better"


def test_every_decision_of_a_small_world_is_sound() -> None:
    kinds: Counter[type] = Counter()
    standings: Counter[Standing] = Counter()
    for a, b, w in itertools.product(every_vote(), every_vote(), every_vote()):
        drives = [
            DriveVote(name, "m", *vote) for name, vote in (("A", a), ("B", b)) if vote is not None
        ]
        witness = None if w is None else WitnessVote("m", *w)
        for waited, forced, chosen in itertools.product(
            (True, False), (True, False), (None, "A", "B")
        ):
            decision = decide(drives, witness, waited=waited, forced=forced, chosen=chosen)
            check(decision, drives, witness)
            kinds[type(decision)] += 1
            if isinstance(decision, Serve):
                standings.update(decision.standings.values())
                assert not decision.force or forced or chosen in decision.in_sync
    clone = [DriveVote("A", "m", E1, 5), DriveVote("A", "m", E1, 5), DriveVote("B", "m", E1, 5)]
    doubled = decide(clone, WitnessVote("m", E1, 5), waited=True)
    assert isinstance(doubled, Serve)
    standings.update(doubled.standings.values())
    print(f"{kinds.total()} decisions: {dict(kinds)}, {dict(standings)}")
    assert set(kinds) == {Serve, Wait, ReadOnly, Refuse}
    assert set(standings) == set(Standing)
