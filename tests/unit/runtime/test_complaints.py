"""What fails again and again is told once per reason."""

from __future__ import annotations

import logging

import pytest

from appliance.runtime.complaints import Complaints


def test_a_reason_is_told_once_until_it_changes_or_was_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    complaints = Complaints(logging.getLogger("test"))
    assert not complaints.over("m0")
    for _ in range(3):
        complaints.say("m0", "no drive")
        complaints.say("m1", "no drive")
    complaints.say("m0", "no store")
    assert complaints.over("m0")
    assert not complaints.over("m0")
    complaints.say("m0", "no store")
    assert caplog.messages == ["no drive", "no drive", "no store", "no store"]
