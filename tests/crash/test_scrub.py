"""A scrub of simulated drives: what rots is found and mended, what does not is left alone."""

from __future__ import annotations

import errno

import pytest

from appliance.core.errors import DriveFault
from appliance.core.scrubs import DriveScrub
from appliance.engine.mirror.blob import blob_path
from appliance.engine.mirror.scrub import PROVEN
from appliance.engine.mirror.scrub_tally import Cursor, Tally
from appliance.engine.mirror.segment import segment_path
from appliance.engine.mirror.store import Store
from tests.crash.acts import commit, put
from tests.crash.history import PARTITION
from tests.crash.machine import DRIVES, Machine
from tests.crash.scrubbing import (
    fill,
    in_file,
    in_inline,
    repaired_to,
    scrub,
    stable,
)
from tests.crash.simulated import Operation


def test_a_healthy_mirror_is_read_whole_and_not_a_byte_of_it_is_changed(machine: Machine) -> None:
    fill(machine)
    before, writes = stable(machine), []
    for disk in machine.disks.values():
        disk.hook = lambda operation: writes.append(operation) if operation.kind != "read" else None
    done = scrub(machine)
    assert writes == []
    repaired_to(machine, before, done)
    read = {drive: done.tally.of(drive).read_bytes for drive in DRIVES}
    assert min(read.values()) >= done.tally.total_bytes > 1_000_000
    assert done.tally.done_bytes == done.tally.total_bytes
    assert [done.found(drive) for drive in DRIVES] == [DriveScrub(), DriveScrub()]


@pytest.mark.parametrize("drive", DRIVES)
@pytest.mark.parametrize("what", ["inline", "large", "batch header", "padding", "segment header"])
def test_a_flipped_bit_is_found_and_mended_from_the_other_drive(
    machine: Machine, drive: str, what: str
) -> None:
    fill(machine)
    path, offset = in_inline(machine, b"inline 7")
    found = DriveScrub(bad_batches=1, repaired=1)
    if what == "large":
        path, offset = in_file(machine, b"large 10")
        found = DriveScrub(bad_blobs=1, repaired=1)
    elif what == "segment header":
        offset, found = 30, DriveScrub(bad_segments=1, repaired=1)
    elif what == "batch header":
        offset = 4096 + 20
    elif what == "padding":
        store = machine.store
        assert store is not None
        commit(store, put(b"last", 4000, b"x" * 10))
        tail = store._state.planner.tail
        path, offset = segment_path(tail.segment), tail.offset - 1
    before = stable(machine)
    machine.disks[drive].flip(path, offset, 3)
    done = scrub(machine)
    repaired_to(machine, before, done)
    assert done.found(drive) == found
    other = next(name for name in DRIVES if name != drive)
    assert done.found(other) == DriveScrub()
    store = machine.store
    assert store is not None
    health = {member.drive_id: member for member in store.health().members}
    assert (health[drive].read_errors, health[drive].repaired) == (1, 1)


def test_what_is_missing_is_given_back(machine: Machine) -> None:
    store = fill(machine)
    before = stable(machine)
    segment, _ = in_inline(machine, b"inline 7")
    free = segment_path(store._state.planner.table.free()[0].segment)
    blob, _ = in_file(machine, b"large 10")
    _unlink(store, "drive-a", segment)
    _unlink(store, "drive-a", free)
    _unlink(store, "drive-b", blob)
    done = scrub(machine)
    repaired_to(machine, before, done)
    assert done.found("drive-a") == DriveScrub(missing_files=2, repaired=2)
    assert done.found("drive-b") == DriveScrub(missing_files=1, repaired=1)


def _unlink(store: Store, drive: str, path: str) -> None:
    volume = store.members[drive]
    volume.unlink(path)
    volume.flush_directory(path.rpartition("/")[0])


def test_a_whole_directory_of_blobs_that_is_gone_is_given_back(machine: Machine) -> None:
    store = fill(machine)
    before = stable(machine)
    blob, _ = in_file(machine, b"large 10")
    tree = machine.disks["drive-a"].tree
    _unlink(store, "drive-a", blob)
    del tree[blob.rpartition("/")[0]]
    done = scrub(machine)
    assert done.found("drive-a") == DriveScrub(missing_files=1, repaired=1)
    repaired_to(machine, before, done)


def test_files_nobody_owns_are_dropped_and_counted(machine: Machine) -> None:
    store = fill(machine)
    store.sweep_orphans()
    before = stable(machine)
    stray = machine.stage(b"s" * 1000)
    volume = store.members["drive-b"]
    volume.make_directory(blob_path(stray.blob_id).rpartition("/")[0])
    volume.rename(f"staging/gateway-1/{stray.blob_id.hex()}", blob_path(stray.blob_id))
    done = scrub(machine)
    assert done.found("drive-b") == DriveScrub(orphan_files=1)
    assert done.found("drive-a") == DriveScrub()
    assert volume.stat(blob_path(stray.blob_id)) is None
    assert before


@pytest.mark.parametrize("fault", ["lost", "misdirected"])
@pytest.mark.parametrize("drive", DRIVES)
def test_a_write_that_went_nowhere_or_elsewhere_is_found(
    machine: Machine, drive: str, fault: str
) -> None:
    store = fill(machine)
    store.step()  # segments are there: the next write is the commit's
    disk = machine.disks[drive]
    if fault == "lost":
        disk.lost_writes = {disk.operations + 1}
    else:
        disk.misdirected_writes = {disk.operations + 1: 8192}
    commit(store, put(b"victim", 5000, b"v" * 3000))
    disk.lost_writes, disk.misdirected_writes = set(), {}
    commit(store, put(b"behind it", 5001))
    done = scrub(machine)
    found = done.found(drive)
    assert found.bad_batches == found.repaired >= (1 if fault == "lost" else 2)
    assert done.tally.index == PROVEN
    other = next(name for name in DRIVES if name != drive)
    assert done.found(other) == DriveScrub()
    contents = [disk.contents() for disk in machine.disks.values()]
    used = [segment.segment for segment in store._state.planner.table.used()]
    for segment in used:
        path = segment_path(segment)
        assert contents[0][path] == contents[1][path]


def test_rot_in_free_space_is_nobodys_loss(machine: Machine) -> None:
    store = fill(machine)
    free = segment_path(store._state.planner.table.free()[0].segment)
    tail = store._state.planner.tail
    for disk in machine.disks.values():
        disk.flip(free, 100_000)
        disk.flip(segment_path(tail.segment), tail.offset + 5000)
    before = stable(machine)
    done = scrub(machine)
    repaired_to(machine, before, done)
    assert [done.found(drive) for drive in DRIVES] == [DriveScrub(), DriveScrub()]
    machine.disks["drive-b"].flip(free, 20)
    done = scrub(machine)
    repaired_to(machine, before, done)
    assert done.found("drive-b") == DriveScrub(bad_segments=1, repaired=1)


def test_two_copies_bad_in_different_blocks_are_put_together(machine: Machine) -> None:
    fill(machine)
    before = stable(machine)
    path, offset = in_inline(machine, b"inline 7")
    machine.disks["drive-a"].flip(path, offset)
    machine.disks["drive-b"].flip(path, offset + 8192)
    done = scrub(machine)
    repaired_to(machine, before, done)
    assert [done.found(drive) for drive in DRIVES] == [DriveScrub(bad_batches=1, repaired=1)] * 2


def test_what_is_bad_on_both_drives_is_named_and_nothing_else_is_touched(machine: Machine) -> None:
    fill(machine)
    for path, offset in (in_inline(machine, b"inline 7"), in_file(machine, b"large 10")):
        for disk in machine.disks.values():
            disk.flip(path, offset)
    before = stable(machine)
    named = sorted(_masked(machine, key) for key in (b"inline 7", b"large 10"))
    for _ in range(2):
        done = scrub(machine)
        assert done.finished
        assert stable(machine) == before
        expected = DriveScrub(bad_batches=1, bad_blobs=1, unrepairable=2)
        assert [done.found(drive) for drive in DRIVES] == [expected] * 2
        assert sorted(done.tally.lost) == named
        assert done.tally.index.startswith("not proven: parts of the log are lost")


def _masked(machine: Machine, key: bytes) -> str:
    """How an operator is told of a record: by its number, not by its key."""
    with machine.reader() as reader:
        (record,) = reader.read(PARTITION, [key])
    assert record is not None
    return f"a record (contract {PARTITION}, record {record.version:x})"


def test_a_segment_whose_middle_is_gone_on_one_drive_is_mended_batch_by_batch(
    machine: Machine,
) -> None:
    fill(machine)
    before = stable(machine)
    path, _ = in_inline(machine, b"inline 7")
    machine.disks["drive-b"].overwrite(path, 4096, bytes(150_000))
    done = scrub(machine)
    repaired_to(machine, before, done)
    found = done.found("drive-b")
    assert found.bad_batches == found.repaired > 3


def test_blocks_that_cannot_be_read_are_written_anew(machine: Machine) -> None:
    fill(machine)
    before = stable(machine)
    path, offset = in_inline(machine, b"inline 7")
    disk = machine.disks["drive-a"]
    bad = offset // 4096 * 4096
    healed = []

    def hook(operation: Operation) -> None:
        if operation.path != path:
            return
        if operation.kind == "write" and operation.offset <= bad:
            healed.append(operation)
        covers = operation.offset <= bad < operation.offset + operation.length
        if operation.kind == "read" and covers and not healed:
            raise DriveFault(disk.name, "read", errno.EIO)

    disk.hook = hook
    done = scrub(machine)
    repaired_to(machine, before, done)
    assert done.found("drive-a") == DriveScrub(bad_batches=1, repaired=1)
    assert len(machine.disks) == len(machine.store.members if machine.store else ())


def test_a_drive_that_does_not_take_the_repair_leaves_the_mirror(machine: Machine) -> None:
    store = fill(machine)
    path, offset = in_inline(machine, b"inline 7")
    disk = machine.disks["drive-a"]
    disk.flip(path, offset)
    disk.fail_at(1, errno.EIO, kinds=frozenset({"write"}), persistent=True)
    done = scrub(machine)
    assert list(store.members) == ["drive-b"]
    assert done.found("drive-a") == DriveScrub(bad_batches=1, unrepairable=1)
    commit(store, put(b"after", 7000))


def test_a_failing_drive_interrupts_the_scrub_which_goes_on_where_it_was(machine: Machine) -> None:
    store = fill(machine)
    disk = machine.disks["drive-b"]

    def fail(piece: int) -> None:
        if piece == 9:
            disk.fail_at(1, errno.ENODEV, kinds=frozenset({"read"}), persistent=True)

    tally = Tally()
    with pytest.raises(DriveFault):
        scrub(machine, fail, tally)
    cursor = tally.cursor
    assert cursor != Cursor()
    store.lose("drive-b", "it failed")
    done = scrub(machine, tally=tally)
    assert done.finished
    assert done.tally.index == PROVEN
    assert done.tally.of("drive-a").read_bytes > 0


def test_a_mirror_of_one_drive_is_scrubbed_as_far_as_it_goes(machine: Machine) -> None:
    store = fill(machine)
    store.lose("drive-b", "pulled")
    machine.disks["drive-a"].flip(*in_file(machine, b"large 10"))
    done = scrub(machine)
    assert done.finished
    assert done.found("drive-a") == DriveScrub(bad_blobs=1, unrepairable=1)
    assert done.tally.lost == [_masked(machine, b"large 10")]
    assert done.tally.index == PROVEN
