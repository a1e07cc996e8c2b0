"""A state transfer ends however much clients write, because commits wait for it where they must.

One thread and simulated time: copying a byte takes its time, and a seeded writer that never rests
commits whatever it could have committed meanwhile, at a multiple of the speed of copying.
"""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, field

import pytest

from appliance.core.errors import DriveFault
from appliance.engine.mirror import resync as module
from appliance.engine.mirror.blob import blob_path
from appliance.engine.mirror.brake import Brake
from appliance.engine.mirror.place import FilePlace, decode_place
from appliance.engine.mirror.resync import Haste, Resync
from tests.crash.acts import blob_of, commit, delete, put, put_staged
from tests.crash.history import PARTITION
from tests.crash.machine import Machine
from tests.crash.simulated import Operation

COPY_BYTES_PER_S = 1_000_000.0
FINISH_BYTES_MAX = 400 * 1024
"""A free segment of these machines, and a little."""
ROUNDS_MAX = 12


@dataclass
class Writer:
    """``pace``: how much faster it writes than the transfer copies. ``sizes``: of its objects; from
    60,000 bytes on they are files."""

    machine: Machine
    pace: float
    sizes: tuple[int, ...]
    rng: random.Random
    next_s: float = 0.0
    count: int = 100
    waited: int = 0
    _busy: bool = field(default=False)

    @property
    def now_s(self) -> float:
        return self.machine.clock.peek_ns() / 1e9

    def copied(self, operation: Operation) -> None:
        """A hook of the target: time passes, and the writer uses it."""
        if operation.kind == "write":
            self.machine.clock.sleep_s(operation.length / COPY_BYTES_PER_S)
            self.turn()

    def turn(self) -> None:
        """Whatever it can commit by now."""
        store = self.machine.store
        assert store is not None
        while not self._busy and self.next_s <= self.now_s:
            if store.commit_wait_s > 0:
                self.waited += 1
                return
            size = self.rng.choice(self.sizes)
            self.count += 1
            key, data = b"key %d" % self.count, self.rng.randbytes(size)
            self._busy = True
            if size < 60_000:
                commit(store, put(key, self.count, data))
            else:
                put_staged(self.machine, key, self.count, data)
            self._busy = False
            self.next_s = max(self.next_s, self.now_s - 1.0) + size / (COPY_BYTES_PER_S * self.pace)


def _bring_in(
    machine: Machine, seed: int, pace: float, sizes: tuple[int, ...]
) -> tuple[int, Resync, Writer]:
    """How many rounds it took, at most ``ROUNDS_MAX``."""
    store = machine.open()
    for number in range(6):
        put_staged(machine, b"blob %d" % number, number + 1, machine.rng.randbytes(90_000))
    store.lose("drive-b", "pulled")
    disk = machine.disks["drive-b"]
    disk.restore_image({"": None})
    store.add_outsider(disk.mount())
    writer = Writer(machine, pace, sizes, random.Random(seed))
    writer.next_s = writer.now_s
    disk.hook = writer.copied
    resync = store.begin_resync("drive-b")
    for number in range(1, ROUNDS_MAX + 1):
        resync.copy()
        writer.turn()
        disk.hook = None  # while commits wait nobody writes
        if store.finish_resync(resync):
            return number, resync, writer
        disk.hook = writer.copied
    return ROUNDS_MAX, resync, writer


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FINISH_BYTES_MAX", FINISH_BYTES_MAX)


LOADS = {
    "records": (9_000, 20_000),
    "files": (70_000, 150_000),
    "mixed": (300, 20_000, 90_000),
    "files larger than what may be left": (700_000,),
}


@pytest.mark.parametrize("pace", [1.5, pytest.param(2.0, marks=pytest.mark.long)])
@pytest.mark.parametrize("load", LOADS)
def test_it_ends_although_clients_write_faster_than_it_copies(
    machine: Machine, load: str, pace: float
) -> None:
    rounds, resync, writer = _bring_in(machine, 5, pace, LOADS[load])
    store = machine.store
    assert store is not None
    assert len(store.members) == 2, f"not within {rounds} rounds"
    assert resync._haste is Haste.BRAKED and writer.waited
    assert store.commit_wait_s == 0, "nobody waits any more"
    with machine.reader("drive-b") as reader:
        keys = [b"key %d" % number for number in range(101, writer.count + 1)]
        assert None not in reader.read(PARTITION, keys)


@pytest.mark.parametrize("load", ["records", "files"])
def test_without_the_brake_it_would_not(
    machine: Machine, load: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the test above says something."""
    monkeypatch.setattr(Brake, "hold", lambda *_: None)
    monkeypatch.setattr("tests.crash.test_convergence.ROUNDS_MAX", 4)
    _bring_in(machine, 5, 1.5, LOADS[load])
    assert machine.store is not None
    assert list(machine.store.members) == ["drive-a"]


def test_clients_that_write_little_never_wait(machine: Machine) -> None:
    rounds, resync, writer = _bring_in(machine, 6, 0.2, LOADS["mixed"])
    assert machine.store is not None
    assert len(machine.store.members) == 2
    assert resync._haste is Haste.NONE
    assert not writer.waited
    assert rounds < 6


def test_a_transfer_that_is_given_up_holds_nobody_back(machine: Machine) -> None:
    store = machine.open()
    store.lose("drive-b", "pulled")
    store.add_outsider(machine.disks["drive-b"].mount())
    resync = store.begin_resync("drive-b")
    store._state.brake.hold(1.0)
    commit(store, put(b"k", 1))
    assert store.commit_wait_s > 0
    store.abandon_resync(resync)
    assert store.commit_wait_s == 0


def test_a_transfer_whose_drive_is_pulled_between_two_rounds_holds_nobody_back(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread may be on its way into the next round while the committer takes the drive away."""
    monkeypatch.setattr(module, "FINISH_BYTES_MAX", 0)
    store = machine.open()
    store.lose("drive-b", "pulled")
    store.add_outsider(machine.disks["drive-b"].mount())
    resync = store.begin_resync("drive-b")
    resync.copy()
    resync._haste = Haste.BRAKED
    commit(store, put(b"k", 1, b"x" * 9_000))
    assert not store.finish_resync(resync)
    commit(store, put(b"k", 2, b"x" * 9_000))
    assert store.commit_wait_s > 0
    store.lose("drive-b", "pulled again")
    assert store.commit_wait_s == 0
    with contextlib.suppress(DriveFault):
        resync.copy()
    commit(store, put(b"k", 3, b"x" * 9_000))
    assert store.commit_wait_s == 0


def test_a_store_that_takes_no_writes_says_so_at_once(machine: Machine) -> None:
    store = machine.open()
    store._state.brake.hold(1.0)
    commit(store, put(b"k", 1))
    assert store.commit_wait_s > 0
    store._state.stop("for the test")
    assert store.commit_wait_s == 0


def test_what_members_gave_back_meanwhile_takes_no_room_on_the_new_drive(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a new drive fills up under clients that write over what they wrote."""
    store = machine.open()
    put_staged(machine, b"large", 1, machine.rng.randbytes(90_000))
    place = decode_place(blob_of(machine, b"large").place)
    assert isinstance(place, FilePlace)
    store.lose("drive-b", "pulled")
    disk = machine.disks["drive-b"]
    disk.restore_image({"": None})
    store.add_outsider(disk.mount())
    resync = store.begin_resync("drive-b")
    resync.copy()
    path = blob_path(place.blob_id)
    assert resync.volume.stat(path) is not None
    commit(store, delete(b"large", 2))
    machine.clock.sleep_s(10)
    store.step()
    assert store.members["drive-a"].stat(path) is None
    monkeypatch.setattr(module, "FINISH_BYTES_MAX", 0)
    assert not store.finish_resync(resync), "something is left"
    resync.copy()
    assert resync.volume.stat(path) is None
    assert store.finish_resync(resync)
