"""What exploring crash states has found, each as small as it can be told."""

from __future__ import annotations

import errno
import shutil

import pytest

from appliance.core.errors import DriveFault, Refused
from appliance.engine.mirror.assembled import Orders
from appliance.engine.mirror.messages import Order
from appliance.engine.mirror.place import InlinePlace, decode_place
from appliance.engine.mirror.scrub import PROVEN
from appliance.engine.mirror.segment import (
    FIRST_OFFSET,
    SegmentHeader,
    SegmentState,
    encode_segment_header,
    segment_path,
)
from tests.crash.acts import blob_of, bring_back, commit, delete, put
from tests.crash.history import PARTITION
from tests.crash.images import BLOCK_BYTES, Content
from tests.crash.machine import MIRROR_ID, Machine
from tests.crash.scrubbing import scrub
from tests.crash.simulated import Operation
from tests.crash.world import read_files, write_files


def test_a_drive_that_went_back_in_time_gets_its_blobs_again(machine: Machine) -> None:
    """Its log was made whole, but of the blobs only the last batch's were looked at."""
    store = machine.open()
    commit(store, put(b"early", 1))
    image = machine.disks["drive-a"].image()
    data = machine.rng.randbytes(70_000)
    commit(store, put(b"k", 2)._replace(orders=[Order(b"k", b"0:", b"", machine.stage(data))]))
    commit(store, put(b"later", 3))
    commit(store, put(b"last", 4))
    machine.drop_store()
    machine.disks["drive-a"].restore_image(image)
    store = machine.open()
    assert len(store.members) == 2
    assert any("lacks batches" in alert for alert in machine.alerts)
    with machine.reader("drive-a") as reader:
        assert reader.read_blob(blob_of(machine, b"k"), 0, len(data)) == data


def test_a_bad_header_of_a_segment_that_was_never_used_is_no_loss(machine: Machine) -> None:
    """The power went when one drive had a new segment and the other had not, and it rots there."""
    store = machine.open()
    commit(store, put(b"k", 1))
    machine.drop_store()
    disk = machine.disks["drive-a"]
    image = disk.image()
    disk.restore_image({**image, "log/00000009": image["log/00000002"]})
    disk.flip("log/00000009", 20)
    store = machine.open()
    assert store.losses == []
    assert not store.stopped
    assert len(store.members) == 2
    assert "log/00000009" not in disk.contents()


def test_rot_in_the_first_batch_of_the_newest_segment_is_repaired(machine: Machine) -> None:
    """It was taken for a missing end of the segment before, where there was nothing to repair."""
    store = machine.open()
    first = store._state.planner.tail.segment
    number = 0
    while store._state.planner.tail.segment == first:
        number += 1
        commit(store, put(b"k%d" % number, number, b"z" * 20_000))
    segment = store._state.planner.tail.segment
    commit(store, put(b"behind it", 1000))
    machine.drop_store()
    machine.disks["drive-b"].flip(segment_path(segment), FIRST_OFFSET + 200)
    shutil.rmtree(machine.index_directory)
    machine.index_directory.mkdir()
    store = machine.open()
    assert list(store.members) == ["drive-a", "drive-b"]
    assert store.recovery.repaired == {"drive-b": 1}
    assert machine.disks["drive-a"].contents() == machine.disks["drive-b"].contents() | {
        "superblock": machine.disks["drive-a"].contents()["superblock"]
    }


@pytest.mark.parametrize("restarts", [True, False])
def test_a_drive_and_the_witness_that_went_back_together_are_not_served(
    machine: Machine, restarts: bool
) -> None:
    """Two of three voters. The third one, which joined since, shows a later heartbeat."""
    store = machine.open()
    images = {disk: disk.image() for disk in (machine.disks["drive-a"], machine.witness)}
    store.lose("drive-b", "pulled")
    bring_back(machine, "drive-b")
    if restarts:
        machine.drop_store()
        store = machine.open()
    commit(store, put(b"k", 1))
    machine.drop_store()
    for disk, image in images.items():
        disk.restore_image(image)
    with pytest.raises(Refused, match="rolled back"):
        machine.open()
    store = machine.open(orders=Orders(waited=True, forced=True))
    assert list(store.members) == ["drive-a"], "as the operator ordered"


@pytest.mark.parametrize("good_reads", range(6))
def test_a_log_that_stops_being_readable_is_never_half_applied(
    machine: Machine, good_reads: int
) -> None:
    """A block that could be read while the logs were compared, and not when the index was built,
    was passed over, and what it held was served as absent."""
    store = machine.open()
    for number in range(1, 6):
        commit(store, put(b"k%d" % number, number))
    place = decode_place(blob_of(machine, b"k3").place)
    assert isinstance(place, InlinePlace)
    path, at = segment_path(place.location.segment), place.location.offset
    machine.drop_store()
    shutil.rmtree(machine.index_directory)
    machine.index_directory.mkdir()
    seen = 0

    def hook(operation: Operation) -> None:
        nonlocal seen
        covers = operation.offset <= at < operation.offset + operation.length
        if operation.kind == "read" and operation.path == path and covers:
            seen += 1
            if seen > good_reads:
                raise DriveFault("drive-a", "read", errno.EIO)

    machine.disks["drive-a"].hook = hook
    machine.open()
    with machine.reader() as reader:
        assert None not in reader.read(PARTITION, [b"k%d" % number for number in range(1, 6)])


def test_rot_of_all_a_segment_holds_is_repaired(machine: Machine) -> None:
    """Only the manifest of a later segment tells that there was something in it."""
    store = machine.open()
    for number in range(1, 5):
        commit(store, put(b"k%d" % number, number, b"z" * 150_000))
    place = decode_place(blob_of(machine, b"k3").place)
    assert isinstance(place, InlinePlace)
    assert place.location.segment != store._state.planner.tail.segment
    machine.drop_store()
    machine.disks["drive-b"].flip(segment_path(place.location.segment), FIRST_OFFSET + 200)
    shutil.rmtree(machine.index_directory)
    machine.index_directory.mkdir()
    store = machine.open()
    assert list(store.members) == ["drive-a", "drive-b"]
    assert store.recovery.repaired == {"drive-b": 1}
    with machine.reader("drive-b") as reader:
        assert reader.read_blob(blob_of(machine, b"k3"), 0, 150_000) == b"z" * 150_000


def test_an_index_from_before_what_was_freed_brings_no_delete_back(machine: Machine) -> None:
    """The power went between the recycling of a segment on one drive and on the other, and the
    index is an old copy: its last batch was found on one of them, and then voided."""
    store = machine.open()
    commit(store, put(b"k", 1))
    store.checkpoint()
    older = read_files(machine.index_directory)
    commit(store, delete(b"k", 2))
    segment = store._state.planner.tail.segment
    number = 2
    while store._state.planner.tail.segment == segment:
        number += 1
        commit(store, put(b"filler", number, b"z" * 60_000))
    commit(store, put(b"filler", number + 1, b"z" * 60_000))
    store.checkpoint()
    store._state.members["drive-a"].log.recycle(SegmentState(segment, 2))
    machine.drop_store()
    write_files(machine.index_directory, older)
    machine.open()
    with machine.reader() as reader:
        assert reader.read(PARTITION, [b"k"]) == [None]


def test_a_bad_first_batch_is_seen_though_the_index_is_current(machine: Machine) -> None:
    """The table of segments was made from what lay behind it, and a scrub then took what the index
    said of the segment before for needless."""
    store = machine.open()
    for number in range(1, 9):
        commit(store, put(b"k%d" % number, number, b"z" * 60_000))
    tail = store._state.planner.tail
    machine.drop_store()
    machine.disks["drive-a"].flip(segment_path(tail.segment), FIRST_OFFSET + 200)
    store = machine.open()
    assert store.recovery.repaired == {"drive-a": 1}
    assert scrub(machine).tally.index == PROVEN
    assert machine.disks["drive-a"].contents().keys() == machine.disks["drive-b"].contents().keys()


def _cut_short(machine: Machine, drive: str, path: str, size_bytes: int) -> None:
    """What was made of the file was lost, but for its beginning."""
    image = machine.disks[drive].image()
    content = image[path]
    assert content is not None, "it is a file"
    machine.disks[drive].restore_image({**image, path: Content(content.data[:size_bytes])})


def test_a_batch_whose_padding_was_lost_is_copied_in_whole_blocks(machine: Machine) -> None:
    """The drive had lost the making of the segment: its file ended within the batch's last block,
    and what was read there could not be written to its peer."""
    store = machine.open()
    commit(store, put(b"k", 1))
    tail = store._state.planner.tail
    commit(store, put(b"last", 2, b"short"))
    machine.drop_store()
    _cut_short(machine, "drive-a", segment_path(tail.segment), tail.offset + 2560)
    machine.disks["drive-b"].flip(segment_path(tail.segment), tail.offset + 20)
    store = machine.open()
    assert store.recovery.copied_batches == 1
    with machine.reader("drive-b") as reader:
        assert None not in reader.read(PARTITION, [b"k", b"last"])


def test_a_record_whose_file_was_cut_short_is_repaired_in_place(machine: Machine) -> None:
    """The good bytes were put where the file ended, and not where they belong."""
    store = machine.open()
    for number in range(1, 6):
        commit(store, put(b"k%d" % number, number, b"z" * 80_000))
    place = blob_of(machine, b"k2").place
    found = decode_place(place)
    assert isinstance(found, InlinePlace)
    segment, offset = found.location.segment, found.location.offset
    assert segment != store._state.planner.tail.segment
    machine.drop_store()
    _cut_short(machine, "drive-a", segment_path(segment), offset // BLOCK_BYTES * BLOCK_BYTES + 10)
    assert machine.open().repair("drive-a", place)


@pytest.mark.parametrize("drives", [["drive-a"], ["drive-a", "drive-b"]])
def test_rot_in_what_pads_a_batch_is_no_loss(machine: Machine, drives: list[str]) -> None:
    """The last batch was written again with it on both drives, and a scrub then called the batch
    lost: no checksum covers the zeros behind the records."""
    store = machine.open()
    commit(store, put(b"k", 1, b"short"))
    tail = store._state.planner.tail
    machine.drop_store()
    for drive in drives:
        machine.disks[drive].flip(segment_path(tail.segment), tail.offset - 10)
    machine.open()
    tally = scrub(machine).tally
    assert tally.index == PROVEN
    assert not any(found.unrepairable for found in tally.drives.values())


def test_a_scrub_pads_a_batch_anew(machine: Machine) -> None:
    """Rot behind the records on both drives costs nothing."""
    store = machine.open()
    commit(store, put(b"k", 1, b"short"))
    tail = store._state.planner.tail
    commit(store, put(b"behind", 2))
    for disk in machine.disks.values():
        disk.flip(segment_path(tail.segment), tail.offset - 10)
    tally = scrub(machine).tally
    assert tally.index == PROVEN
    assert [found.repaired for found in tally.drives.values()] == [1, 1]


def test_a_header_that_was_seen_in_a_cache_is_durable_before_it_is_believed(
    machine: Machine,
) -> None:
    """Writing it had failed after half of it, on the only drive. The next start read the half in
    the drive's cache, went on behind it, and the power cut took the header and all behind it."""
    store = machine.open("drive-a")
    free = store._state.planner.table.free()[0]
    machine.drop_store()
    path, disk = segment_path(free.segment), machine.disks["drive-a"]
    header = SegmentHeader(bytes.fromhex(MIRROR_ID), free.segment, free.generation + 1, 256 * 1024)
    disk.mount().open(path, write=True).write_at(0, encode_segment_header(header)[:2048])
    store = machine.open("drive-a")
    number = 0
    while store._state.planner.tail.segment != free.segment:
        number += 1
        commit(store, put(b"k%d" % number, number, b"z" * 60_000))
    assert store._state.planner.tail.generation == free.generation + 1
    commit(store, put(b"behind it", 1000))
    machine.drop_store()
    disk.restore_image(disk.image())
    shutil.rmtree(machine.index_directory)
    machine.index_directory.mkdir()
    store = machine.open("drive-a")
    assert store.losses == []
    with machine.reader() as reader:
        assert None not in reader.read(PARTITION, [b"k%d" % n for n in range(1, number + 1)])
