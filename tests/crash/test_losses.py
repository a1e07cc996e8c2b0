"""Parts of the log that are bad on every drive: named exactly, read around, and never served in
halves."""

from __future__ import annotations

import shutil

import pytest

from appliance.engine.mirror.assembled import Orders
from appliance.engine.mirror.messages import Order
from appliance.engine.mirror.place import InlinePlace, decode_place
from appliance.engine.mirror.segment import segment_path
from appliance.engine.mirror.state import Stopped
from tests.crash.acts import blob_of, bring_back, commit, put
from tests.crash.history import PARTITION
from tests.crash.machine import Machine
from tests.crash.simulated import Operation


def test_a_double_fault_in_the_log_is_reported_and_read_only(machine: Machine) -> None:
    store = machine.open()
    for number in range(1, 10):
        commit(store, put(b"k%d" % number, number))
    with machine.reader() as reader:
        (record,) = reader.read(PARTITION, [b"k4"])
    assert record is not None
    version = record.version
    place = decode_place(blob_of(machine, b"k4").place)
    assert isinstance(place, InlinePlace)
    machine.drop_store()
    for disk in machine.disks.values():
        disk.flip(segment_path(place.location.segment), place.location.offset + 90)
    shutil.rmtree(machine.index_directory)
    machine.index_directory.mkdir()
    store = machine.open()
    assert store.losses
    assert "batches 5 to 5" in store.losses[0]
    assert store.stopped
    (lost,) = store.lost
    assert (lost.partition, lost.key, lost.deletion) == (PARTITION, b"k4", False)
    assert lost.version == version
    assert lost.words() == f"a record (contract {PARTITION}, record {version:x})"
    with pytest.raises(Stopped):
        store.commit([put(b"new", 100)])
    with machine.reader() as reader:
        found = [r.key for r in reader.scan(PARTITION, b"", b"\xff", 100, False)]
    assert found == [b"k%d" % n for n in range(1, 10) if n != 4], "all that is left can be read"
    machine.drop_store()
    assert machine.open().losses, "what was shown meanwhile is not believed"


def test_an_idle_store_leaves_no_batch_that_could_be_taken_for_a_torn_tail(
    machine: Machine,
) -> None:
    store = machine.open()
    commit(store, put(b"last", 1))
    needed_mark = store.needs_mark
    store.mark()
    assert (needed_mark, store.needs_mark) == (True, False)
    place = decode_place(blob_of(machine, b"last").place)
    assert isinstance(place, InlinePlace)
    machine.drop_store()
    for disk in machine.disks.values():
        disk.flip(segment_path(place.location.segment), place.location.offset + 90)
    shutil.rmtree(machine.index_directory)
    machine.index_directory.mkdir()
    assert [one.key for one in machine.open().lost] == [b"last"]


def test_a_lost_batch_is_named_record_by_record_and_is_back_with_its_drive(
    machine: Machine,
) -> None:
    """With the index current, behind, and with only part of the batch readable."""
    store = machine.open()
    commit(store, put(b"kept", 1))
    store.checkpoint()
    machine.remember_index()
    orders = [Order(b"k%02d" % n, b"0:", b"", b"z" * 2000) for n in range(20)]
    orders += [Order(b"kept", None)]
    commit(store, put(b"", 2)._replace(orders=orders))
    commit(store, put(b"after", 3))
    place = decode_place(blob_of(machine, b"k07").place)
    assert isinstance(place, InlinePlace)
    names = {(b"k%02d" % n, False) for n in range(20)}
    path = segment_path(place.location.segment)
    machine.drop_store()
    images = {name: disk.image() for name, disk in machine.disks.items()}
    for disk in machine.disks.values():
        disk.flip(path, place.location.offset + 90)
        disk.overwrite(path, place.location.offset + 6000, bytes(3000))
    shutil.rmtree(machine.index_directory)
    shutil.copytree(machine._older_index, machine.index_directory)
    store = machine.open()
    told = {(one.key, one.deletion) for one in store.lost}
    assert names | {(b"kept", True)} >= told
    assert len(told) >= 18, "all but what the zeros took"
    assert (b"kept", True) in told
    (deletion,) = (one for one in store.lost if one.deletion)
    assert deletion.words().startswith(f"the deletion of a record (contract {PARTITION}, record ")
    machine.drop_store()
    machine.disks["drive-b"].restore_image(images["drive-b"])
    store = machine.open()
    assert not store.losses
    with machine.reader("drive-a") as reader:
        found = [r.key for r in reader.scan(PARTITION, b"", b"\xff", 100, False)]
    assert found == [b"after", *(b"k%02d" % n for n in range(20))]


@pytest.mark.parametrize("present", [("drive-a", "drive-b"), ("drive-a",)])
def test_a_segment_that_no_drive_has_is_named_by_the_index(
    machine: Machine, present: tuple[str, ...]
) -> None:
    """Not even its bytes can be looked at: the index is the last to know, and is kept."""
    store = machine.open()
    commit(store, put(b"victim", 1))
    place = decode_place(blob_of(machine, b"victim").place)
    assert isinstance(place, InlinePlace)
    for number in range(2, 22):
        commit(store, put(b"k%02d" % number, number, b"z" * 20_000))
    assert store._state.planner.tail.segment != place.location.segment
    for drive in present:
        store._state.members[drive].log.remove(place.location.segment)
    machine.drop_store()
    store = machine.open(*present, orders=Orders(waited=True))
    assert store.losses
    assert b"victim" in [one.key for one in store.lost]
    with machine.reader(*present) as reader:
        blob = blob_of(machine, b"k21")
        assert reader.read_blob(blob, 0, 20_000) == b"z" * 20_000
    machine.drop_store()
    store = machine.open(*present, orders=Orders(waited=True, accept_losses=True))
    commit(store, put(b"after", 30))
    assert list(store.members) == list(present)


def test_a_drive_that_does_not_keep_repairs_is_left_out(machine: Machine) -> None:
    """It is not two halves that are served: the other one has everything."""
    store = machine.open()
    for number in range(1, 10):
        commit(store, put(b"k%d" % number, number))
    place = decode_place(blob_of(machine, b"k9").place)
    assert isinstance(place, InlinePlace)
    machine.drop_store()
    shutil.rmtree(machine.index_directory)
    machine.index_directory.mkdir()
    disk = machine.disks["drive-b"]
    disk.overwrite(segment_path(place.location.segment), place.location.offset - 128, bytes(8192))

    def lose(operation: Operation) -> None:
        if operation.kind == "write" and operation.path.startswith("log/"):
            disk.lost_writes.add(operation.number)

    disk.hook = lose
    for orders in (Orders(waited=True), Orders(waited=True, accept_losses=True)):
        store = machine.open(orders=orders)
        assert not store.losses
        assert list(store.members) == ["drive-a"]
        with machine.reader() as reader:
            assert len(reader.scan(PARTITION, b"", b"\xff", 100, False)) == 9
        machine.drop_store()


def test_halves_that_contradict_each_other_wait_for_a_choice(machine: Machine) -> None:
    """Accepting losses is not enough: which one is right, only an operator knows."""
    store = machine.open()
    commit(store, put(b"k", 1))
    machine.drop_store()
    images = {name: disk.image() for name, disk in machine.disks.items()}
    witness = machine.witness.image()
    for number, drive in enumerate(machine.disks, 2):
        machine.open(drive, witness=False, orders=Orders(waited=True, forced=True))
        assert machine.store is not None
        commit(machine.store, put(b"of %s" % drive.encode(), number))
        machine.drop_store()
        # Only the log is what it became: a misdirected history under one vote.
        disk = machine.disks[drive]
        mixed = {**disk.image(), "superblock": images[drive]["superblock"]}
        disk.restore_image(mixed)
    machine.witness.restore_image(witness)
    for accept in (False, True):
        store = machine.open(orders=Orders(waited=True, accept_losses=accept))
        assert any("different batches" in loss for loss in store.losses)
        machine.drop_store()
    orders = Orders(waited=True, accept_losses=True, chosen="drive-b")
    store = machine.open(orders=orders)
    assert list(store.members) == ["drive-b"]
    with machine.reader() as reader:
        assert reader.read(PARTITION, [b"of drive-b"]) != [None]
    commit(store, put(b"more", 9))


def test_accepted_losses_are_remembered_on_every_drive(machine: Machine) -> None:
    """Also by a drive that joins later, and by one alone; what is lost after that is told anew."""
    store = machine.open()
    for number in range(1, 10):
        commit(store, put(b"k%d" % number, number))

    def ruin(key: bytes) -> None:
        place = decode_place(blob_of(machine, key).place)
        assert isinstance(place, InlinePlace)
        machine.drop_store()
        for disk in machine.disks.values():
            disk.flip(segment_path(place.location.segment), place.location.offset + 90)
        forget_index()

    def forget_index() -> None:
        machine.drop_store()
        shutil.rmtree(machine.index_directory)
        machine.index_directory.mkdir()

    ruin(b"k4")
    assert len(machine.open().losses) == 2, "one line for each drive"
    machine.drop_store()
    store = machine.open(orders=Orders(waited=True, accept_losses=True))
    assert not store.losses
    assert any("accepted" in alert for alert in machine.alerts)
    commit(store, put(b"new", 100))
    for _ in range(2):
        forget_index()
        store = machine.open()
        assert store.losses == []
        with machine.reader() as reader:
            found = [r.key for r in reader.scan(PARTITION, b"", b"\xff", 100, False)]
        assert sorted([b"new", *(b"k%d" % n for n in range(1, 10) if n != 4)]) == found
    store.lose("drive-b", "broken")
    machine.disks["drive-b"].restore_image({"": None})
    bring_back(machine, "drive-b")
    forget_index()
    store = machine.open("drive-b")
    assert store.losses == []
    machine.drop_store()
    machine.open()
    bring_back(machine, "drive-a")
    ruin(b"k7")
    store = machine.open()
    assert len(store.losses) == 2
    assert all("batches 8 to 8" in loss for loss in store.losses)
