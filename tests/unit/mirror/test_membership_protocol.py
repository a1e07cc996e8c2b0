"""The membership protocol around ``decide``, explored exhaustively in small cases.

A model of two drives and W: each start decides, brings votes up to date, makes the epoch that is
needed, raises the heartbeat, and then does one thing (writes a batch, lets a drive go, brings one
back, or nothing), with a crash possible after every single write. Every reachable combination of
what is left is started again with every set of voters present. The decision and the orders of
writes are the ones that run in production. The oracle: what was acknowledged or served once is in
the log of every drive that serves; drives that are in sync never hold logs that contradict each
other; with everybody present the mirror always serves.

Then each voter by itself is put back to what it was at any earlier time, and each drive together
with W, and the same must hold, but that with everybody present the mirror may ask its operator
instead. An operator forces one drive, too: what he goes on without is never wiped off the
drive that holds it. What no protocol could tell is left out, and listed in ``is_beyond_telling``
and ``is_outvoted``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from appliance.core.epochs import (
    BEATS_UNDER_WAY_MAX,
    WITNESS,
    DriveVote,
    Epoch,
    Serve,
    WitnessVote,
    WritePlan,
    leave_plan,
)
from appliance.core.membership import decide
from tests.unit.mirror import membership_model
from tests.unit.mirror.membership_model import DRIVES, MIRROR, Run, World, first_world

WRITES_MAX = 3
EPOCHS_MAX = 8
LONG_STARTS = 3

ACTIONS = ("none", "write", "lose A", "lose B", "return A", "return B")
PRESENCES = (("A", "B"), ("A",), ("B",))
WITNESSES = ("present", "fails", "absent", "blank")
"""``fails``: it was there at the start, and takes nothing any more."""


def lives(
    world: World, actions: tuple[str, ...] = ACTIONS, put_back: tuple[str, ...] = ()
) -> Iterator[World]:
    """Every world one life of the store may leave behind."""
    for present, witness, action in itertools.product(PRESENCES, WITNESSES, actions):
        if len(put_back) == 1 and is_beyond_telling(world, put_back[0], present, witness):
            continue
        if len(put_back) > 1 and (present != DRIVES or witness in {"absent", "blank"}):
            continue  # whoever would tell, or whoever is wrong, is away
        before = world.with_vote(WITNESS, ()) if witness == "blank" else world
        run = Run(before, present, witness != "absent", [], put_back)
        started = run.start()
        if started is not None:
            run.has_witness = witness in {"present", "blank"}
            run.act(action, *started)
        yield from run.states


def forced_lives(world: World) -> Iterator[World]:
    """The same, of a store that an operator told to go on with one drive that asked for it. A W
    that is away then is lost for good: with the other drive it would outvote the operator."""
    for drive, witness, action in itertools.product(
        DRIVES, ("present", "blank"), ("none", "write")
    ):
        before = world.with_vote(WITNESS, ()) if witness == "blank" else world
        run = Run(before, (drive,), True, [], forced=True)
        started = run.start()
        if started is not None and started[0][-1].forced:
            run.act(action, *started)
            yield from run.states


def is_beyond_telling(world: World, put_back: str, present: tuple[str, ...], witness: str) -> bool:
    """What no protocol could tell: a drive is put back and W away, so that one is wrong and one is
    missing; or whoever is there has seen no heartbeat since, so that all are what they were once
    together. (W put back to a state of the same hour, without a start since, is such a case.)"""
    has_witness = witness in {"present", "fails"}
    if put_back != WITNESS and not has_witness:
        return True
    there = {*present, *([WITNESS] if has_witness else [])}
    newest = max(world.beat(voter) for voter in there)
    tolerated = 0 if put_back == WITNESS else BEATS_UNDER_WAY_MAX
    return put_back in there and newest <= world.beat(put_back) + tolerated


def is_outvoted(old: World, now: World, drive: str) -> bool:
    """Whether a drive and W, put back together, are the two of three that agree: the third voter
    is not in sync, or was out of sync meanwhile and has seen no two heartbeats since it is not."""
    other = next(each for each in DRIVES if each != drive)
    votes = [DriveVote(d, MIRROR, now.vote(d), now.beat(d)) for d in DRIVES]
    witness = WitnessVote(MIRROR, now.witness, now.beat(WITNESS)) if now.witness else None
    decision = decide(votes, witness, waited=True)
    if not isinstance(decision, Serve) or other not in decision.in_sync:
        return True
    since = {epoch.id for epoch in old.vote(other)}
    if all(other in epoch.in_sync for epoch in now.vote(other) if epoch.id not in since):
        return False  # it has all there was
    newest = max(old.beat(drive), old.beat(WITNESS)) + BEATS_UNDER_WAY_MAX
    return now.beat(other) <= newest


def next_layer(layer: list[World], seen: set[object]) -> list[World]:
    """The worlds that are new after one more life of each."""
    fresh = []
    for world in layer:
        for left in lives(world):
            if left.batches > WRITES_MAX or left.epochs > EPOCHS_MAX:
                continue
            key = left.key()
            if key not in seen:
                seen.add(key)
                fresh.append(left)
    return fresh


def explore(first: World, starts: int) -> int:
    seen: set[object] = {first.key()}
    layer = [first]
    for _ in range(starts):
        layer = next_layer(layer, seen)
    return len(seen)


def explore_forced(first: World, before: int, after: int) -> int:
    """From any world of the first ``before`` lives an operator forces one drive; then it is started
    ``after`` times with whoever may be there. What he went on without is never wiped."""
    reached, layer = [first], [first]
    known: set[object] = {first.key()}
    for _ in range(before):
        layer = next_layer(layer, known)
        reached += layer
    seen: set[object] = set()
    layer = []
    for world in reached:
        for left in forced_lives(world):
            if left.key() not in seen:
                seen.add(left.key())
                layer.append(left)
    for _ in range(after):
        layer = next_layer(layer, seen)
    return len(seen)


ALONE = tuple((voter,) for voter in (*DRIVES, WITNESS))
WITH_WITNESS = tuple((drive, WITNESS) for drive in DRIVES)


def explore_put_back(
    first: World, before: int, after: int, companies: Sequence[tuple[str, ...]] = ALONE
) -> int:
    """Each company of voters is put back over ``after`` lives, from any world of the first
    ``before`` lives; then the store is started once more, with everybody who may be there."""
    olds, layer = [first], [first]
    known: set[object] = {first.key()}
    for _ in range(before):
        layer = next_layer(layer, known)
        olds += layer
    seen: set[object] = set()
    for old in olds:
        layer, since = [old], {old.key()}
        for _ in range(after):
            layer = next_layer(layer, since)
            for now in layer:
                for company in companies:
                    world = now
                    for voter in company:
                        world = world.with_old(voter, old)
                    key = (company, world.key())
                    if key in seen or world == now:
                        continue
                    if len(company) > 1 and is_outvoted(old, now, company[0]):
                        continue
                    seen.add(key)
                    for _left in lives(world, ("write",), company):
                        pass
    return len(seen)


def test_no_interleaving_of_crashes_loses_a_promise() -> None:
    count = explore(first_world(), 2)
    print(f"{count} worlds")
    assert count > 500


@pytest.mark.long
@pytest.mark.timeout(300)
def test_no_longer_interleaving_loses_a_promise() -> None:
    count = explore(first_world(), LONG_STARTS)
    print(f"{count} worlds")
    assert count > 3_000


def test_no_voter_put_back_to_an_older_state_loses_a_promise() -> None:
    count = explore_put_back(first_world(), 0, 2)
    print(f"{count} worlds with one voter put back")
    assert count > 100


@pytest.mark.long
@pytest.mark.timeout(300)
def test_no_voter_put_back_from_further_on_loses_a_promise() -> None:
    count = explore_put_back(first_world(), 1, 2)
    print(f"{count} worlds with one voter put back")
    assert count > 1_000


def test_no_drive_put_back_together_with_the_witness_loses_a_promise() -> None:
    """Two of three voters. The third, in sync, shows the heartbeats of its joining."""
    count = explore_put_back(first_world(), 0, 2, WITH_WITNESS)
    print(f"{count} worlds with a drive and W put back")
    assert count > 50


@pytest.mark.long
@pytest.mark.timeout(300)
def test_no_drive_put_back_with_the_witness_from_further_on_loses_a_promise() -> None:
    count = explore_put_back(first_world(), 1, 2, WITH_WITNESS)
    print(f"{count} worlds with a drive and W put back")
    assert count > 500


def test_nothing_an_operator_went_on_without_is_wiped() -> None:
    count = explore_forced(first_world(), 1, 1)
    print(f"{count} worlds after a force")
    assert count > 200


@pytest.mark.long
@pytest.mark.timeout(300)
def test_nothing_an_operator_went_on_without_is_wiped_later() -> None:
    count = explore_forced(first_world(), 2, 1)
    print(f"{count} worlds after a force")
    assert count > 1_000


def _hasty(old: Epoch, new: Epoch) -> WritePlan:
    """A leave that counts before W knows of it."""
    plan = leave_plan(old, new)
    return replace(plan, valid_after=1)


def _reversed(old: Epoch, new: Epoch) -> WritePlan:
    """A leave that W hears of before the survivor."""
    plan = leave_plan(old, new)
    return replace(plan, steps=plan.steps[::-1])


@pytest.mark.parametrize("broken", [_hasty, _reversed])
def test_the_exploration_notices_a_broken_order(
    broken: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership_model, "leave_plan", broken)
    with pytest.raises(AssertionError):
        explore(first_world(), 3)
