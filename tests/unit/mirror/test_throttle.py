"""The pace of work in the background, on a clock of its own."""

from __future__ import annotations

import pytest

from appliance.core.errors import Unavailable
from appliance.engine.mirror.throttle import MIB, REST_MAX_S, TURN_S, Activity, Pace, Throttle


class _Clock:
    """Time that passes only while somebody sleeps; ``during`` tells what happens in which sleep."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.during: dict[int, object] = {}
        self.sleeps = 0

    def now_ns(self) -> int:
        return int(self.now_s * 1e9)

    def monotonic_s(self) -> float:
        return self.now_s

    def sleep_s(self, seconds: float) -> None:
        self.sleeps += 1
        self.now_s += seconds
        deed = self.during.get(self.sleeps)
        if callable(deed):
            deed()


def _move(throttle: Throttle) -> None:
    with throttle.piece(MIB):
        """Nothing that takes time."""


def test_an_idle_mirror_is_worked_on_without_rest() -> None:
    clock = _Clock()
    throttle = Throttle(clock, Activity(clock))
    for _ in range(100):
        with throttle.piece(MIB):
            clock.now_s += 0.010
    assert clock.sleeps == 0


def test_a_limit_holds_at_every_moment() -> None:
    clock = _Clock()
    throttle = Throttle(clock, Activity(clock), Pace(limit_mib_s=8))
    for _ in range(33):
        _move(throttle)
    assert clock.now_s == pytest.approx(4.0)
    clock.now_s += 100  # idleness is not saved up
    began_s = clock.now_s
    for _ in range(9):
        _move(throttle)
    assert clock.now_s - began_s == pytest.approx(1.0)


@pytest.mark.parametrize("percent", [10, 25, 50, 100])
def test_active_clients_leave_it_a_share_of_the_time(percent: int) -> None:
    clock = _Clock()
    activity = Activity(clock)
    throttle = Throttle(clock, activity, Pace(busy_percent=percent))
    worked_s = 0.0
    for _ in range(200):
        activity.note()
        with throttle.piece(MIB):
            clock.now_s += 0.010
        worked_s += 0.010
    assert worked_s / clock.now_s == pytest.approx(percent / 100, rel=0.02)


def test_a_hang_is_not_paid_back_with_an_hour() -> None:
    clock = _Clock()
    activity = Activity(clock)
    throttle = Throttle(clock, activity, Pace(busy_percent=1))
    with throttle.piece(MIB):
        clock.now_s += 3600
        activity.note()
    with throttle.piece(MIB):
        assert clock.now_s - 3600 == pytest.approx(REST_MAX_S)


def test_one_piece_at_a_time_while_clients_are_active() -> None:
    clock = _Clock()
    activity = Activity(clock)
    throttle = Throttle(clock, activity, Pace(busy_percent=100))
    first = throttle.piece(MIB)
    first.__enter__()
    with throttle.piece(MIB):
        assert clock.now_s == 0.0, "nobody is there to wait for"
    activity.note()
    clock.during[4] = lambda: first.__exit__(None, None, None)
    _move(throttle)
    assert clock.now_s == pytest.approx(4 * TURN_S)


def test_clients_that_are_silent_for_a_second_no_longer_slow_it() -> None:
    clock = _Clock()
    activity = Activity(clock)
    activity.note()
    assert activity.is_busy
    clock.now_s += 1.0
    assert not activity.is_busy


def test_a_pause_lasts_until_it_is_resumed() -> None:
    clock = _Clock()
    throttle = Throttle(clock, Activity(clock))
    throttle.pause()
    assert throttle.paused
    clock.during[50] = throttle.resume
    _move(throttle)
    assert clock.now_s == pytest.approx(5.0)
    assert not throttle.paused


def test_a_stop_ends_a_pause_a_rest_and_the_next_piece() -> None:
    clock = _Clock()
    throttle = Throttle(clock, Activity(clock), Pace(limit_mib_s=0.001))
    _move(throttle)
    clock.during[3] = lambda: throttle.stop("the store is closing")
    with pytest.raises(Unavailable, match="closing"):
        _move(throttle)
    assert clock.sleeps == 3
    with pytest.raises(Unavailable, match="closing"):
        _move(throttle)
