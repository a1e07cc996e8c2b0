"""Calls on all drives at once: who is blamed for being late, and who is waited for."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from functools import partial

import pytest

from appliance.core.errors import DriveTimeout
from appliance.core.ports import Outcome
from appliance.engine.mirror.member import Answers, Calls
from tests.crash.simulated import SimulatedClock

DEADLINE_S = 10.0


class ScriptedLanes:
    """A fake ``Lanes`` whose drives are busy until their time, as real ones are: at once."""

    def __init__(self, clock: SimulatedClock, free_at_s: Mapping[str, float]) -> None:
        self._clock = clock
        self._free_at_s = free_at_s

    def run(
        self, calls: Mapping[str, Callable[[], object]], *, deadline_s: float
    ) -> Mapping[str, Outcome]:
        late = Outcome(fault=DriveTimeout("", "a call", errno.ETIMEDOUT, ""))
        return {
            drive: Outcome(call()) if self._free_at_s[drive] <= self._clock.monotonic_s() else late
            for drive, call in calls.items()
        }

    def drop(self, drive: str) -> None:
        raise AssertionError(f"nobody gives {drive} up")


def answers_of(free_after_s: Mapping[str, float]) -> tuple[Answers, list[str]]:
    """Both drives are asked; they answer so many seconds from now."""
    clock = SimulatedClock()
    now_s = clock.monotonic_s()
    lanes = ScriptedLanes(clock, {d: now_s + after for d, after in free_after_s.items()})
    alerts: list[str] = []
    calls = Calls(lanes, clock, deadline_s=DEADLINE_S, alert=alerts.append)
    return calls.each({drive: partial(str, drive) for drive in free_after_s}), alerts


@pytest.mark.parametrize("second_s", [0.0, 0.3, DEADLINE_S - 1])
def test_drives_that_were_all_held_are_let_go_one_by_one(second_s: float) -> None:
    """One answers first; the other is no worse for it."""
    answers, alerts = answers_of({"a": 100.0, "b": 100.0 + second_s})
    assert answers.values == {"a": "a", "b": "b"}
    assert not answers.faults
    assert [alert.partition(" (")[0] for alert in alerts] == [
        "no drive answers",
        "drives answer again",
    ]


def test_one_that_stays_away_once_the_other_is_back_has_failed() -> None:
    answers, _ = answers_of({"a": 100.0, "b": 100.0 + 2 * DEADLINE_S})
    assert answers.values == {"a": "a"}
    assert list(answers.faults) == ["b"]


def test_one_that_is_late_alone_has_failed_at_once() -> None:
    answers, alerts = answers_of({"a": 0.0, "b": 1.0})
    assert list(answers.faults) == ["b"]
    assert not alerts
