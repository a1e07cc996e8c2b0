"""Taking over staged blobs when drives are full, when ids are named twice, and after a crash."""

from __future__ import annotations

import errno

import pytest

from appliance.core.errors import DriveFault, InvalidInput, MembershipChanged, NoSpace
from appliance.engine.mirror.blob import blob_path, encode_chunks, file_bytes, staged_path
from appliance.engine.mirror.messages import CommitOrder, Order, Staged
from appliance.engine.mirror.place import FilePlace, decode_place
from tests.crash.acts import blob_of, commit, delete, put
from tests.crash.machine import GATEWAY, Machine
from tests.crash.simulated import Operation

DATA = b"q" * 100_000


def _order(key: bytes, number: int, staged: Staged) -> CommitOrder:
    return put(key, number)._replace(orders=[Order(key, b"0:", b"", staged)])


@pytest.mark.parametrize("full", [("drive-b",), ("drive-a", "drive-b")], ids=["one", "both"])
@pytest.mark.parametrize("kind", ["make_directory", "rename"])
def test_no_room_for_a_name_is_no_failed_drive(
    machine: Machine, kind: str, full: tuple[str, ...]
) -> None:
    store = machine.open()
    staged = machine.stage(DATA)

    def fill(operation: Operation) -> None:
        if operation.kind == kind:
            raise DriveFault("full", kind, errno.ENOSPC)

    for drive in full:
        machine.disks[drive].hook = fill
    (outcome,) = store.commit([_order(b"k", 1, staged)])
    assert isinstance(outcome, NoSpace)
    for disk in machine.disks.values():
        disk.hook = None
    assert len(store.members) == 2
    commit(store, _order(b"k", 2, machine.stage(DATA)))
    for drive in store.members:
        with machine.reader(drive) as reader:
            assert reader.read_blob(blob_of(machine, b"k"), 0, len(DATA)) == DATA


@pytest.mark.parametrize("fate", ["living", "released", "same batch", "same commit"])
def test_a_blob_has_one_owner_whatever_a_gateway_says(machine: Machine, fate: str) -> None:
    """Else its second owner would lose it with the first."""
    store = machine.open()
    staged = machine.stage(DATA)
    first, second = _order(b"first", 1, staged), _order(b"second", 2, staged)
    if fate == "same commit":
        both = put(b"x", 3)._replace(orders=[*first.orders, *second.orders])
        (outcome,) = store.commit([both])
    elif fate == "same batch":
        made, outcome = store.commit([first, second])
        assert isinstance(made, int)
    else:
        commit(store, first)
        if fate == "released":
            commit(store, delete(b"first", 9))
        (outcome,) = store.commit([second])
    assert isinstance(outcome, InvalidInput)
    short = second._replace(request_id=b"s" * 16)
    wrong = short._replace(orders=[Order(b"w", b"0:", b"", staged._replace(size_bytes=5))])
    if fate in {"living", "same batch"}:
        (outcome,) = store.commit([wrong])
        assert isinstance(outcome, InvalidInput)
        with machine.reader() as reader:
            assert reader.read_blob(blob_of(machine, b"first"), 0, len(DATA)) == DATA


def test_recovery_takes_no_unflushed_file_out_of_staging(machine: Machine) -> None:
    """A staged file of the right length that was never flushed on this drive, beside a record that
    rests on the copy the store made: after the power cut only the length is right."""
    store = machine.open()
    commit(store, _order(b"k", 1, machine.stage(DATA)))
    place = decode_place(blob_of(machine, b"k").place)
    assert isinstance(place, FilePlace)
    machine.drop_store()
    disk = machine.disks["drive-b"]
    volume = disk.mount()
    volume.unlink(blob_path(place.blob_id))
    garbage = bytearray(encode_chunks(place.blob_id, 0, DATA))
    garbage[70_000:80_000] = bytes(10_000)
    assert len(garbage) == file_bytes(len(DATA))
    file = volume.open(staged_path(GATEWAY, place.blob_id), write=True, create=True)
    file.write_at(0, bytes(garbage))
    file.flush()
    machine.open()
    with machine.reader("drive-b") as reader:
        assert reader.read_blob(blob_of(machine, b"k"), 0, len(DATA)) == DATA
        assert machine.suspects == []


def _lacking(machine: Machine, drive: str) -> Staged:
    """Staged on the other drive alone."""
    staged, store = machine.stage(DATA), machine.store
    assert store is not None
    store.members[drive].unlink(staged_path(GATEWAY, staged.blob_id))
    return staged._replace(stamps={d: s for d, s in staged.stamps.items() if d != drive})


def _hold(machine: Machine, *drives: str) -> None:
    store = machine.store
    assert store is not None
    assert list(store.members) == list(drives)
    for disk in machine.disks.values():
        disk.hook = None
    for drive in drives:
        with machine.reader(drive) as reader:
            assert reader.read_blob(blob_of(machine, b"k"), 0, len(DATA)) == DATA
            assert machine.suspects == []


@pytest.mark.parametrize("fate", ["gone", "shorter", "gone meanwhile"])
def test_a_staged_file_that_is_not_there_is_not_adopted(machine: Machine, fate: str) -> None:
    """Its gateway's word that it was flushed is not enough: the other drive alone would hold it."""
    store = machine.open()
    staged = machine.stage(DATA)
    disk, path = machine.disks["drive-b"], staged_path(GATEWAY, staged.blob_id)

    def vanish(operation: Operation) -> None:
        if operation.kind == "rename":
            raise DriveFault("drive-b", "rename", errno.ENOENT)

    volume = store.members["drive-b"]
    if fate == "gone":
        volume.unlink(path)
    elif fate == "shorter":
        volume.open(path, write=True).truncate(file_bytes(len(DATA)) - 1)
    else:
        disk.hook = vanish
    (outcome,) = store.commit([_order(b"k", 1, staged)])
    assert isinstance(outcome, MembershipChanged)
    disk.hook = None
    commit(store, _order(b"k", 2, machine.stage(DATA)))
    _hold(machine, "drive-a", "drive-b")


def test_a_blob_one_drive_lacks_is_copied_to_it(machine: Machine) -> None:
    store = machine.open()
    commit(store, _order(b"k", 1, _lacking(machine, "drive-b")))
    _hold(machine, "drive-a", "drive-b")


def test_a_blob_that_is_gone_where_it_was_staged_is_written_again(machine: Machine) -> None:
    store = machine.open()
    staged = _lacking(machine, "drive-b")
    store.members["drive-a"].unlink(staged_path(GATEWAY, staged.blob_id))
    (outcome,) = store.commit([_order(b"k", 1, staged)])
    assert isinstance(outcome, MembershipChanged)
    assert len(store.members) == 2


@pytest.mark.parametrize(
    ("drive", "kind", "code"),
    [
        ("drive-b", "create", errno.ENOSPC),
        ("drive-b", "create", errno.EIO),
        ("drive-b", "write", errno.EIO),
        ("drive-a", "read", errno.EIO),
    ],
)
def test_a_copy_for_an_adoption_that_fails(
    machine: Machine, drive: str, kind: str, code: int
) -> None:
    """A drive is let go for what it was asked to write itself, and for nothing else."""
    store = machine.open()
    staged = _lacking(machine, "drive-b")

    def fail(operation: Operation) -> None:
        if operation.kind == kind and operation.path.startswith("staging/"):
            raise DriveFault(drive, kind, code)

    machine.disks[drive].hook = fail
    (outcome,) = store.commit([_order(b"k", 1, staged)])
    if code == errno.ENOSPC:
        assert isinstance(outcome, NoSpace)
        assert len(store.members) == 2
    elif kind == "read":
        assert isinstance(outcome, MembershipChanged)
        assert len(store.members) == 2
    else:
        assert isinstance(outcome, int)
        _hold(machine, "drive-a")


def test_a_drive_that_does_not_drop_a_blob_is_let_go(machine: Machine) -> None:
    store = machine.open()
    commit(store, _order(b"k", 1, machine.stage(DATA)))
    commit(store, delete(b"k", 2))
    machine.disks["drive-b"].fail_at(1, errno.EIO, kinds=frozenset({"unlink"}))
    store.checkpoint()
    machine.clock.sleep_s(7200)
    store.step()
    assert list(store.members) == ["drive-a"]
