"""Drives whose calls do not come back: they cost a deadline once and hold up nobody else.

Real threads and lanes over simulated drives. A hung call waits for an event that the test sets at
its end, so nothing here rests on how long anything takes.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.core.errors import DriveTimeout, MembershipChanged, Unavailable
from appliance.engine.interface import MirrorState
from appliance.engine.mirror.committer_thread import Command
from appliance.engine.mirror.completion import complete
from appliance.engine.mirror.messages import Order
from appliance.engine.mirror.resync import Resync
from appliance.engine.mirror.resync_driver import ResyncDriver
from appliance.engine.mirror.state import Stopped
from appliance.engine.mirror.store import Store
from appliance.engine.mirror.suspects import Suspects
from appliance.engine.mirror.throttle import Activity
from appliance.engine.mirror.victims import Zeal
from appliance.runtime.clock import SystemClock
from appliance.runtime.lanes import ThreadLanes
from tests.crash.acts import blob_of, bring_back, commit, put, put_staged
from tests.crash.hanging import Hang
from tests.crash.history import PARTITION
from tests.crash.machine import SETTINGS, Machine

PATIENT = replace(SETTINGS, deadline_s=0.2)

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def lanes() -> Iterator[ThreadLanes]:
    made = ThreadLanes(SystemClock())
    yield made
    made.close()


@pytest.fixture
def hang(machine: Machine) -> Iterator[Hang]:
    made = Hang(machine, "drive-b")
    yield made
    made.end()


def _spawn(call: Callable[[], None]) -> None:
    threading.Thread(target=call, daemon=True).start()


def _open(machine: Machine, lanes: ThreadLanes) -> Store:
    return machine.open(lanes=lanes, spawn=_spawn, settings=PATIENT)


def test_a_drive_that_hung_comes_back_on_a_fresh_mount(
    machine: Machine, lanes: ThreadLanes, hang: Hang
) -> None:
    """Although the call that hung is still out, on the mount that is gone."""
    store = _open(machine, lanes)
    hang.on("write", "log/")
    commit(store, put(b"k", 1))
    assert list(store.members) == ["drive-a"]
    hang.over_for_new_calls()
    bring_back(machine, "drive-b")
    assert len(store.members) == 2
    commit(store, put(b"more", 2))
    assert len(store.members) == 2


@pytest.mark.parametrize("path", ["superblock", "log/"])
def test_a_joiner_that_hangs_again_stalls_nobody(
    machine: Machine, lanes: ThreadLanes, hang: Hang, path: str
) -> None:
    store = _open(machine, lanes)
    commit(store, put(b"k", 1))
    store.lose("drive-b", "pulled")
    machine.disks["drive-b"].insert(machine.rng)
    store.add_outsider(machine.disks["drive-b"].mount())
    resync = store.begin_resync("drive-b")
    resync.copy()
    commit(store, put(b"more", 2))
    hang.on("write", path)
    with pytest.raises((Stopped, DriveTimeout)):
        store.finish_resync(resync)
    if not store.stopped:
        store.abandon_resync(resync)
        commit(store, put(b"further", 3))
    machine.drop_store()
    store = machine.open("drive-a")
    with machine.reader() as reader:
        assert None not in reader.read(PARTITION, [b"k", b"more"])


def test_a_transfer_that_hangs_is_left_behind_when_its_drive_is_taken_away(
    machine: Machine, lanes: ThreadLanes, hang: Hang
) -> None:
    """And what it says when it comes back at last changes nothing."""
    store = _open(machine, lanes)
    commit(store, put(b"k", 1))
    store.lose("drive-b", "pulled")
    machine.disks["drive-b"].insert(machine.rng)
    store.add_outsider(machine.disks["drive-b"].mount())
    commit(store, put(b"more", 2))
    late: list[Resync] = []
    ended = threading.Event()

    def command(work: Callable[[Store], object]) -> object:
        result = work(store)
        if isinstance(result, Resync):
            late.append(result)
        if result is None:
            ended.set()  # the first transfer was abandoned
        return result

    driver = ResyncDriver(SystemClock(), command, Activity(SystemClock()), SETTINGS)
    driver.use(store)
    hang.on("write", "log/")
    driver.step()
    assert hang.struck.wait(10)
    hang.over_for_new_calls()
    store.lose("drive-b", "pulled")
    assert store.outsiders() == {}
    machine.disks["drive-b"].insert(machine.rng)
    store.add_outsider(machine.disks["drive-b"].mount())
    driver.try_again()
    resync = store.begin_resync("drive-b")
    with pytest.raises(Unavailable):
        store.finish_resync(late[0])
    hang.end()
    assert ended.wait(10)
    assert store.health().state is MirrorState.RESYNCING
    resync.copy()
    while not store.finish_resync(resync):
        resync.copy()
    assert len(store.members) == 2


def test_looking_at_a_hung_outsider_stalls_nobody(
    machine: Machine, lanes: ThreadLanes, hang: Hang
) -> None:
    store = _open(machine, lanes)
    store.lose("drive-b", "pulled")
    machine.disks["drive-b"].insert(machine.rng)
    store.add_outsider(machine.disks["drive-b"].mount())
    hang.on("read", "superblock")
    for _ in range(2):
        with pytest.raises(DriveTimeout):
            store.begin_resync("drive-b")
    commit(store, put(b"k", 1))


def test_a_hang_while_a_segment_is_made_costs_only_that_drive(
    machine: Machine, lanes: ThreadLanes, hang: Hang
) -> None:
    store = _open(machine, lanes)
    hang.on("create", "log/")
    for number in range(1, 60):
        commit(store, put(b"%d" % number, number, b"z" * 20_000))
    assert hang.struck.is_set()
    assert store.stopped == ""
    assert list(store.members) == ["drive-a"]


@pytest.mark.parametrize(("kind", "path"), [("names", "staging"), ("names", "blob/"), ("stat", "")])
def test_a_sweep_that_hangs_holds_up_no_commit(
    machine: Machine, lanes: ThreadLanes, hang: Hang, kind: str, path: str
) -> None:
    store = _open(machine, lanes)
    order = put(b"k", 1)._replace(orders=[Order(b"k", b"0:", b"", machine.stage(b"q" * 100_000))])
    commit(store, order)
    hang.on(kind, path)
    machine.clock.sleep_s(100)
    store.step()
    store.sweep_orphans()
    commit(store, put(b"more", 2))
    assert store.stopped == ""


def _half_dead(store: Store) -> None:
    """Sealed segments of which every other record is replaced."""
    for number in range(1, 81):
        commit(store, put(b"key %04d" % number, number, b"z" * 12_000))
    for number in range(1, 81, 2):
        commit(store, put(b"key %04d" % number, 1000 + number))


def _compact_a_little(machine: Machine, store: Store, until: Callable[[], bool]) -> None:
    """As the committer does, between commits, until it has come so far."""
    for number in range(2000, 4000):
        machine.clock.sleep_s(0.1)
        store.step()
        store.work()
        commit(store, put(b"meanwhile", number, None))
        store.checkpoint()
        if until():
            return
    raise AssertionError("it never came so far")


def test_compaction_reads_from_the_drive_that_answers(machine: Machine, lanes: ThreadLanes) -> None:
    """One that hangs in reads alone goes on taking writes, and stays; it is not asked again."""
    store = _open(machine, lanes)
    first, _ = store.members
    hang = Hang(machine, first)
    _half_dead(store)
    hang.on("read", "log/")
    _compact_a_little(machine, store, lambda: store.counts()["recycled_segments"] >= 2)
    assert hang.strikes == 1
    assert len(store.members) == 2
    assert store._state.members[first].read_errors == 1
    hang.end()


def test_compaction_steps_back_while_no_drive_reads(machine: Machine, lanes: ThreadLanes) -> None:
    store = _open(machine, lanes)
    hangs = [Hang(machine, drive) for drive in store.members]
    _half_dead(store)
    for hang in hangs:
        hang.on("read", "log/")
    _compact_a_little(machine, store, lambda: all(hang.strikes for hang in hangs))
    before = store.counts()["recycled_segments"]
    _compact_a_little(machine, store, lambda: store._compactor._victim is None)
    assert not store.compact(), "nor does it keep anybody waiting who needs room"
    assert [hang.strikes for hang in hangs] == [1, 1]
    assert len(store.members) == 2
    for hang in hangs:
        hang.end()
    _compact_a_little(machine, store, lambda: store.counts()["recycled_segments"] > before)


def test_a_drive_that_hangs_in_compaction_and_takes_no_vote_leaves(
    machine: Machine, lanes: ThreadLanes
) -> None:
    store = _open(machine, lanes)
    first, other = store.members
    _half_dead(store)
    hang = Hang(machine, first)
    hang.on("read", "log/")
    store._compactor._choose(Zeal.SHORT)
    while not hang.struck.wait(0.01):
        machine.clock.sleep_s(0.1)
        store.work()
    hang.on("")
    batches = store.counts()["batches"]
    while len(store.members) == 2:
        machine.clock.sleep_s(0.1)
        store.work()
        assert store.counts()["batches"] == batches, "nothing was written that it was late for"
    assert list(store.members) == [other]
    commit(store, put(b"more", 5000))
    hang.end()


def test_a_blob_that_is_kept_is_read_from_the_drive_that_answers(
    machine: Machine, lanes: ThreadLanes
) -> None:
    store = _open(machine, lanes)
    commit(store, put(b"k", 1))
    first, other = store.members
    hang = Hang(machine, first)
    hang.on("read", "log/")
    commit(store, put(b"k", 2)._replace(orders=[Order(b"k", b"0:new", b"", None, b"k")]))
    assert hang.struck.is_set()
    assert list(store.members) == [other]
    with machine.reader(other) as reader:
        assert reader.read_blob(blob_of(machine, b"k"), 0, 3000) == b"x" * 3000
    hang.end()


def test_health_is_told_while_a_drive_hangs(
    machine: Machine, lanes: ThreadLanes, hang: Hang
) -> None:
    store = _open(machine, lanes)
    before = store.health()
    assert before.total_bytes > before.free_bytes > 0
    hang.on("space")
    after = store.health()
    assert not hang.struck.is_set()
    assert (after.total_bytes, after.free_bytes) == (before.total_bytes, before.free_bytes)


def test_a_room_check_that_hangs_costs_only_that_drive(
    machine: Machine, lanes: ThreadLanes, hang: Hang, scratch: Path
) -> None:
    store = _open(machine, lanes)
    hang.on("space")
    machine.clock.sleep_s(10)
    commit(store, put(b"k", 1))
    assert list(store.members) == ["drive-a"]


@pytest.mark.parametrize(
    ("hung", "kind", "path", "stay"),
    [
        ("drive-b", "write", "", ["drive-a"]),
        ("drive-b", "write", "staging/", ["drive-a", "drive-b"]),
        ("drive-a", "read", "staging/", ["drive-a", "drive-b"]),
    ],
    ids=["the target", "the target's file", "the source's file"],
)
def test_a_copy_for_an_adoption_that_hangs_ends_with_its_deadline(
    machine: Machine, lanes: ThreadLanes, hung: str, kind: str, path: str, stay: list[str]
) -> None:
    """A drive that takes no vote meanwhile goes; the client writes the blob again."""
    store = _open(machine, lanes)
    commit(store, put(b"first", 1))
    staged = machine.stage(b"q" * 300_000)
    staged = staged._replace(stamps={"drive-a": staged.stamps["drive-a"]})
    hang = Hang(machine, hung)
    hang.on(kind, path)
    blobs, state = store._blobs, store._state
    with pytest.raises(MembershipChanged):
        complete(state, blobs, staged)
    assert hang.struck.is_set()
    assert list(store.members) == stay
    hang.over_for_new_calls()
    commit(store, put(b"more", 2))
    order = Order(b"k", b"0:", b"", staged._replace(stamps={"drive-z": (1, 1)}))
    (outcome,) = store.commit([put(b"k", 3)._replace(orders=[order])])
    assert isinstance(outcome, MembershipChanged)
    hang.end()
    assert store.stopped == ""


def test_a_record_that_hangs_while_it_is_repaired_costs_only_its_drive(
    machine: Machine, lanes: ThreadLanes, hang: Hang
) -> None:
    store = _open(machine, lanes)
    commit(store, put(b"k", 1))
    place = blob_of(machine, b"k").place
    hang.on("read", "log/")
    assert not store.repair("drive-b", place)
    assert hang.struck.is_set()
    commit(store, put(b"k", 2))
    assert list(store.members) == ["drive-a"]


def test_a_blob_that_hangs_while_it_is_repaired_holds_up_no_commit(
    machine: Machine, lanes: ThreadLanes, hang: Hang
) -> None:
    store = _open(machine, lanes)
    data = machine.rng.randbytes(100_000)
    put_staged(machine, b"large", 1, data)
    blob = blob_of(machine, b"large")
    commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
    hang.on("read", "blob/")

    async def report() -> None:
        suspects = Suspects(commands.put)
        for _ in range(2):
            suspects.report(store, "drive-b", blob.place)
        assert await asyncio.to_thread(hang.struck.wait, 10)
        commit(store, put(b"small", 2))
        assert commands.empty(), "nothing for the committer to wait for"
        hang.end()
        command = await asyncio.to_thread(commands.get, timeout=10)
        command.answer(command.work(store), None)

    asyncio.run(report())
    assert list(store.members) == ["drive-a", "drive-b"]
    assert store._state.members["drive-b"].repaired == 1
    assert commands.empty()
    with machine.reader("drive-b") as reader:
        assert reader.read_blob(blob, 0, len(data)) == data
