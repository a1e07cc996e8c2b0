"""A scrub's driver with everything faked but the file it remembers in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from appliance.core.scrubs import ScrubOrder, ScrubReport
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
