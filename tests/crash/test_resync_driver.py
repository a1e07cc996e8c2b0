"""The driver of state transfers: paused, resumed, held back for clients, and left by a source."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from appliance.core.errors import DriveFault
from appliance.engine.mirror.digest import digest
from appliance.engine.mirror.format import DecodedBatch, Kind, LogRecord, encode_batch
from appliance.engine.mirror.resync_driver import RETRY_AFTER_S, ResyncDriver
from appliance.engine.mirror.segment import segment_path
from appliance.engine.mirror.store import Store
from appliance.engine.mirror.throttle import Activity, Pace
from tests.crash.acts import commit, put, put_staged
from tests.crash.machine import SETTINGS, Machine
from tests.crash.simulated import Operation

JOIN_S = 30.0


class _Clock:
    """Time that passes only while somebody sleeps, and says so."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.sleeps = 0
        self.on_sleep: Callable[[int], None] = lambda _count: None

    def now_ns(self) -> int:
        return int(self.now_s * 1e9)

    def monotonic_s(self) -> float:
        return self.now_s

    def sleep_s(self, seconds: float) -> None:
        self.now_s += seconds
        self.sleeps += 1
        self.on_sleep(self.sleeps)


class _Rig:
    """A mirror with one drive away, and a driver to bring it back."""

    def __init__(self, machine: Machine, pace: Pace) -> None:
        self.machine = machine
        self.store = machine.open()
        for number in range(12):
            put_staged(machine, b"blob %d" % number, number + 1, machine.rng.randbytes(90_000))
        self.store.lose("drive-b", "pulled")
        machine.disks["drive-b"].restore_image({"": None})
        self.store.add_outsider(machine.disks["drive-b"].mount())
        self.clock = _Clock()
        self.activity = Activity(self.clock)
        self._turn = threading.Lock()
        settings = replace(SETTINGS, resync_pace=pace, resync_threads=1)
        self.driver = ResyncDriver(self.clock, self.command, self.activity, settings)
        self.driver.use(self.store)

    def command(self, work: Callable[[Store], object]) -> object:
        with self._turn:
            return work(self.store)

    def run(self) -> None:
        """One transfer from beginning to end."""
        self.driver.step()
        running = self.driver.latest
        assert running is not None
        running.join(JOIN_S)
        assert not running.is_alive()

    @property
    def in_sync(self) -> bool:
        return len(self.store.members) == 2


@pytest.fixture
def rig(machine: Machine) -> Iterator[_Rig]:
    yield _Rig(machine, Pace())


def test_nothing_begins_while_it_is_paused(rig: _Rig) -> None:
    rig.driver.pause(paused=True)
    rig.driver.step()
    assert rig.driver.latest is None
    assert rig.driver.paused
    rig.driver.pause(paused=False)
    rig.run()
    assert rig.in_sync


def test_a_pause_in_its_middle_holds_it_until_it_is_resumed(rig: _Rig) -> None:
    writes = 0

    def hook(operation: Operation) -> None:
        nonlocal writes
        writes += operation.kind == "write"
        if writes == 5 and rig.clock.sleeps == 0:
            rig.driver.pause(paused=True)

    seen: list[int] = []

    def on_sleep(count: int) -> None:
        seen.append(writes)
        if count == 20:
            rig.driver.pause(paused=False)

    rig.machine.disks["drive-b"].hook = hook
    rig.clock.on_sleep = on_sleep
    rig.run()
    assert rig.in_sync
    assert rig.clock.sleeps == 20
    assert len(set(seen)) == 1, "it moved nothing meanwhile"


def test_a_pause_holds_rounds_that_know_no_pace(rig: _Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.engine.mirror.resync.FINISH_BYTES_MAX", 0)
    commands = 0
    held: list[bool] = []

    def command(work: Callable[[Store], object]) -> object:
        nonlocal commands
        commands += 1
        if 1 < commands < 6:
            commit(rig.store, put(b"busy", 1000 + commands))
        if commands == 5:
            rig.driver.pause(paused=True)
        return work(rig.store)

    def on_sleep(_count: int) -> None:
        held.append(rig.driver.paused and not rig.in_sync)
        rig.driver.pause(paused=False)

    rig.driver._command = command
    rig.clock.on_sleep = on_sleep
    rig.run()
    assert held == [True]
    assert rig.in_sync


def test_commits_never_wait_for_its_pace(rig: _Rig) -> None:
    """While it holds the committer it rests for nobody, be clients as active as they like."""
    inside = 0

    def command(work: Callable[[Store], object]) -> object:
        nonlocal inside
        inside += 1
        try:
            return rig.command(work)
        finally:
            inside -= 1

    def on_sleep(_count: int) -> None:
        assert not inside, "commits wait"
        rig.activity.note()

    rig.driver._command = command
    rig.clock.on_sleep = on_sleep
    rig.activity.note()

    written = False

    def hook(operation: Operation) -> None:
        nonlocal written
        rig.clock.now_s += 0.010 if operation.kind in {"read", "write"} else 0.0
        if operation.path.startswith("blob/") and not written and not inside:
            written = True  # and so there is something left to look at while commits wait
            put_staged(rig.machine, b"late", 500, rig.machine.rng.randbytes(90_000))

    for disk in rig.machine.disks.values():
        disk.hook = hook
    rig.run()
    assert rig.in_sync
    assert rig.clock.sleeps > 10, "it did rest beside them"


def test_a_limit_is_kept(machine: Machine) -> None:
    rig = _Rig(machine, Pace(limit_mib_s=1.0))
    rig.run()
    assert rig.in_sync
    assert rig.clock.now_s > 12 * 90_000 / 2**20


def test_a_store_that_closes_ends_it(rig: _Rig) -> None:
    rig.clock.on_sleep = lambda _count: rig.driver.use(None)
    writes = 0

    def hook(operation: Operation) -> None:
        nonlocal writes
        writes += operation.kind == "write"
        if writes == 3:
            rig.driver.pause(paused=True)

    rig.machine.disks["drive-b"].hook = hook
    rig.run()
    assert not rig.in_sync
    assert not rig.store.transferring


def test_a_source_that_fails_does_not_end_what_another_can_give(machine: Machine) -> None:
    """Two sources, as in a replacement; the first turns bad in the middle of the copy."""
    store = machine.open()
    for number in range(8):
        put_staged(machine, b"blob %d" % number, number + 1, machine.rng.randbytes(90_000))
    store.replacing({"drive-c": "drive-b"})
    store.add_outsider(machine.add_disk("drive-c").mount())
    clock = _Clock()

    def command(work: Callable[[Store], object]) -> object:
        return work(store)

    driver = ResyncDriver(clock, command, Activity(clock), SETTINGS)
    driver.use(store)
    reads = 0

    def hook(operation: Operation) -> None:
        nonlocal reads
        reads += operation.kind == "read" and operation.path.startswith("log/")
        if reads >= 1:
            machine.disks["drive-a"].hook = None
            machine.disks["drive-a"].pull()
            commit(store, put(b"k", 1000))  # the store finds out
            raise DriveFault("drive-a", "read", errno.ENODEV)

    machine.disks["drive-a"].hook = hook
    driver.step()
    running = driver.latest
    assert running is not None
    running.join(JOIN_S)
    assert sorted(store.members) == ["drive-b", "drive-c"]


def test_a_copy_that_is_another_one_is_told_and_made_anew(rig: _Rig) -> None:
    """A whole batch of another content, last in its segment: only the one behind it tells."""
    store, disk = rig.store, rig.machine.disks["drive-b"]
    for number in range(40):
        commit(store, put(b"filler", 100 + number, b"z" * 20_000))
    (member,) = store._state.members.values()
    last: dict[int, DecodedBatch] = {}
    for batch in member.log.scan():
        assert isinstance(batch, DecodedBatch)
        last[batch.header.place.segment] = batch
    segment, good = sorted(last.items())[0]
    records = [LogRecord(Kind.PUT, b"p", b"other", value=b"o" * 20_000)]
    wrong = encode_batch(good.header.place, records)
    assert len(wrong.data) <= len(good.data) and len(last) > 2

    def hook(operation: Operation) -> None:
        path = segment_path(segment)
        if operation.kind == "read" and operation.path == path and operation.offset:
            disk.hook = None
            disk.overwrite(path, good.header.place.offset, wrong.data)

    disk.hook = hook
    rig.run()
    assert not rig.in_sync
    assert any("its copy of the log differs" in alert for alert in rig.machine.alerts)
    away = {one.drive_id: one for one in store.health().members}["drive-b"]
    assert away.present and "its copy of the log differs" in away.reason
    rig.driver.step()
    assert not store.transferring, "not before its time"
    rig.clock.now_s += RETRY_AFTER_S
    rig.run()
    assert len(store.members) == 2
    assert len({digest(member) for member in store._state.members.values()}) == 1
