"""A scrub that rests holds nothing: the log is freed as if there were none, and it still ends.

The real driver over a simulated mirror. Its thread stops at each call on the drives until the test
lets it go on, so that the two never work on the store at once.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Final

import pytest

from appliance.core.ports import Outcome
from appliance.core.scrubs import ScrubOrder, ScrubRun, ScrubState
from appliance.engine.mirror.scrub import PROVEN
from appliance.engine.mirror.scrub_driver import ScrubDriver, ScrubPorts
from appliance.engine.mirror.store import Store
from appliance.engine.mirror.throttle import Activity, Pace
from tests.crash.acts import commit, put
from tests.crash.machine import SEGMENT_BYTES, Machine
from tests.crash.scrubbing import fill, in_file, in_inline
from tests.crash.simulated import SerialLanes

WAIT_S: Final = 20.0
CAPACITY_BYTES: Final = 24 * SEGMENT_BYTES
TIMES: Final = 3
"""So many times the capacity is overwritten while the scrub rests."""


class GatedLanes(SerialLanes):
    """Each call waits at a gate until it is opened for one, or for good."""

    def __init__(self) -> None:
        super().__init__(random.Random(5))
        self._let = threading.Semaphore(0)
        self._at = threading.Semaphore(0)
        self._is_open = False

    def run(
        self, calls: Mapping[str, Callable[[], object]], *, deadline_s: float
    ) -> Mapping[str, Outcome]:
        self._at.release()
        if not self._is_open:
            assert self._let.acquire(timeout=WAIT_S)
        return super().run(calls, deadline_s=deadline_s)

    def arrived(self) -> None:
        """Wait until the scrub stands at the gate."""
        assert self._at.acquire(timeout=WAIT_S)

    def let_one(self) -> None:
        self._let.release()

    def open(self) -> None:
        self._is_open = True
        self._let.release()


class Steered:
    """A driver over a machine's store."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.store = fill(machine)
        self.lanes = GatedLanes()
        ports = ScrubPorts(
            machine.clock,
            machine.entropy,
            Activity(machine.clock),
            lambda work: work(self.store),
            lambda: nullcontext(self.lanes),
            machine.alerts.append,
        )
        self.driver = ScrubDriver(ports, every_s=0.0, pace=Pace())
        self.driver.use(self.store)

    def begin(self, pieces: int) -> None:
        """A scrub stands before its call of this number."""
        self.driver.order(ScrubOrder.START)
        self.driver.step()
        for _ in range(pieces):
            self.lanes.arrived()
            self.lanes.let_one()
        self.lanes.arrived()

    def ended(self) -> None:
        """Wait for the run's thread."""
        run = self.driver._run
        assert run is not None and run.thread is not None
        run.thread.join(WAIT_S)
        assert not run.is_alive

    def pause(self) -> None:
        self.driver.order(ScrubOrder.PAUSE)
        self.lanes.let_one()
        self.ended()

    def resume_to_the_end(self) -> ScrubRun:
        self.driver.order(ScrubOrder.RESUME)
        self.lanes.open()
        self.driver.step()
        self.ended()
        report = self.driver.order(ScrubOrder.LOOK)
        assert report.current is None, report.current
        assert report.last is not None and report.last.state is ScrubState.FINISHED
        return report.last


@pytest.fixture
def steered(machine: Machine) -> Iterator[Steered]:
    for disk in machine.disks.values():
        disk.capacity_bytes = CAPACITY_BYTES
    made = Steered(machine)
    yield made
    made.lanes.open()
    made.driver.use(None)


def _pins(store: Store) -> bool:
    """Whether segments are kept for a scrub."""
    return store._state.unread_after is not None


def _overwrite(store: Store, size_bytes: int) -> int:
    """Replace what is inline, again and again, as time passes; the most the drive held."""
    clock, written, peak = store._state.clock, 0, 0
    number = 100_000
    while written < size_bytes:
        commit(store, put(b"inline %d" % (number % 20), number, b"o" * 25_000))
        written += 25_000
        number += 1
        if number % 5 == 0:
            store.checkpoint()
            clock.sleep_s(1)
            store.step()
            while store.work_wait_s <= 1:
                clock.sleep_s(store.work_wait_s)
                store.work()
        volume = next(iter(store.members.values()))
        space = volume.space()
        peak = max(peak, space.total_bytes - space.free_bytes)
    return peak


def test_a_paused_scrub_pins_no_log_and_finds_what_rotted_when_it_goes_on(steered: Steered) -> None:
    store = steered.store
    steered.begin(5)
    assert _pins(store), "it is in the log"
    steered.pause()
    assert not _pins(store)
    peak = _overwrite(store, TIMES * CAPACITY_BYTES)
    assert peak < CAPACITY_BYTES * 0.6, "the log was freed although the scrub rests"
    assert list(store.members) == ["drive-a", "drive-b"]
    machine = steered.machine
    machine.disks["drive-a"].flip(*in_inline(machine, b"inline 7"))
    machine.disks["drive-b"].flip(*in_file(machine, b"large 10"))
    run = steered.resume_to_the_end()
    assert run.index == PROVEN
    found = {drive.drive_id: drive for drive in run.drives}
    assert (found["drive-a"].bad_batches, found["drive-b"].bad_blobs) == (1, 1)
    assert (run.found, run.repaired, run.unrepairable) == (2, 2, 0)
    assert run.done_bytes == run.total_bytes
