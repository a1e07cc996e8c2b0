"""From which leave on a returning drive is judged, and since when a member counts."""

from __future__ import annotations

from appliance.core.epochs import History, Leave, successor
from appliance.engine.mirror.record import version_of
from appliance.engine.mirror.segment import SegmentState
from appliance.engine.mirror.trust import DOUBTED_BATCHES, Trust, leave_of
from appliance.engine.mirror.votes import generation_of

A, B, C = "drive-a", "drive-b", "drive-c"


def _history() -> History:
    """Both; b leaves at 10; b is back; c took b's place when b left at 30; a left at 50."""
    history = successor((), number=1, epoch_id="01", in_sync=(A, B))
    history = successor(history, number=2, epoch_id="02", in_sync=(A,), leaves=(Leave(B, 10),))
    history = successor(history, number=3, epoch_id="03", in_sync=(A, B))
    history = successor(
        history, number=5, epoch_id="05", in_sync=(A,), leaves=(Leave(B, 30, clean=True),)
    )
    history = successor(history, number=6, epoch_id="06", in_sync=(A, C))
    return successor(history, number=8, epoch_id="08", in_sync=(C,), leaves=(Leave(A, 50),))


def test_the_leave_that_counts_is_the_first_after_the_drive_s_newest_vote() -> None:
    """Later ones speak of a life that this copy of the drive has not seen."""
    history = _history()
    assert leave_of(history, history[:1], B) == Leave(B, 10)
    assert leave_of(history, history[:3], B) == Leave(B, 30, clean=True)
    assert leave_of(history, history[:3], A) == Leave(A, 50)
    assert leave_of(history, history[:5], A) == Leave(A, 50)


def test_without_a_leave_after_its_vote_nothing_is_remembered() -> None:
    history = _history()
    assert leave_of(history, (), B) is None
    assert leave_of(history, history[:5], B) is None
    assert leave_of(history, history[:1], C) is None
    assert leave_of(history[3:], history[:1], B) is None, "its past is beyond what is kept"


def test_a_member_counts_since_it_last_joined() -> None:
    history = _history()
    assert generation_of(history[:1], A) == 1
    assert generation_of(history[:3], A) == 1
    assert generation_of(history[:3], B) == 3
    assert generation_of(history, C) == 6
    assert generation_of(history, A) == 0


def test_only_what_was_sealed_before_the_leave_needs_no_comparing() -> None:
    trust = Trust(sequence=20)
    assert trust.in_segment(SegmentState(1, 1, 10, 19))
    assert not trust.in_segment(SegmentState(1, 1, 10, 20)), "a void batch may lie at its end"
    assert not trust.in_segment(SegmentState(1, 1)), "a free one"
    assert not Trust().in_segment(SegmentState(1, 1, 10, 19))


def test_the_last_blobs_before_the_leave_are_read_all_the_same() -> None:
    trust = Trust(sequence=1000, believed=True)
    assert trust.in_blob(version_of(1000 - DOUBTED_BATCHES, 5))
    assert not trust.in_blob(version_of(1001 - DOUBTED_BATCHES, 0))
    assert trust.in_blob(None)
    assert not Trust(sequence=1000).in_blob(version_of(1, 0))
    assert not Trust(sequence=1000).in_blob(None)
