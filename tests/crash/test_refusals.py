"""A commit that may not be is refused as a whole, and nothing of it is there afterwards."""

from __future__ import annotations

import errno

import pytest

from appliance.core.errors import (
    Conflict,
    DataLost,
    DriveFault,
    InvalidInput,
    LimitExceeded,
    Unavailable,
)
from appliance.engine.interface import Charge
from appliance.engine.mirror.format import encode_charges
from appliance.engine.mirror.messages import CommitOrder, Demand, Order
from appliance.engine.mirror.place import InlinePlace, decode_place
from appliance.engine.mirror.segment import segment_path
from tests.crash.acts import blob_of, commit, put
from tests.crash.history import PARTITION
from tests.crash.machine import SEGMENT_BYTES, Machine
from tests.crash.simulated import Operation

ABSENT, PRESENT, VERSION, EMPTY = range(4)


def _refused(machine: Machine, order: CommitOrder, error: type[Exception]) -> None:
    store = machine.store
    assert store is not None
    before = [disk.digest() for disk in machine.disks.values()]
    (outcome,) = store.commit([order])
    assert isinstance(outcome, error), outcome
    assert [disk.digest() for disk in machine.disks.values()] == before
    with machine.reader() as reader:
        assert reader.read(PARTITION, [b"new"]) == [None]


def test_expectations(machine: Machine) -> None:
    store = machine.open()
    version = commit(store, put(b"old", 1))
    new = put(b"new", 2)
    for demand in (
        Demand(ABSENT, b"old"),
        Demand(PRESENT, b"new"),
        Demand(VERSION, b"old", version + 1),
        Demand(VERSION, b"new", version),
        Demand(EMPTY, b"o", b"p"),
    ):
        _refused(machine, new._replace(demands=[demand]), Conflict)
    passing = [
        Demand(PRESENT, b"old"),
        Demand(ABSENT, b"new"),
        Demand(VERSION, b"old", version),
        Demand(EMPTY, b"n", b"o"),
    ]
    commit(store, new._replace(demands=passing))


def test_limits(machine: Machine) -> None:
    store = machine.open()

    def charged(key: bytes, number: int, amount: int, maximum: int) -> CommitOrder:
        order = Order(key, b"0:", encode_charges([Charge(b"bytes", amount)]))
        return put(key, number)._replace(orders=[order], limits=[(b"bytes", maximum)])

    commit(store, charged(b"old", 1, 5, 5))
    _refused(machine, charged(b"new", 2, 1, 5), LimitExceeded)
    commit(store, charged(b"old", 3, 4, 5))  # what is replaced is given back
    commit(store, charged(b"more", 4, 1, 5))
    commit(store, charged(b"old", 5, 4, 1))  # takes no more, though it is over by now
    _refused(machine, charged(b"new", 6, 1, 5), LimitExceeded)


def test_more_than_fits_into_one_commit(machine: Machine) -> None:
    machine.open()
    _refused(machine, put(b"new", 1, b"x" * SEGMENT_BYTES), InvalidInput)


def test_a_kept_blob_whose_drives_do_not_answer_now_is_not_called_lost(machine: Machine) -> None:
    store = machine.open()
    commit(store, put(b"old", 1, b"q" * 9_000))
    moved = put(b"new", 2)._replace(orders=[Order(b"new", b"0:", keep=b"old"), Order(b"old", None)])

    def no_reads(operation: Operation) -> None:
        if operation.kind == "read":
            raise DriveFault("sick", "reading", errno.EIO)

    for disk in machine.disks.values():
        disk.hook = no_reads
    (refusal,) = store.commit([moved])
    assert isinstance(refusal, Unavailable) and not isinstance(refusal, DataLost)
    for disk in machine.disks.values():
        disk.hook = None
    commit(store, moved)
    with machine.reader() as reader:
        assert reader.read_blob(blob_of(machine, b"new"), 0, 9_000) == b"q" * 9_000


@pytest.mark.parametrize("rotten", [("drive-a",), ("drive-b",), ("drive-a", "drive-b")])
def test_a_kept_blob_that_cannot_be_read(machine: Machine, rotten: tuple[str, ...]) -> None:
    """One good copy is enough; without any, the record that has it stays as it is."""
    store = machine.open()
    commit(store, put(b"old", 1, b"q" * 9_000))
    place = decode_place(blob_of(machine, b"old").place)
    assert isinstance(place, InlinePlace)
    for drive in rotten:
        location = place.location
        path = segment_path(location.segment)
        machine.disks[drive].flip(path, location.offset + location.length - 10)
    moved = put(b"new", 2)._replace(orders=[Order(b"new", b"0:", keep=b"old"), Order(b"old", None)])
    if len(rotten) == 2:
        _refused(machine, moved, DataLost)
        return
    commit(store, moved)
    for drive in store.members:
        with machine.reader(drive) as reader:
            assert reader.read_blob(blob_of(machine, b"new"), 0, 9_000) == b"q" * 9_000
