"""What an operator goes on without, by force, is kept whole; what never counted is not."""

from __future__ import annotations

import pytest

from appliance.core.epochs import DriveVote, History, ReadOnly, Standing, WitnessVote, successor
from appliance.core.membership import decide
from tests.unit.mirror.test_membership import A2, A3_JOIN, C3_JOIN, E1, after, served, votes

B2_FORCED = after(E1, "g2", "B", forced=True, number=3)
B3 = after(B2_FORCED, "b3", "B")


@pytest.mark.parametrize("ours", [B2_FORCED, B3], ids=["at once", "an epoch later"])
@pytest.mark.parametrize("theirs", [A2, A3_JOIN, C3_JOIN], ids=["alone", "back", "with another"])
def test_a_half_that_an_operator_went_on_without_is_kept(ours: History, theirs: History) -> None:
    """It went on with the witness before this one, so nothing of it is proven void: not even a
    join that only the joiner shows."""
    for drive in ("A", "C"):
        for beat in (3, 5, 9):
            drives = [DriveVote(drive, "m", theirs, beat), DriveVote("B", "m", ours, 5)]
            decision = served(decide(drives, WitnessVote("m", ours, 5), waited=True))
            assert decision.in_sync == ("B",) and not decision.needs_epoch
            assert decision.standings[drive] is Standing.DIVERGED
            assert decision.voids == ()
            assert isinstance(decide(drives, None, waited=True), ReadOnly), "nobody to tell"


def test_a_force_passes_over_what_only_the_absent_drive_holds() -> None:
    """The witness knows what that is. Should it come back, it is no drive that merely left."""
    forced = served(votes(("B", E1), witness=A2, forced=True))
    assert forced.rejects == ("a2",)
    ours = successor(
        A2, number=3, epoch_id="g3", in_sync=("B",), forced=True, rejects=forced.rejects
    )
    decision = served(votes(("A", A2), ("B", ours), witness=ours))
    assert decision.in_sync == ("B",) and decision.standings["A"] is Standing.DIVERGED
    older = served(votes(("A", E1), ("B", ours), witness=ours))
    assert older.standings["A"] is Standing.STALE
    rolled_back = served(votes(("A", A2), witness=A3_JOIN, forced=True))
    assert rolled_back.rejects == ("a3",)


def test_a_lone_epoch_before_a_force_of_its_own_side_is_void_as_ever() -> None:
    ours = after(after(E1, "f2", "A", "B", forced=True), "f3", "B", number=4)
    lone = after(ours[:-1], "a3", "A")
    decision = served(votes(("A", lone), ("B", ours), witness=ours))
    assert decision.standings["A"] is Standing.STALE and decision.voids == ("a3",)
