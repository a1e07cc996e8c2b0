"""One thread per drive: side by side, deadlines, and a lane that hangs."""

from __future__ import annotations

import errno
import threading

import pytest

from appliance.core.errors import DriveFault, DriveTimeout
from appliance.runtime.clock import SystemClock
from appliance.runtime.lanes import ThreadLanes


def fail() -> object:
    raise DriveFault("B", "writing", errno.EIO)


def test_calls_run_side_by_side_each_on_its_own_thread() -> None:
    lanes = ThreadLanes(SystemClock())
    together = threading.Barrier(2)

    def meet() -> object:
        together.wait(timeout=30)
        return threading.get_ident()

    outcomes = lanes.run({"A": meet, "B": meet}, deadline_s=30)
    first = {drive: outcome.value for drive, outcome in outcomes.items()}
    assert len(set(first.values())) == 2
    assert threading.get_ident() not in first.values()
    again = lanes.run({"A": threading.get_ident, "B": threading.get_ident}, deadline_s=30)
    assert {drive: outcome.value for drive, outcome in again.items()} == first
    lanes.close()
    lanes.close()


def test_a_fault_is_an_outcome_and_a_bug_is_not() -> None:
    lanes = ThreadLanes(SystemClock())
    outcomes = lanes.run({"A": lambda: 5, "B": fail}, deadline_s=30)
    assert outcomes["A"].value == 5 and outcomes["A"].fault is None
    assert isinstance(outcomes["B"].fault, DriveFault)
    with pytest.raises(ZeroDivisionError):
        lanes.run({"A": lambda: 1 // 0, "B": lambda: 5}, deadline_s=30)
    assert lanes.run({"A": lambda: 6}, deadline_s=30)["A"].value == 6
    assert lanes.run({}, deadline_s=0) == {}
    lanes.close()


def test_a_hung_drive_stalls_only_itself_and_takes_nothing_more() -> None:
    lanes = ThreadLanes(SystemClock())
    release, entered, back = threading.Event(), threading.Event(), threading.Event()
    ran: list[str] = []

    def hang() -> object:
        entered.set()
        release.wait(timeout=60)
        back.set()
        return None

    assert not lanes.busy("A")
    outcomes = lanes.run({"A": hang, "B": entered.wait}, deadline_s=1.0)
    late = outcomes["A"].fault
    assert isinstance(late, DriveTimeout) and late.drive == "A" and late.errno == errno.ETIMEDOUT
    assert outcomes["B"].value is True and lanes.busy("A") and not lanes.busy("B")
    outcomes = lanes.run({"A": lambda: ran.append("A"), "B": lambda: 7}, deadline_s=30)
    assert isinstance(outcomes["A"].fault, DriveTimeout) and outcomes["B"].value == 7
    assert ran == []
    release.set()
    assert back.wait(timeout=60)
    while lanes.busy("A"):
        lanes.run({"B": lambda: None}, deadline_s=30)
    assert lanes.run({"A": lambda: 8}, deadline_s=30)["A"].value == 8
    assert ran == [], "what was refused must not happen later"
    lanes.close()


class _StoodStill:
    """A host that stands still just after a call was begun, for longer than any deadline; only then
    does its drive answer."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self._looks = 0

    def now_ns(self) -> int:
        return 0

    def monotonic_s(self) -> float:
        self._looks += 1
        if self._looks == 3:
            self.go_on.set()
        return 0.0 if self._looks == 1 else 1e6

    def sleep_s(self, seconds: float) -> None:
        raise AssertionError


def test_a_host_that_stood_still_for_a_deadline_is_no_hung_drive() -> None:
    clock = _StoodStill()
    lanes = ThreadLanes(clock)
    outcomes = lanes.run({"A": lambda: clock.go_on.wait(60) and 5}, deadline_s=300)
    assert outcomes["A"].value == 5
    lanes.close()


def test_lanes_that_are_not_kept_are_left_to_what_hangs_in_them() -> None:
    lanes = ThreadLanes(SystemClock())
    release = threading.Event()
    lanes.run({"A": lambda: release.wait(60), "B": lambda: release.wait(60)}, deadline_s=0)
    lanes.keep(["A", "C"])
    outcomes = lanes.run({"A": lambda: 1, "B": lambda: 2}, deadline_s=30)
    assert isinstance(outcomes["A"].fault, DriveTimeout) and outcomes["B"].value == 2
    release.set()
    lanes.close()


def test_a_dropped_lane_gets_a_new_thread() -> None:
    lanes = ThreadLanes(SystemClock())
    release, entered = threading.Event(), threading.Event()

    def hang() -> object:
        entered.set()
        release.wait(timeout=60)
        return None

    lanes.run({"A": hang}, deadline_s=0)
    assert entered.wait(timeout=30)
    lanes.drop("A")
    lanes.drop("A")
    assert lanes.run({"A": lambda: 9}, deadline_s=30)["A"].value == 9
    release.set()
    lanes.close()
