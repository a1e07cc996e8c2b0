"""What a brief absence costs, and when a returning drive is believed.

A drive that was only taken away is believed in what it had flushed: the return reads and copies
what changed. One that left because a call on it failed, or that does not have what it had, is
compared in full. Bytes are counted by the drives themselves.
"""

from __future__ import annotations

import errno
from collections import Counter

import pytest

from appliance.engine.mirror.blob import blob_path
from appliance.engine.mirror.digest import digest
from appliance.engine.mirror.place import FilePlace, InlinePlace, decode_place
from appliance.engine.mirror.resync import Resync
from appliance.engine.mirror.segment import segment_path
from appliance.engine.mirror.trust import DOUBTED_BATCHES
from tests.crash.acts import blob_of, commit, put, put_staged
from tests.crash.machine import SEGMENT_BYTES, Machine
from tests.crash.simulated import Operation

BLOB_BYTES = 150_000
OLD_BLOBS = 60


def _count(machine: Machine, drive: str) -> Counter[str]:
    """Bytes moved on a drive by kind, from now on."""
    moved: Counter[str] = Counter()

    def hook(operation: Operation) -> None:
        moved[operation.kind] += operation.length

    machine.disks[drive].hook = hook
    return moved


def _fill(machine: Machine) -> None:
    """Old blobs in files, then so many batches that nothing of them is doubted."""
    store = machine.open()
    for number in range(OLD_BLOBS):
        put_staged(machine, b"blob %d" % number, number + 1, machine.rng.randbytes(BLOB_BYTES))
    for number in range(DOUBTED_BATCHES + 30):
        commit(store, put(b"small %d" % number, 1000 + number, b"s" * 12_000))


def _return(machine: Machine, drive: str = "drive-b") -> Resync:
    store = machine.store
    assert store is not None
    if drive not in store.outsiders():
        machine.disks[drive].insert(machine.rng)
        store.add_outsider(machine.disks[drive].mount())
    resync = store.begin_resync(drive)
    resync.copy()
    while not store.finish_resync(resync):
        resync.copy()
    return resync


def _assert_equal_copies(machine: Machine) -> None:
    store = machine.store
    assert store is not None
    assert len(store.members) == 2
    assert len({digest(member) for member in store._state.members.values()}) == 1


def test_a_brief_absence_costs_what_changed(machine: Machine) -> None:
    _fill(machine)
    store = machine.store
    assert store is not None
    store.lose("drive-b", "pulled")
    put_staged(machine, b"new", 5000, machine.rng.randbytes(BLOB_BYTES))
    commit(store, put(b"small", 5001, b"n" * 5_000))
    source, target = _count(machine, "drive-a"), _count(machine, "drive-b")
    resync = _return(machine)
    assert resync.trust.believed
    held = OLD_BLOBS * BLOB_BYTES + (DOUBTED_BATCHES + 30) * 12_000
    changed = BLOB_BYTES + 5_000
    print(
        f"held {held}, changed {changed}, read {source['read']} and {target['read']}, "
        f"written {target['write']}"
    )
    assert held > 60 * changed
    # The segment it left in is compared whole, whatever changed, and read for the proof before and
    # after; one more was entered. Nothing of this grows with what is held.
    assert source["read"] <= changed + 4 * SEGMENT_BYTES
    assert target["read"] <= changed + 6 * SEGMENT_BYTES
    assert changed <= target["write"] <= changed + 3 * SEGMENT_BYTES
    assert source["write"] < SEGMENT_BYTES
    _assert_equal_copies(machine)


def test_a_drive_that_was_away_at_a_start_is_believed_too(machine: Machine) -> None:
    _fill(machine)
    machine.drop_store()
    store = machine.open("drive-a")
    commit(store, put(b"alone", 6000))
    target = _count(machine, "drive-b")
    resync = _return(machine)
    assert resync.trust.believed
    assert target["read"] < OLD_BLOBS * BLOB_BYTES // 2
    _assert_equal_copies(machine)


@pytest.mark.parametrize("kind", ["write", "flush"])
def test_a_drive_that_failed_is_compared_in_full(machine: Machine, kind: str) -> None:
    """It may have lost anything: rot in an old blob and in a sealed segment is cured, though no
    reader met it."""
    _fill(machine)
    store = machine.store
    assert store is not None
    blob = decode_place(blob_of(machine, b"blob 3").place)
    small = decode_place(blob_of(machine, b"small 2").place)
    assert isinstance(blob, FilePlace)
    assert isinstance(small, InlinePlace)
    failing = "write" if kind == "write" else "flush_directory"
    machine.disks["drive-b"].fail_at(1, errno.EIO, kinds=frozenset({failing}))
    if kind == "write":
        commit(store, put(b"new", 5000))
    else:
        put_staged(machine, b"new", 5000, machine.rng.randbytes(BLOB_BYTES))
    assert list(store.members) == ["drive-a"]
    machine.disks["drive-b"].flip(blob_path(blob.blob_id), 70_000)
    machine.disks["drive-b"].flip(segment_path(small.location.segment), small.location.offset + 200)
    target = _count(machine, "drive-b")
    resync = _return(machine)
    assert not resync.trust.believed
    assert target["read"] > OLD_BLOBS * BLOB_BYTES
    assert target["write"] < OLD_BLOBS * BLOB_BYTES // 2, "what is equal is not copied"
    _assert_equal_copies(machine)


def test_why_it_left_outlives_the_store(machine: Machine) -> None:
    _fill(machine)
    store = machine.store
    assert store is not None
    machine.disks["drive-b"].fail_at(1, errno.EIO, kinds=frozenset({"write"}))
    commit(store, put(b"new", 5000))
    machine.drop_store()
    machine.disks["drive-b"].hook = None
    machine.disks["drive-b"].insert(machine.rng)
    machine.open()
    assert not _return(machine).trust.believed
    machine.drop_store()
    store = machine.open()
    store.lose("drive-b", "pulled")
    machine.drop_store()
    machine.open()
    assert _return(machine).trust.believed


def test_a_drive_that_had_read_errors_is_not_believed(machine: Machine) -> None:
    _fill(machine)
    store = machine.store
    assert store is not None
    store._state.members["drive-b"].read_errors += 1
    store.lose("drive-b", "pulled")
    assert not _return(machine).trust.believed
    _assert_equal_copies(machine)


def test_what_was_written_last_is_read_all_the_same(machine: Machine) -> None:
    """A drive that lied about its flushes lost what it was given last."""
    _fill(machine)
    store = machine.store
    assert store is not None
    data = machine.rng.randbytes(BLOB_BYTES)
    put_staged(machine, b"last", 5000, data)
    last = decode_place(blob_of(machine, b"last").place)
    assert isinstance(last, FilePlace)
    store.lose("drive-b", "pulled")
    machine.disks["drive-b"].overwrite(blob_path(last.blob_id), 0, bytes(BLOB_BYTES))
    assert _return(machine).trust.believed
    with machine.reader("drive-b") as reader:
        assert reader.read_blob(blob_of(machine, b"last"), 0, BLOB_BYTES) == data
    _assert_equal_copies(machine)


@pytest.mark.parametrize("fate", ["gone", "short"])
def test_a_believed_drive_without_a_blob_gets_it(machine: Machine, fate: str) -> None:
    _fill(machine)
    store = machine.store
    assert store is not None
    blob = decode_place(blob_of(machine, b"blob 3").place)
    assert isinstance(blob, FilePlace)
    store.lose("drive-b", "pulled")
    volume = machine.disks["drive-b"].mount()
    if fate == "gone":
        volume.unlink(blob_path(blob.blob_id))
    else:
        volume.open(blob_path(blob.blob_id), write=True).truncate(1000)
    assert _return(machine).trust.believed
    _assert_equal_copies(machine)


def test_a_lost_last_batch_shows_that_it_is_not_what_it_was(machine: Machine) -> None:
    """Its log ends before the leave: it went back to an older state."""
    _fill(machine)
    store = machine.store
    assert store is not None
    image = machine.disks["drive-b"].image()
    commit(store, put(b"after", 5000))
    store.lose("drive-b", "pulled")
    machine.disks["drive-b"].restore_image(image)
    assert not _return(machine).trust.believed
    _assert_equal_copies(machine)


def test_a_return_that_was_cut_short_copies_nothing_twice(machine: Machine) -> None:
    _fill(machine)
    store = machine.store
    assert store is not None
    machine.disks["drive-b"].restore_image({"": None})
    store.lose("drive-b", "pulled")
    store.add_outsider(machine.disks["drive-b"].mount())
    first = store.begin_resync("drive-b")
    first.copy()
    machine.drop_store()
    store = machine.open()
    target = _count(machine, "drive-b")
    _return(machine)
    assert target["write"] < 2 * SEGMENT_BYTES
    assert target["read"] > OLD_BLOBS * BLOB_BYTES, "but nothing of it is taken on trust"
    _assert_equal_copies(machine)
