"""A scrub that meets a drive that hangs: it lets go, and nobody else is held up.

Real threads and lanes over simulated drives. What hangs waits for an event that the test sets, so
nothing but the scrub's own deadline rests on how long anything takes.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from appliance.core.errors import DriveTimeout
from appliance.core.scrubs import DriveScrub
from appliance.engine.interface import BlobRef
from appliance.engine.mirror.hedging import HedgedReads
from appliance.engine.mirror.scrub import PROVEN
from appliance.engine.mirror.scrub_tally import Tally
from appliance.engine.mirror.store import Store
from appliance.runtime.clock import SystemClock
from appliance.runtime.lanes import ThreadLanes
from tests.crash.acts import blob_of, commit, put
from tests.crash.machine import DRIVES, SETTINGS, Machine
from tests.crash.scrubbing import LARGE, Scrubbed, fill, scrub
from tests.crash.simulated import Operation

DEADLINE_S: Final = 0.1
PATIENT_S: Final = 50.0
HUNG: Final = "drive-b"
BESIDE: Final = "scrub beside"
SHORT_PLACES: Final = 4
DIRECTORIES: Final = 4
WAIT_S: Final = 30.0


class HangAt:
    """The N-th look at a drive by a scrub hangs, and from then on, if ``for_ever``, every look at
    it by anybody. N is 0: none does, they are only counted."""

    def __init__(self, machine: Machine, number: int, *, for_ever: bool = False) -> None:
        self._disk = machine.disks[HUNG]
        self._number = number
        self._for_ever = for_ever
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.looks: list[tuple[str, str]] = []
        """Kind and path of each of the scrub's."""
        self.struck = threading.Event()
        self._disk.hook = self._operation
        self._disk.look_hook = self._look

    def _operation(self, operation: Operation) -> None:
        if operation.kind == "read":
            self._look(operation.kind, operation.path)

    def _look(self, kind: str, path: str) -> None:
        is_scrub = threading.current_thread().name.startswith(("lane scrub", BESIDE))
        with self._lock:
            if is_scrub:
                self.looks.append((kind, path))
            hangs = is_scrub and len(self.looks) == self._number
        if hangs or (self._for_ever and self.struck.is_set()):
            self.struck.set()
            self._over.wait(2 * PATIENT_S)

    def end(self) -> None:
        """Whatever hangs comes back, whole."""
        self._disk.hook = self._disk.look_hook = None
        self._over.set()


class Beside:
    """A scrub on a thread and lanes of its own."""

    def __init__(self, machine: Machine, deadline_s: float) -> None:
        store = machine.store
        assert isinstance(store, Store)
        state = store._state
        state.settings = replace(state.settings, deadline_s=deadline_s)
        self.tally = Tally()
        self.done: Scrubbed | None = None
        self.error: Exception | None = None
        self._lanes = ThreadLanes(SystemClock())
        self._machine = machine
        self._thread = threading.Thread(target=self._run, name=BESIDE, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.done = scrub(self._machine, tally=self.tally, lanes=self._lanes)
        except DriveTimeout as late:
            self.error = late

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive(), "it lets go"
        self._lanes.close()


@pytest.fixture
def machine(scratch: Path) -> Iterator[Machine]:
    made = Machine(7, scratch)
    lanes = ThreadLanes(SystemClock())
    made.open(lanes=lanes, settings=replace(SETTINGS, deadline_s=PATIENT_S))
    fill(made, 15)
    yield made
    made.drop_store()
    lanes.close()


def _looks_of_a_scrub(machine: Machine) -> list[int]:
    """The numbers of a scrub's looks at a drive. Of the 256 directories of blobs, which it looks
    for one by one, a few stand for all."""
    counting = HangAt(machine, 0)
    scrubbing = Beside(machine, PATIENT_S)
    scrubbing.join()
    assert scrubbing.done is not None and scrubbing.done.finished
    counting.end()
    numbers, directories = [], 0
    for number, (kind, path) in enumerate(counting.looks, 1):
        if kind == "stat" and path.startswith("blob/"):
            directories += 1
            if directories > DIRECTORIES:
                continue
        numbers.append(number)
    assert len(numbers) > 20
    return numbers


def _some(numbers: list[int]) -> list[int]:
    """The first, and some others."""
    return [numbers[0], *random.Random(5).sample(numbers[1:], SHORT_PLACES - 1)]


def _read(machine: Machine, blob: BlobRef) -> bytes:
    """As a gateway does."""

    async def read() -> bytes:
        with machine.reader() as reader:
            hedged = HedgedReads(reader, "test", threads=2, hedge_s=0.01)
            return await hedged.read(blob, 0, blob.size_bytes)

    return asyncio.run(read())


def _nothing_found(machine: Machine, tally: Tally) -> None:
    assert tally.index == PROVEN
    for drive in DRIVES:
        tally.of(drive).read_bytes = 0
        assert tally.of(drive) == DriveScrub(drive)
    store = machine.store
    assert store is not None and list(store.members) == list(DRIVES)


def _hang_and_come_back(machine: Machine, number: int) -> None:
    """In time: a commit and a read are done while the scrub waits."""
    hang = HangAt(machine, number)
    scrubbing = Beside(machine, PATIENT_S)
    assert hang.struck.wait(WAIT_S)
    store = machine.store
    assert isinstance(store, Store)
    commit(store, put(b"inline 1", 10_000 + number, b"h" * 20_000))
    assert _read(machine, blob_of(machine, b"inline 1")) == b"h" * 20_000
    hang.end()
    scrubbing.join()
    assert scrubbing.error is None
    _nothing_found(machine, scrubbing.tally)


def _hang_past_the_deadline(machine: Machine, number: int) -> None:
    """One spot, while the drive answers elsewhere: counted, and the next attempt goes on."""
    store = machine.store
    assert isinstance(store, Store)
    before = store._state.members[HUNG].read_errors
    hang = HangAt(machine, number)
    scrubbing = Beside(machine, DEADLINE_S)
    assert hang.struck.wait(WAIT_S)
    scrubbing.join()
    assert isinstance(scrubbing.error, DriveTimeout)
    assert scrubbing.error.drive == HUNG
    assert store._state.unread_after is None
    assert store._state.members[HUNG].read_errors == before + 1
    store._state.settings = replace(store._state.settings, deadline_s=PATIENT_S)
    assert scrub(machine, tally=scrubbing.tally).finished, "although the other call is still out"
    _nothing_found(machine, scrubbing.tally)
    hang.end()


def _hang_for_ever(scratch: Path, number: int) -> None:
    """The whole drive: reads are answered by the other one, and it leaves."""
    scratch.mkdir()
    machine = Machine(7, scratch)
    store = machine.open(settings=SETTINGS)
    fill(machine, 15)
    large, inline = blob_of(machine, b"large 10"), blob_of(machine, b"inline 7")
    hang = HangAt(machine, number, for_ever=True)
    scrubbing = Beside(machine, DEADLINE_S)
    assert hang.struck.wait(WAIT_S)
    with machine.reader() as reader:

        async def read() -> list[bytes]:
            hedged = HedgedReads(reader, "test", threads=2, hedge_s=0.01)
            return [await hedged.read(blob, 0, blob.size_bytes) for blob in (large, inline)]

        assert asyncio.run(read()) == [b"L" * LARGE, b"i" * 20_000]
    scrubbing.join()
    assert isinstance(scrubbing.error, DriveTimeout)
    assert scrubbing.error.drive == HUNG
    assert store._state.unread_after is None
    assert list(store.members) == ["drive-a"]
    commit(store, put(b"after", 20_000))
    done = scrub(machine, tally=scrubbing.tally)
    assert done.finished
    assert done.tally.index == PROVEN
    hang.end()
    machine.drop_store()


def test_a_look_that_hangs_holds_up_the_scrub_alone(machine: Machine) -> None:
    for number in _some(_looks_of_a_scrub(machine)):
        _hang_and_come_back(machine, number)


def test_a_spot_that_hangs_past_the_deadline_costs_an_attempt_and_no_drive(
    machine: Machine,
) -> None:
    for number in _some(_looks_of_a_scrub(machine)):
        _hang_past_the_deadline(machine, number)


def test_a_drive_that_hangs_for_ever_leaves_and_the_scrub_goes_on_without_it(
    machine: Machine, scratch: Path
) -> None:
    for number in _some(_looks_of_a_scrub(machine))[:3]:
        _hang_for_ever(scratch / f"{number}", number)


@pytest.mark.long
def test_every_look_of_a_scrub_may_hang_once(machine: Machine) -> None:
    for number in _looks_of_a_scrub(machine):
        _hang_and_come_back(machine, number)
        _hang_past_the_deadline(machine, number)


@pytest.mark.long
def test_every_look_of_a_scrub_may_hang_for_ever(machine: Machine, scratch: Path) -> None:
    for number in _looks_of_a_scrub(machine):
        _hang_for_ever(scratch / f"{number}", number)
