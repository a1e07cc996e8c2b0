"""When scrubs begin, rest, go on and end, and what is remembered of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from appliance.core.errors import Refused, Unavailable
from appliance.core.scrubs import ScrubOrder, ScrubReport, ScrubState
from appliance.engine.mirror.scrub_driver import ScrubDriver, ScrubPorts
from appliance.engine.mirror.scrub_kit import ScrubMeans
from appliance.engine.mirror.scrub_tally import Cursor
from appliance.engine.mirror.store import Store
from appliance.engine.mirror.throttle import Activity, Pace
from appliance.system.files import DirectoryVolume

DAY_S = 86_400.0
WAIT_S = 20.0


@dataclass
class HandClock:
    """Time that passes when the test says so; whoever sleeps, waits for that."""

    now_s: float = 1000.0
    wall_ns: int = 1_700_000_000 * 10**9
    moved: threading.Condition = field(default_factory=threading.Condition)

    def now_ns(self) -> int:
        return self.wall_ns

    def monotonic_s(self) -> float:
        return self.now_s

    def sleep_s(self, seconds: float) -> None:
        with self.moved:
            self.moved.wait(0.001)

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds


class FixedEntropy:
    """Always the same share of the interval."""

    def __init__(self, byte: int = 0) -> None:
        self.byte = byte

    def token(self, size_bytes: int) -> bytes:
        return bytes([self.byte]) * size_bytes


@dataclass
class FakeScrub:
    """Works through its pieces; each waits for the test to let it."""

    means: ScrubMeans
    pieces: int
    let: threading.Semaphore
    at: threading.Semaphore
    error: Exception | None = None
    wrong_index: None = None

    def run(self) -> bool:
        for number in range(self.pieces):
            with self.means.throttle.piece(1):
                self.at.release()
                assert self.let.acquire(timeout=WAIT_S)
            if self.error is not None:
                raise self.error
            self.means.tally.done_bytes += 1
            self.means.tally.cursor = Cursor(number + 1)
            self.means.progress()
        self.means.tally.index = "proven"
        return True


@dataclass
class FakeStore:
    """What the driver asks of a store."""

    index_directory: DirectoryVolume
    pieces: int = 3
    stopped: str = ""
    read_only: str = ""
    transferring: bool = False
    error: Exception | None = None
    let: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    at: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    runs: list[FakeScrub] = field(default_factory=list)
    cursors: list[Cursor] = field(default_factory=list)

    def scrub(self, means: ScrubMeans) -> FakeScrub:
        self.cursors.append(means.tally.cursor)
        self.runs.append(FakeScrub(means, self.pieces, self.let, self.at, self.error))
        return self.runs[-1]


class Rig:
    """A driver with everything faked but its file."""

    def __init__(self, directory: Path, *, every_s: float = 30 * DAY_S, byte: int = 0) -> None:
        self.clock = HandClock()
        self.directory = directory
        self.told: list[str] = []
        self.entropy = FixedEntropy(byte)
        self.every_s = every_s
        self.store = FakeStore(DirectoryVolume(directory, "index"))
        self.driver = self.made()
        self.use(self.store)

    def made(self) -> ScrubDriver:
        ports = ScrubPorts(
            self.clock,
            self.entropy,
            Activity(self.clock),
            lambda work: work(cast(Store, self.store)),
            lambda: nullcontext(cast(Any, None)),
            self.told.append,
        )
        return ScrubDriver(ports, every_s=self.every_s, pace=Pace())

    def use(self, store: FakeStore | None) -> None:
        self.driver.use(cast("Store | None", store))

    def restart(self) -> None:
        """The process ends and another one comes."""
        self.use(None)
        self.store.let.release(100)
        self.until(lambda: not self.is_alive)
        self.store = FakeStore(DirectoryVolume(self.directory, "index"))
        self.driver = self.made()
        self.use(self.store)
        self.driver.step()

    @property
    def is_alive(self) -> bool:
        run = self.driver._run
        return run is not None and run.is_alive

    def until(self, holds: Callable[[], bool]) -> None:
        """What is waited for happens on the scrub's thread."""
        run = self.driver._run
        if run is not None and run.thread is not None and not holds():
            run.thread.join(WAIT_S)
        assert holds()

    def order(self, order: ScrubOrder) -> ScrubReport:
        return self.driver.order(order)

    def look(self) -> ScrubReport:
        return self.order(ScrubOrder.LOOK)

    def begun(self) -> None:
        """A scrub is under way, in its first piece."""
        self.driver.step()
        self.order(ScrubOrder.START)
        self.driver.step()
        assert self.store.at.acquire(timeout=WAIT_S)

    def finish(self) -> None:
        """Let it run to its end."""
        self.store.let.release(self.store.pieces)
        self.until(lambda: not self.is_alive)
        self.driver.step()


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


def test_a_pause_takes_hold_before_the_next_piece(rig: Rig) -> None:
    rig.begun()
    rig.order(ScrubOrder.PAUSE)
    rig.store.let.release()
    assert not rig.store.at.acquire(timeout=0.1)
    rig.order(ScrubOrder.RESUME)
    assert rig.store.at.acquire(timeout=WAIT_S)
    rig.finish()


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
    assert not rig.store.at.acquire(timeout=0.1)
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
