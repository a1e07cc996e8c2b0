"""Each rule of the decision who may serve, by example and by property."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.epochs import (
    HISTORY_MAX,
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
    join_plan,
    leave_plan,
    renew_plan,
    successor,
)
from appliance.core.histories import is_older
from appliance.core.membership import decide


def after(
    history: History,
    name: str,
    *in_sync: str,
    forced: bool = False,
    number: int = 0,
    voids: tuple[str, ...] = (),
) -> History:
    return successor(
        history,
        number=number or (history[-1].number + 1 if history else 1),
        epoch_id=name,
        in_sync=in_sync,
        forced=forced,
        voids=voids,
    )


E1 = after((), "e1", "A", "B")
A2 = after(E1, "a2", "A")
B2 = after(E1, "b2", "B")
A3_JOIN = after(A2, "a3", "A", "B")
A3_FORCED = after(E1, "f2", "A", forced=True)
C3_JOIN = after(A2, "c3", "A", "C")


def votes(
    *drives: tuple[str, History],
    witness: History | None = None,
    waited: bool = True,
    forced: bool = False,
    chosen: str | None = None,
) -> Decision:
    return decide(
        [DriveVote(name, "m", history, 5) for name, history in drives],
        None if witness is None else WitnessVote("m", witness, 5),
        waited=waited,
        forced=forced,
        chosen=chosen,
    )


def served(decision: Decision) -> Serve:
    assert isinstance(decision, Serve), decision
    return decision


def test_all_present_and_agreed() -> None:
    decision = served(votes(("A", E1), ("B", E1), witness=E1, waited=False))
    assert decision.in_sync == ("A", "B")
    assert not decision.needs_epoch and decision.behind == () and not decision.witness_lost
    assert decision.next_number == 2


def test_two_drives_serve_without_the_witness() -> None:
    decision = served(votes(("A", E1), ("B", E1)))
    assert decision.in_sync == ("A", "B") and decision.witness_lost and not decision.needs_epoch


def test_a_missing_drive_is_waited_for_and_then_left() -> None:
    waiting = votes(("A", E1), witness=E1, waited=False)
    assert isinstance(waiting, Wait) and waiting.missing == ("B",)
    decision = served(votes(("A", E1), witness=E1))
    assert decision.in_sync == ("A",) and decision.leaves_needed == ("B",)


def test_a_stale_drive_is_not_waited_for() -> None:
    decision = served(votes(("A", A2), witness=A2, waited=False))
    assert decision.in_sync == ("A",) and decision.leaves_needed == ()


def test_a_lone_drive_without_the_witness_is_refused_unless_forced() -> None:
    refused = votes(("A", E1))
    assert isinstance(refused, Refuse) and "force" in refused.reason
    assert isinstance(votes(("A", A2)), Refuse)
    decision = served(votes(("A", E1), forced=True))
    assert decision.force and decision.in_sync == ("A",) and decision.leaves_needed == ("B",)


def test_the_newest_valid_epoch_wins_and_the_stale_drive_only_helps() -> None:
    decision = served(votes(("A", A2), ("B", E1), witness=A2))
    assert decision.in_sync == ("A",)
    assert decision.standings == {"A": Standing.IN_SYNC, "B": Standing.STALE}


def test_with_all_voters_present_a_one_voter_epoch_is_void() -> None:
    decision = served(votes(("A", A2), ("B", E1), witness=E1))
    assert decision.in_sync == ("A", "B") and decision.renew and decision.voids == ("a2",)
    assert decision.next_number == 3
    assert decision.behind == ("A",)


def test_an_epoch_one_vote_short_waits_for_who_could_show_it_void() -> None:
    assert isinstance(votes(("A", A2), witness=E1, waited=False), Wait)
    decision = served(votes(("A", A2), witness=E1))
    assert decision.epoch.id == "a2" and decision.behind == (WITNESS,)


def test_without_the_witness_a_lone_descendant_is_honoured_and_gets_a_second_vote() -> None:
    decision = served(votes(("A", A2), ("B", E1)))
    assert decision.in_sync == ("A",) and decision.epoch.id == "a2" and decision.behind == ("B",)


def test_a_join_known_to_the_joiner_alone_never_counts() -> None:
    with_witness = served(votes(("A", A2), ("B", A3_JOIN), witness=A2))
    assert with_witness.in_sync == ("A",) and with_witness.voids == ("a3",)
    without = served(votes(("A", A2), ("B", A3_JOIN)))
    assert without.in_sync == ("A",) and without.standings["B"] is Standing.STALE
    assert isinstance(votes(("B", A3_JOIN), witness=A2), Refuse)


def test_a_join_on_both_drives_counts_before_the_witness_knows() -> None:
    decision = served(votes(("A", A3_JOIN), ("B", A3_JOIN), witness=A2))
    assert decision.in_sync == ("A", "B") and decision.behind == (WITNESS,)


def test_the_stale_drive_alone_is_refused_however_many_vote_for_its_epoch() -> None:
    refused = votes(("B", E1), witness=A2)
    assert isinstance(refused, Refuse) and "drive A" in refused.reason
    assert isinstance(votes(("B", E1), witness=A2, waited=False), Wait)
    forced = served(votes(("B", E1), witness=A2, forced=True))
    assert forced.in_sync == ("B",) and forced.force and forced.epoch.id == "a2"


def test_a_retired_drive_is_no_second_voter_for_a_pair_it_is_not_in() -> None:
    assert isinstance(votes(("B", E1), ("C", C3_JOIN)), Refuse)
    assert served(votes(("A", C3_JOIN), ("C", C3_JOIN))).in_sync == ("A", "C")


def test_diverged_histories_are_read_only_until_one_is_chosen() -> None:
    diverged = votes(("A", A2), ("B", B2))
    assert isinstance(diverged, ReadOnly) and set(diverged.heads) == {"A", "B"}
    decision = served(votes(("A", A2), ("B", B2), chosen="B"))
    assert decision.in_sync == ("B",) and decision.force
    assert decision.standings["A"] is Standing.DIVERGED
    assert isinstance(votes(("A", A2), ("B", B2), chosen="C"), ReadOnly)


def test_the_witness_settles_an_unforced_divergence() -> None:
    decision = served(votes(("A", A2), ("B", B2), witness=B2))
    assert decision.in_sync == ("B",) and decision.standings["A"] is Standing.STALE
    assert decision.voids == ("a2",)
    assert isinstance(votes(("A", A2), witness=B2), Refuse)


def test_a_forced_epoch_counts_alone_and_divides_from_the_witness() -> None:
    assert isinstance(votes(("A", A3_FORCED), ("B", B2), witness=B2), ReadOnly)
    decision = served(votes(("A", A3_FORCED), ("B", E1), witness=E1))
    assert decision.in_sync == ("A",) and decision.behind == (WITNESS,)


def test_voids_settle_a_later_divergence() -> None:
    settled = after(E1, "e3", "A", "B", number=3, voids=("a2",))
    b4 = after(settled, "b4", "B")
    decision = served(votes(("A", A2), ("B", b4)))
    assert decision.in_sync == ("B",) and decision.standings["A"] is Standing.STALE


def test_a_clone_counts_for_neither() -> None:
    assert isinstance(votes(("A", E1), ("A", E1)), Refuse)
    decision = served(votes(("A", E1), ("A", E1), ("B", E1), witness=E1))
    assert decision.in_sync == ("B",) and decision.standings["A"] is Standing.CLONE


def test_drives_of_different_mirrors_are_refused() -> None:
    drives = [DriveVote("A", "m", E1, 0), DriveVote("B", "n", E1, 0)]
    assert isinstance(decide(drives, None, waited=True), Refuse)


def test_no_drive() -> None:
    assert isinstance(votes(witness=E1, waited=False), Wait)
    assert isinstance(votes(witness=E1), Refuse)


@pytest.mark.parametrize(
    "witness",
    [WitnessVote("m", A2, 4), WitnessVote("another", A2, 9)],
    ids=["heartbeat below a drive's", "another mirror's"],
)
def test_an_old_or_foreign_witness_counts_as_lost(witness: WitnessVote) -> None:
    drives = [DriveVote("A", "m", E1, 5), DriveVote("B", "m", E1, 5)]
    decision = served(decide(drives, witness, waited=True))
    assert decision.witness_lost and decision.in_sync == ("A", "B")
    assert isinstance(decide(drives[:1], witness, waited=True), Refuse)


def test_a_witness_ahead_of_every_member_proves_a_roll_back() -> None:
    refused = votes(("A", A2), ("B", A2), witness=A3_JOIN)
    assert isinstance(refused, Refuse) and "rolled back" in refused.reason
    assert served(votes(("A", A2), ("B", A2), witness=A3_JOIN, forced=True)).force


def beating(*drives: tuple[str, int], witness: int | None) -> Decision:
    """All of epoch e1, with these heartbeats."""
    return decide(
        [DriveVote(name, "m", E1, beat) for name, beat in drives],
        None if witness is None else WitnessVote("m", E1, witness),
        waited=True,
    )


def test_a_drive_that_missed_heartbeats_is_an_old_copy_whatever_its_vote_says() -> None:
    decision = served(beating(("A", 9), ("B", 7), witness=9))
    assert decision.in_sync == ("A",) and decision.leaves_needed == ("B",)
    assert decision.standings["B"] is Standing.ROLLED_BACK
    assert isinstance(beating(("A", 9), ("B", 7), witness=None), Refuse), "A is alone then"
    refused = beating(("B", 7), witness=9)
    assert isinstance(refused, Refuse) and refused.may_force and "only drive A" in refused.reason


def test_the_heartbeat_that_was_under_way_is_forgiven() -> None:
    assert served(beating(("A", 9), ("B", 8), witness=9)).in_sync == ("A", "B")
    assert served(beating(("A", 8), ("B", 8), witness=9)).in_sync == ("A", "B")
    assert served(beating(("B", 8), witness=9)).in_sync == ("B",)


def test_an_old_copy_does_not_prove_an_epoch_void_by_lacking_it() -> None:
    drives = [DriveVote("A", "m", A2, 9), DriveVote("B", "m", E1, 7)]
    decision = served(decide(drives, WitnessVote("m", E1, 9), waited=True))
    assert decision.epoch.id == "a2" and decision.in_sync == ("A",)


def test_a_choice_is_remembered_by_every_later_epoch() -> None:
    chosen = served(votes(("A", A3_FORCED), ("B", B2), witness=B2, chosen="A"))
    assert chosen.rejects == ("b2",)
    ours = successor(
        A3_FORCED, number=9, epoch_id="c", in_sync=("A",), forced=True, rejects=chosen.rejects
    )
    for number in range(10, 10 + HISTORY_MAX + 2):
        ours = after(ours, f"r{number}", "A", number=number)
    assert ours[-1].rejects == ("b2",)
    decision = served(votes(("A", ours), ("B", B2), witness=ours))
    assert decision.in_sync == ("A",) and decision.standings["B"] is Standing.DIVERGED
    further = after(B2, "b3", "B", number=40, forced=True)
    assert isinstance(votes(("A", ours), ("B", further), witness=ours), ReadOnly)


def test_one_member_behind_the_witness_is_left() -> None:
    decision = served(votes(("A", A3_JOIN), ("B", A2), witness=A3_JOIN))
    assert decision.in_sync == ("A",) and decision.leaves_needed == ("B",)
    assert decision.standings["B"] is Standing.ROLLED_BACK


def test_a_drive_that_forgot_its_return_is_not_in_sync() -> None:
    """It joined by a3, wrote it before the member did, and shows e1 now."""
    assert isinstance(votes(("A", A3_JOIN), ("B", E1)), Refuse)
    forced = served(votes(("A", A3_JOIN), ("B", E1), forced=True))
    assert forced.in_sync == ("A",) and forced.standings["B"] is Standing.ROLLED_BACK


def test_an_epoch_of_an_absent_drive_does_not_reach_the_witness() -> None:
    decision = served(votes(("A", A3_JOIN), witness=A2))
    assert decision.leaves_needed == ("B",) and decision.behind == ()


def test_a_history_out_of_memory_is_kept_whole() -> None:
    long = A2
    for number in range(3, 3 + HISTORY_MAX + 2):
        long = after(long, f"r{number}", "A")
    decision = served(votes(("A", long), ("B", E1), witness=long))
    assert decision.standings["B"] is Standing.DIVERGED
    assert not is_older(E1, long), "nor when it is plugged in while the mirror serves"
    assert is_older(E1, A2) and is_older(A2, after(E1, "e3", "A", "B", number=3, voids=("a2",)))


def test_plans_write_the_witness_last() -> None:
    leave = leave_plan(E1[-1], A2[-1])
    assert leave.steps == ("A", WITNESS) and leave.valid_after == 2
    assert leave.acknowledge == {"A", "B"}
    join = join_plan(A2[-1], A3_JOIN[-1], "B")
    assert join.steps == ("B", "A", WITNESS) and join.valid_after == 2
    assert join.acknowledge == {"A", "B"}
    renewal = renew_plan(A2[-1], ("B",))
    assert renewal.steps == ("A", "B", WITNESS) and renewal.valid_after == 2
    assert leave_plan(E1[-1], A3_FORCED[-1]).valid_after == 1
    assert renew_plan(A3_FORCED[-1]).valid_after == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: after(E1, "x", "A", "B", "C"),
        lambda: after(A2, "x", "B"),
        lambda: after(E1, "x", "A", number=1),
        lambda: after(E1, "x"),
    ],
    ids=["three in sync", "two changes at once", "an old number", "nobody in sync"],
)
def test_an_epoch_that_breaks_the_rules_cannot_be_made(make: Callable[[], History]) -> None:
    with pytest.raises(AssertionError):
        make()


def test_an_unsound_epoch_is_told() -> None:
    assert not Epoch(0, "x", "", ("A",)).is_sound()
    assert not Epoch(1, "x", "", ("B", "A")).is_sound()
    assert not Epoch(1, "x", "", (WITNESS,)).is_sound()
    assert Epoch(1, "x", "", ("A",), (Leave("B", 3),)).is_sound()


def random_histories(rng: random.Random) -> list[History]:
    """A tree of epochs of three drives, as no protocol may ever make it."""
    histories: list[History] = [E1]
    for number in range(2, 2 + rng.randint(0, 6)):
        parent = rng.choice(histories)
        in_sync = set(parent[-1].in_sync)
        other = rng.choice("ABC")
        in_sync ^= {other}
        if 1 <= len(in_sync) <= 2:
            forced = rng.random() < 0.2
            histories.append(after(parent, f"e{number}", *in_sync, number=number, forced=forced))
    return histories


@given(st.integers(0, 2**32))
def test_whatever_the_votes_the_decision_is_sound(seed: int) -> None:
    rng = random.Random(seed)
    histories = random_histories(rng)
    present = rng.sample("ABC", rng.randint(0, 3))
    drives = [DriveVote(d, "m", rng.choice(histories), rng.randint(0, 2)) for d in present]
    witness = None
    if rng.random() < 0.7:
        witness = WitnessVote("m", rng.choice(histories), rng.randint(0, 2))
    forced = rng.random() < 0.2
    chosen = rng.choice([None, *present])
    decision = decide(drives, witness, waited=rng.random() < 0.8, forced=forced, chosen=chosen)
    if not isinstance(decision, Serve):
        return
    assert decision.in_sync and set(decision.in_sync) <= set(present)
    assert decision.next_number > max(e.number for vote in drives for e in vote.history)
    assert set(decision.standings) == set(present)
    if not decision.force:
        assert set(decision.in_sync) <= set(decision.epoch.in_sync)
        assert len(present) + (witness is not None) >= 2
    assert not decision.force or forced or chosen in decision.in_sync
    if decision.leaves_needed and not decision.force:
        assert not decision.witness_lost


@given(st.integers(0, 2**32))
def test_the_order_of_the_votes_does_not_matter(seed: int) -> None:
    rng = random.Random(seed)
    histories = random_histories(rng)
    drives = [DriveVote(d, "m", rng.choice(histories), 0) for d in "ABC"]
    witness = WitnessVote("m", rng.choice(histories), 0)
    first = decide(drives, witness, waited=True)
    rng.shuffle(drives)
    assert type(decide(drives, witness, waited=True)) is type(first)
    if isinstance(first, Serve):
        again = served(decide(drives, witness, waited=True))
        assert (again.epoch, again.in_sync, again.voids) == (
            first.epoch,
            first.in_sync,
            first.voids,
        )
