"""What a returning drive's log may keep of its own; it is proven before the drive counts."""

from __future__ import annotations

import errno

import pytest

from appliance.core.errors import Refused
from appliance.engine.mirror.format import decode_batch, encode_batch
from appliance.engine.mirror.place import InlinePlace, decode_place
from appliance.engine.mirror.resync import Resync
from appliance.engine.mirror.segment import FIRST_OFFSET, segment_ids, segment_path
from appliance.engine.mirror.store import Store
from tests.crash.acts import blob_of, bring_back, commit, put
from tests.crash.machine import Machine
from tests.crash.simulated_volume import Inode


def _begin(machine: Machine) -> Resync:
    store = machine.store
    assert store is not None
    disk = machine.disks["drive-b"]
    disk.hook = None
    disk.insert(machine.rng)
    store.add_outsider(disk.mount())
    return store.begin_resync("drive-b")


def _bring_in(store: Store, resync: Resync) -> None:
    resync.copy()
    while not store.finish_resync(resync):
        resync.copy()


def _batch_at(machine: Machine, key: bytes) -> tuple[str, int]:
    """The segment's path and where the batch with this record begins."""
    place = decode_place(blob_of(machine, key).place)
    assert isinstance(place, InlinePlace)
    return segment_path(place.location.segment), place.location.offset // 4096 * 4096


def _forge(machine: Machine, path: str, offset: int) -> None:
    """A whole batch of the same place and length, but of another history."""
    disk = machine.disks["drive-b"]
    batch = decode_batch(disk.contents()[path][offset:])
    records = [entry.record for entry in batch.entries]
    records[0] = records[0]._replace(blob=b"y" * len(records[0].blob))
    forged = encode_batch(batch.header.place, records)
    assert len(forged.data) == len(batch.data) and forged.header.crc != batch.header.crc
    disk.overwrite(path, offset, forged.data)


@pytest.mark.parametrize("rotten", [[b"k2"], [b"k2", b"k3"]], ids=["one batch", "two in a row"])
def test_batches_of_another_history_are_not_kept_where_the_member_rotted(
    machine: Machine, rotten: list[bytes]
) -> None:
    """They are whole, but do not link the good ones before and behind: what was there is lost, and
    said to be."""
    store = machine.open()
    for number in range(1, 6):
        commit(store, put(b"k%d" % number, number))
    machine.disks["drive-b"].fail_at(1, errno.EIO, kinds=frozenset({"write"}))
    commit(store, put(b"alone", 10))
    assert list(store.members) == ["drive-a"]
    _forge(machine, *_batch_at(machine, b"k2"))
    for key in rotten:
        path, offset = _batch_at(machine, key)
        machine.disks["drive-a"].flip(path, offset + 500)
    resync = _begin(machine)
    _bring_in(store, resync)
    assert resync.progress.lost, "nobody has the batches of the members' history any more"


def test_a_copy_of_the_log_that_does_not_end_as_the_members_does_not_count(
    machine: Machine,
) -> None:
    """A drive that says it wrote and did not."""
    store = machine.open()
    commit(store, put(b"k1", 1))
    store.lose("drive-b", "pulled")
    commit(store, put(b"k2", 2))
    resync = _begin(machine)
    disk = machine.disks["drive-b"]
    write = disk.write

    def losing(inode: Inode, path: str, offset: int, data: bytes, *, durable: bool) -> None:
        if not path.startswith("log/") or offset < FIRST_OFFSET:
            write(inode, path, offset, data, durable=durable)

    vars(disk)["write"] = losing
    with pytest.raises(Refused, match="its copy of the log differs"):
        _bring_in(store, resync)
    store.abandon_resync(resync)
    assert list(store.members) == ["drive-a"]
    del vars(disk)["write"]
    bring_back(machine, "drive-b")
    with machine.reader("drive-b") as reader:
        assert reader.read_blob(blob_of(machine, b"k2"), 0, 3000) == b"x" * 3000


def test_segments_the_members_do_not_have_are_removed(machine: Machine) -> None:
    store = machine.open()
    commit(store, put(b"k1", 1))
    store.lose("drive-b", "pulled")
    disk = machine.disks["drive-b"]
    disk.insert(machine.rng)
    volume = disk.mount()
    foreign = volume.open(segment_path(0x77), write=True, create=True)
    foreign.write_at(0, b"f" * 8192)
    foreign.flush()
    volume.flush_directory("log")
    _bring_in(store, _begin(machine))
    own, others = (segment_ids(store.members[drive]) for drive in ("drive-b", "drive-a"))
    assert own == others
