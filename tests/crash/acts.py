"""What the crash tests do to a machine, in short words."""

from __future__ import annotations

from appliance.engine.interface import BlobRef
from appliance.engine.mirror.messages import CommitOrder, Order
from appliance.engine.mirror.store import Store
from tests.crash.history import PARTITION
from tests.crash.machine import Machine


def put(key: bytes, number: int, blob: bytes | None = b"x" * 3000) -> CommitOrder:
    """A commit of one put."""
    order = Order(key, b"0:%d" % number, b"", blob)
    return CommitOrder(PARTITION.encode(), number.to_bytes(16, "big"), [order], [], [])


def delete(key: bytes, number: int) -> CommitOrder:
    """A commit of one delete."""
    return CommitOrder(PARTITION.encode(), number.to_bytes(16, "big"), [Order(key, None)], [], [])


def put_staged(machine: Machine, key: bytes, number: int, data: bytes) -> None:
    """Stage a large blob and commit it."""
    store = machine.store
    assert store is not None
    staged = machine.stage(data)
    commit(store, put(key, number)._replace(orders=[Order(key, b"0:", b"", staged)]))


def commit(store: Store, order: CommitOrder) -> int:
    """Make it; it must pass."""
    (outcome,) = store.commit([order])
    assert isinstance(outcome, int), outcome
    return outcome


def blob_of(machine: Machine, key: bytes) -> BlobRef:
    """The blob of a record that must have one."""
    with machine.reader() as reader:
        (record,) = reader.read(PARTITION, [key])
    assert record is not None
    assert record.blob is not None
    return record.blob


def bring_back(machine: Machine, drive: str) -> None:
    """A drive returns and is brought in sync."""
    store = machine.store
    assert store is not None
    machine.disks[drive].hook = None
    machine.disks[drive].insert(machine.rng)
    store.add_outsider(machine.disks[drive].mount())
    resync = store.begin_resync(drive)
    resync.copy()
    while not store.finish_resync(resync):
        resync.copy()
