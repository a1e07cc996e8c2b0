"""A vote that is not taken: nothing is acknowledged under an epoch that is not valid."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from appliance.core.errors import ApplianceError, DriveFault
from appliance.engine.mirror.state import Stopped
from appliance.engine.mirror.store import Store
from appliance.engine.mirror.superblock import Superblock, format_drive, read_superblock
from tests.crash.acts import blob_of, commit, put
from tests.crash.history import PARTITION
from tests.crash.machine import Machine
from tests.crash.simulated import Operation, SimulatedDisk

OLD, NEW = "drive-b", "drive-c"


def _refuse_votes(disk: SimulatedDisk) -> None:
    def hook(operation: Operation) -> None:
        if operation.kind == "write" and operation.path == "superblock":
            raise DriveFault(disk.name, "write", errno.EIO)

    disk.hook = hook


def _after_restart(machine: Machine) -> Store:
    for disk in machine.disks.values():
        disk.hook = None
    machine.drop_store()
    return machine.open()


def _epochs(machine: Machine) -> set[str]:
    """The newest epoch on each drive that has a say."""
    store = machine.store
    assert store is not None
    return {m.superblock.value.history[-1].id for m in store._state.members.values()}


def test_a_survivor_that_takes_no_vote_acknowledges_nothing(machine: Machine) -> None:
    """One drive fails, and the other cannot say that it goes on alone: at a start the first one may
    be back, and would count."""
    store = machine.open()
    commit(store, put(b"old", 1))
    machine.disks["drive-b"].fail_at(1, errno.EIO, kinds=frozenset({"write"}), persistent=True)
    _refuse_votes(machine.disks["drive-a"])
    with pytest.raises(Stopped, match="did not take its vote"):
        store.commit([put(b"new", 2)])
    with pytest.raises(Stopped):
        store.commit([put(b"newer", 3)])
    store = _after_restart(machine)
    assert sorted(store.members) == ["drive-a", "drive-b"]
    for drive in store.members:
        with machine.reader(drive) as reader:
            assert reader.read_blob(blob_of(machine, b"old"), 0, 3000) == b"x" * 3000
            assert reader.read(PARTITION, [b"newer"]) == [None]
    commit(store, put(b"new", 4))


def test_a_member_is_not_let_go_for_its_successor_without_a_valid_epoch(machine: Machine) -> None:
    store = machine.open()
    commit(store, put(b"old", 1))
    store.replacing({NEW: OLD})
    store.add_outsider(machine.add_disk(NEW).mount())
    resync = store.begin_resync(NEW)
    resync.copy()
    _refuse_votes(machine.disks["drive-a"])
    with pytest.raises(Stopped, match="did not take its vote"):
        while not store.finish_resync(resync):
            resync.copy()
    with pytest.raises(Stopped):
        store.commit([put(b"new", 2)])
    store = _after_restart(machine)
    assert sorted(store.members) == ["drive-a", OLD]
    assert len(_epochs(machine)) == 1
    commit(store, put(b"new", 3))


def test_the_last_drive_failing_stops_the_store(machine: Machine) -> None:
    store = machine.open()
    commit(store, put(b"old", 1))
    for disk in machine.disks.values():
        disk.fail_at(1, errno.EIO, kinds=frozenset({"write"}), persistent=True)
    with pytest.raises(Stopped, match="last drive"):
        store.commit([put(b"new", 2)])
    with pytest.raises(Stopped):
        store.mark()
    store = _after_restart(machine)
    with machine.reader() as reader:
        assert reader.read_blob(blob_of(machine, b"old"), 0, 3000) == b"x" * 3000


def test_a_start_that_cannot_show_its_beat_does_not_serve(machine: Machine) -> None:
    """Whoever missed two beats is taken for an old copy: no drive may serve without."""
    store = machine.open()
    commit(store, put(b"old", 1))
    machine.drop_store()
    for disk in machine.disks.values():
        _refuse_votes(disk)
    with pytest.raises(ApplianceError):
        machine.open()
    store = _after_restart(machine)
    commit(store, put(b"new", 2))
    assert sorted(store.members) == ["drive-a", "drive-b"]


def test_a_drive_of_another_mirror_has_no_say_and_is_left_as_it_is(machine: Machine) -> None:
    store = machine.open()
    commit(store, put(b"old", 1))
    machine.drop_store()
    disk = machine.disks["drive-b"]
    found = read_superblock(disk.mount())
    assert isinstance(found, Superblock)
    format_drive(disk.mount(), replace(found, mirror_id="d4" * 16))
    before = disk.digest()
    store = machine.open()
    assert list(store.members) == ["drive-a"]
    assert any("not of this mirror" in alert for alert in machine.alerts)
    commit(store, put(b"new", 2))
    assert disk.digest() == before
