"""When scrubs begin, rest, go on and end, and what is remembered of them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from appliance.core.errors import DriveTimeout, Refused, Unavailable
from appliance.core.scrubs import ScrubOrder, ScrubReport, ScrubState
from appliance.engine.mirror.scrub_tally import Cursor
from appliance.engine.mirror.store import Store
from tests.unit.mirror.scrub_rig import DAY_S, WAIT_S, Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.use(None)
    made.store.let.release(1000)
    made.until(lambda: not made.is_alive)


def _state(report: ScrubReport) -> ScrubState | None:
    return report.current.state if report.current is not None else None


def test_one_that_is_asked_for_runs_and_ends(rig: Rig) -> None:
    rig.begun()
    assert _state(rig.look()) is ScrubState.RUNNING
    assert rig.look().next_in_s is None
    rig.finish()
    report = rig.look()
    assert report.current is None
    assert report.last is not None
    assert (report.last.state, report.last.index) == (ScrubState.FINISHED, "proven")
    assert report.next_in_s == 30 * DAY_S


def test_one_is_begun_as_soon_as_the_store_is_open(rig: Rig) -> None:
    assert _state(rig.order(ScrubOrder.START)) is not None


def test_to_ask_twice_begins_one(rig: Rig) -> None:
    rig.begun()
    rig.order(ScrubOrder.START)
    rig.driver.step()
    rig.finish()
    assert len(rig.store.runs) == 1
    assert rig.look().current is None


@pytest.mark.parametrize("order", [ScrubOrder.PAUSE, ScrubOrder.RESUME, ScrubOrder.CANCEL])
def test_without_one_there_is_nothing_to_pause_or_cancel(rig: Rig, order: ScrubOrder) -> None:
    rig.driver.step()
    with pytest.raises(Refused, match="appliance mirror scrub"):
        rig.order(order)


def test_orders_without_an_open_store_are_refused(rig: Rig) -> None:
    rig.use(None)
    with pytest.raises(Unavailable):
        rig.order(ScrubOrder.START)
    assert rig.look() == ScrubReport()


def test_a_paused_one_rests_also_over_a_restart_and_goes_on_where_it_was(rig: Rig) -> None:
    rig.begun()
    rig.store.let.release()
    assert rig.store.at.acquire(timeout=WAIT_S)
    rig.order(ScrubOrder.PAUSE)
    rig.driver.step()
    assert _state(rig.look()) is ScrubState.PAUSED
    rig.restart()
    assert _state(rig.look()) is ScrubState.PAUSED
    rig.clock.pass_s(DAY_S)
    rig.driver.step()
    assert rig.store.runs == []
    rig.order(ScrubOrder.RESUME)
    rig.driver.step()
    assert rig.store.at.acquire(timeout=WAIT_S)
    assert rig.store.cursors[0].sequence >= 1
    rig.finish()
    assert rig.look().last is not None


def test_a_pause_ends_the_run_before_its_next_piece_and_another_goes_on(rig: Rig) -> None:
    """Whatever a run holds, log segments above all, is given back while it rests."""
    rig.begun()
    rig.order(ScrubOrder.PAUSE)
    rig.store.let.release()
    rig.until(lambda: not rig.is_alive)
    assert _state(rig.look()) is ScrubState.PAUSED
    rig.order(ScrubOrder.RESUME)
    assert rig.look().current is not None
    rig.driver.step()
    assert rig.store.at.acquire(timeout=WAIT_S)
    assert rig.store.cursors == [Cursor(), Cursor(1)]
    rig.finish()
    assert len(rig.store.runs) == 2
    assert rig.look().last is not None


def test_one_that_goes_on_before_it_rested_rests_first(rig: Rig) -> None:
    rig.begun()
    rig.order(ScrubOrder.PAUSE)
    rig.order(ScrubOrder.RESUME)
    rig.driver.step()
    assert len(rig.store.runs) == 1
    rig.store.let.release()
    rig.until(lambda: not rig.is_alive)
    rig.driver.step()
    assert rig.store.at.acquire(timeout=WAIT_S)
    rig.finish()
    assert rig.look().last is not None


def test_an_interrupted_one_goes_on_after_a_restart_of_the_store(rig: Rig) -> None:
    rig.begun()
    rig.store.let.release(2)
    for _ in range(2):
        assert rig.store.at.acquire(timeout=WAIT_S)
    rig.driver._save(cast(Store, rig.store))
    rig.restart()
    assert rig.store.at.acquire(timeout=WAIT_S)
    assert rig.store.cursors == [Cursor(2)]
    rig.finish()
    report = rig.look()
    assert report.last is not None
    assert report.last.done_bytes == 2 + rig.store.pieces


def test_one_that_fails_is_tried_again_after_a_while(rig: Rig) -> None:
    rig.store.error = Unavailable("a drive went away")
    rig.begun()
    rig.finish()
    report = rig.look()
    assert _state(report) is ScrubState.WAITING
    assert report.current is not None
    assert report.current.reason == "a drive went away"
    assert len(rig.store.runs) == 1
    rig.store.error = None
    rig.clock.pass_s(16)
    rig.driver.step()
    rig.finish()
    assert len(rig.store.runs) == 2
    assert rig.look().last is not None


def test_one_that_gets_no_further_is_tried_less_and_less_often(rig: Rig) -> None:
    rig.store.error = DriveTimeout("drive-b", "a read", errno.ETIMEDOUT)
    rig.begun()
    waited_s = []
    for number in range(1, 12):
        rig.store.let.release()
        rig.until(lambda: not rig.is_alive)
        waited_s.append(0)
        while len(rig.store.runs) == number:
            waited_s[-1] += 15
            rig.clock.pass_s(15)
            rig.driver.step()
        assert rig.store.at.acquire(timeout=WAIT_S)
    assert waited_s == [15, 30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    rig.store.error = None
    rig.store.runs[-1].error = None
    rig.finish()
    assert rig.look().last is not None


def test_a_cancelled_one_ends_and_the_wait_begins_anew(rig: Rig) -> None:
    rig.begun()
    rig.order(ScrubOrder.CANCEL)
    rig.finish()
    report = rig.look()
    assert report.current is None
    assert report.last is not None
    assert report.last.state is ScrubState.CANCELLED
    assert report.next_in_s == 30 * DAY_S


def test_a_cancelled_one_that_was_paused_ends_too(rig: Rig) -> None:
    rig.begun()
    rig.order(ScrubOrder.PAUSE)
    rig.restart()
    rig.order(ScrubOrder.CANCEL)
    rig.driver.step()
    assert rig.look().current is None


def test_it_rests_while_a_drive_is_brought_in(rig: Rig) -> None:
    rig.begun()
    rig.store.transferring = True
    rig.driver.step()
    report = rig.look()
    assert _state(report) is ScrubState.WAITING
    assert report.current is not None
    assert report.current.reason == "a drive is being brought into the mirror"
    rig.store.let.release()
    rig.until(lambda: not rig.is_alive)
    assert rig.look().current is not None
    rig.driver.step()
    assert len(rig.store.runs) == 1
    rig.store.transferring = False
    rig.driver.step()
    assert rig.store.at.acquire(timeout=WAIT_S)
    rig.finish()


# -- the schedule ----------------------------------------------------------------------------------


def test_a_scrub_is_due_after_its_interval_of_service(rig: Rig) -> None:
    rig.driver.step()
    rig.clock.pass_s(30 * DAY_S - 60)
    rig.driver.step()
    assert rig.look().current is None
    assert rig.look().next_in_s == 60
    rig.clock.pass_s(61)
    rig.driver.step()
    assert rig.look().current is not None
    rig.finish()
    assert rig.look().next_in_s == 30 * DAY_S


def test_mirrors_made_together_drift_apart(tmp_path: Path) -> None:
    waits = set()
    for byte in (0, 128, 255):
        directory = tmp_path / f"{byte}"
        directory.mkdir()
        rig = Rig(directory, byte=byte)
        rig.driver.step()
        waits.add(rig.look().next_in_s)
    assert len(waits) == 3
    assert all(27 * DAY_S <= wait_s <= 30 * DAY_S for wait_s in waits if wait_s is not None)


def test_no_interval_means_never(tmp_path: Path) -> None:
    rig = Rig(tmp_path, every_s=0.0)
    rig.driver.step()
    rig.clock.pass_s(1000 * DAY_S)
    rig.driver.step()
    assert rig.look() == ScrubReport()


def test_a_jump_of_the_wall_clock_starts_nothing_and_puts_nothing_off(rig: Rig) -> None:
    rig.driver.step()
    for years in (70, -40):
        rig.clock.wall_ns += years * 365 * 86_400 * 10**9
        rig.clock.pass_s(10 * DAY_S)
        rig.driver.step()
        assert rig.look().current is None
    rig.clock.pass_s(10 * DAY_S + 1)
    rig.driver.step()
    assert rig.look().current is not None
    rig.finish()


def test_time_of_service_is_remembered_over_restarts(rig: Rig) -> None:
    rig.driver.step()
    for _ in range(3):
        rig.clock.pass_s(9 * DAY_S)
        rig.driver.step()
        rig.restart()
        rig.clock.pass_s(0)
    assert rig.look().next_in_s == pytest.approx(3 * DAY_S, abs=1)


def test_a_store_that_only_reads_is_left_alone(rig: Rig) -> None:
    rig.store.read_only = "after losses"
    rig.use(rig.store)
    rig.driver.step()
    with pytest.raises(Unavailable):
        rig.order(ScrubOrder.START)
