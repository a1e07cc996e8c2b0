"""What a returning drive must be cured of before it counts: rot, old content, void batches, gaps.

Each case puts the trouble on the drive while it is away; after its return both copies are equal.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from appliance.core.errors import DriveFault
from appliance.engine.mirror.adoption import PARTIAL_SUFFIX
from appliance.engine.mirror.blob import blob_path
from appliance.engine.mirror.crew import Piece
from appliance.engine.mirror.digest import digest
from appliance.engine.mirror.format import BatchPlace, Kind, LogRecord, encode_batch
from appliance.engine.mirror.place import FilePlace, InlinePlace, decode_place
from appliance.engine.mirror.resync import Means
from appliance.engine.mirror.segment import FIRST_OFFSET, segment_path
from appliance.engine.mirror.store import Store
from tests.crash.acts import blob_of, bring_back, commit, put, put_staged
from tests.crash.history import PARTITION
from tests.crash.machine import MIRROR_ID, Machine
from tests.crash.simulated import Operation


def _fill(store: Store, first: int, count: int, key: bytes = b"filler") -> None:
    for number in range(first, first + count):
        commit(store, put(key, number, b"z" * 20_000))


def _assert_equal_copies(machine: Machine) -> None:
    store = machine.store
    assert store is not None
    assert len(store.members) == 2
    found = {drive: digest(member) for drive, member in store._state.members.items()}
    assert found["drive-a"] == found["drive-b"]


def test_a_segment_entered_again_during_the_transfer_is_followed(machine: Machine) -> None:
    store = machine.open()
    _fill(store, 1, 6)
    store.lose("drive-b", "pulled")
    machine.disks["drive-b"].insert(machine.rng)
    store.add_outsider(machine.disks["drive-b"].mount())
    resync = store.begin_resync("drive-b")
    resync.copy()
    before = store._state.planner.tail
    number = 100
    while True:
        tail = store._state.planner.tail
        if tail.segment == before.segment and tail.generation > before.generation:
            break
        _fill(store, number, 1)
        number += 1
        store.checkpoint()
        store.step()
    assert store._state.planner.tail.offset < before.offset
    data = machine.rng.randbytes(90_000)
    put_staged(machine, b"large", 5000, data)
    _fill(store, 6000, 5)
    while not store.finish_resync(resync):
        resync.copy()
    with machine.reader("drive-b") as reader:
        assert reader.read_blob(blob_of(machine, b"large"), 0, len(data)) == data
    _assert_equal_copies(machine)


def test_a_goal_that_is_recycled_before_it_was_copied_is_overtaken(machine: Machine) -> None:
    """A first round may take hours: the segment the log ended in when it began is another by
    then."""
    store = machine.open()
    _fill(store, 1, 6)
    store.lose("drive-b", "pulled")
    machine.disks["drive-b"].restore_image({"": None})
    store.add_outsider(machine.disks["drive-b"].mount())
    resync = store.begin_resync("drive-b")
    before = store._state.planner.tail
    number = 100
    while True:
        tail = store._state.planner.tail
        is_overwritten = tail.generation > before.generation and tail.offset >= before.offset
        if tail.segment == before.segment and is_overwritten:
            break
        _fill(store, number, 1)
        number += 1
        store.checkpoint()
        store.step()
    resync.copy()
    assert list(store.members) == ["drive-a"]
    while not store.finish_resync(resync):
        resync.copy()
    _assert_equal_copies(machine)


def test_rot_in_a_sealed_segment_is_cured_before_the_drive_counts(machine: Machine) -> None:
    store = machine.open()
    commit(store, put(b"victim", 1))
    place = decode_place(blob_of(machine, b"victim").place)
    assert isinstance(place, InlinePlace)
    _fill(store, 2, 20)
    assert store._state.planner.tail.segment != place.location.segment
    machine.disks["drive-b"].pull()
    _fill(store, 50, 1)
    machine.disks["drive-b"].flip(segment_path(place.location.segment), place.location.offset + 90)
    bring_back(machine, "drive-b")
    with machine.reader("drive-b") as reader:
        assert reader.read_blob(blob_of(machine, b"victim"), 0, 3000) == b"x" * 3000
    _assert_equal_copies(machine)


def test_a_drive_put_back_to_an_older_state_is_made_whole(machine: Machine) -> None:
    """Its history is known and its segments have the right headers, but most of them are empty."""
    store = machine.open()
    _fill(store, 1, 4)
    image = machine.disks["drive-b"].image()
    for number in range(10, 40):
        commit(store, put(b"key %d" % number, number, b"z" * 20_000))
    store.lose("drive-b", "pulled")
    commit(store, put(b"alone", 99))
    machine.disks["drive-b"].restore_image(image)
    bring_back(machine, "drive-b")
    with machine.reader("drive-b") as reader:
        for number in range(10, 40):
            blob = blob_of(machine, b"key %d" % number)
            assert reader.read_blob(blob, 0, 20_000) == b"z" * 20_000
        assert machine.suspects == []
    _assert_equal_copies(machine)


def test_a_rotten_blob_of_the_right_length_is_copied_again(machine: Machine) -> None:
    store = machine.open()
    data = machine.rng.randbytes(150_000)
    put_staged(machine, b"large", 1, data)
    place = decode_place(blob_of(machine, b"large").place)
    assert isinstance(place, FilePlace)
    store.lose("drive-b", "pulled")
    machine.disks["drive-b"].flip(blob_path(place.blob_id), 100_000)
    bring_back(machine, "drive-b")
    with machine.reader("drive-b") as reader:
        assert reader.read_blob(blob_of(machine, b"large"), 0, len(data)) == data
        assert machine.suspects == []
    _assert_equal_copies(machine)


def test_a_void_batch_in_a_free_segment_does_not_survive_the_return(machine: Machine) -> None:
    """Its owner began a segment with a batch nobody else has; the others went on elsewhere."""
    store = machine.open()
    _fill(store, 1, 2)
    store.lose("drive-b", "pulled")
    _fill(store, 10, 1)
    tail = store._state.planner.tail
    free = store._state.planner.table.free()[0]
    for offset, sequence in ((0, tail.sequence), (40_960, tail.sequence + 50)):
        place = BatchPlace(
            mirror_id=bytes.fromhex(MIRROR_ID),
            epoch=1,
            incarnation=9,
            sequence=sequence,
            time_ns=1,
            segment=free.segment,
            generation=free.generation,
            offset=FIRST_OFFSET + offset,
            previous_crc=7,
        )
        void = encode_batch(place, [LogRecord(Kind.PUT, PARTITION.encode(), b"void", b"0:", 1)])
        path = segment_path(free.segment)
        machine.disks["drive-b"].overwrite(path, FIRST_OFFSET + offset, void.data)
    bring_back(machine, "drive-b")
    _assert_equal_copies(machine)
    machine.drop_store()
    store = machine.open()
    assert store.recovery.repaired == {}
    assert store.losses == []
    with machine.reader() as reader:
        assert reader.read(PARTITION, [b"void"]) == [None]


@pytest.mark.parametrize("kind", ["blob", "log"])
def test_a_spot_the_source_cannot_read_does_not_block_the_return(
    machine: Machine, kind: str
) -> None:
    """And what the returning drive has there already is kept."""
    store = machine.open()
    data = machine.rng.randbytes(150_000)
    put_staged(machine, b"large", 1, data)
    commit(store, put(b"small", 2))
    large = decode_place(blob_of(machine, b"large").place)
    small = decode_place(blob_of(machine, b"small").place)
    assert isinstance(large, FilePlace)
    assert isinstance(small, InlinePlace)
    _fill(store, 3, 20)
    bad, at = blob_path(large.blob_id), 100_000
    if kind == "log":
        bad, at = segment_path(small.location.segment), small.location.offset
    store.lose("drive-b", "pulled")
    if kind == "blob":
        machine.disks["drive-b"].flip(bad, 10)  # so that it is wanted from the source
    else:
        machine.disks["drive-b"].flip(bad, 10)  # its header: the segment must be compared

    def hook(operation: Operation) -> None:
        covers = operation.offset <= at < operation.offset + operation.length
        if operation.kind == "read" and operation.path == bad and covers:
            raise DriveFault("drive-a", "read", errno.EIO)

    machine.disks["drive-a"].hook = hook
    bring_back(machine, "drive-b")
    assert len(store.members) == 2
    if kind == "log":
        with machine.reader("drive-b") as reader:
            assert reader.read_blob(blob_of(machine, b"small"), 0, 3000) == b"x" * 3000


@pytest.mark.parametrize("copy", ["good", "rotten"])
def test_the_last_copy_of_a_blob_the_source_lost_is_not_removed(
    machine: Machine, copy: str
) -> None:
    """The member has no file any more, and the returning drive does: it is kept, or said to be
    lost, and never taken for one that nobody owns."""
    store = machine.open()
    data = machine.rng.randbytes(150_000)
    put_staged(machine, b"large", 1, data)
    place = decode_place(blob_of(machine, b"large").place)
    assert isinstance(place, FilePlace)
    path = blob_path(place.blob_id)
    store.lose("drive-b", "pulled")
    store._state.members["drive-a"].volume.unlink(path)
    if copy == "rotten":
        machine.disks["drive-b"].flip(path, 70_000)
    machine.disks["drive-b"].insert(machine.rng)
    store.add_outsider(machine.disks["drive-b"].mount())
    resync = store.begin_resync("drive-b")
    resync.copy()
    while not store.finish_resync(resync):
        resync.copy()
    assert len(store.members) == 2
    assert resync.progress.lost == ({} if copy == "good" else {PARTITION: 1})
    if copy == "good":
        with machine.reader("drive-b") as reader:
            assert reader.read_blob(blob_of(machine, b"large"), 0, len(data)) == data


def test_a_drive_that_takes_no_vote_does_not_stop_the_store(machine: Machine) -> None:
    """Else the mirror would stop at every attempt to bring it in."""
    store = machine.open()
    commit(store, put(b"k", 1))
    store.lose("drive-b", "pulled")

    def hook(operation: Operation) -> None:
        if operation.kind == "write" and operation.path == "superblock":
            raise DriveFault("drive-b", "write", errno.EIO)

    machine.disks["drive-b"].insert(machine.rng)
    store.add_outsider(machine.disks["drive-b"].mount())
    machine.disks["drive-b"].hook = hook
    resync = store.begin_resync("drive-b")
    resync.copy()
    with pytest.raises(DriveFault):
        store.finish_resync(resync)
    store.abandon_resync(resync)
    commit(store, put(b"k", 2))
    assert not store.stopped
    assert list(store.members) == ["drive-a"]


def test_rot_on_the_member_does_not_spread_to_the_returning_drive(machine: Machine) -> None:
    """In the segment it left in, which is compared byte for byte: the returning drive's bytes are
    the last good ones there, and the member is repaired from them."""
    store = machine.open()
    for number in range(1, 4):
        commit(store, put(b"k%d" % number, number))
    place = decode_place(blob_of(machine, b"k2").place)
    assert isinstance(place, InlinePlace)
    machine.disks["drive-b"].fail_at(1, errno.EIO, kinds=frozenset({"write"}))
    commit(store, put(b"alone", 10))
    assert list(store.members) == ["drive-a"]
    assert store._state.planner.tail.segment == place.location.segment
    machine.disks["drive-b"].hook = None
    machine.disks["drive-a"].flip(segment_path(place.location.segment), place.location.offset + 90)
    bring_back(machine, "drive-b")
    with machine.reader("drive-b") as reader:
        assert reader.read_blob(blob_of(machine, b"k2"), 0, 3000) == b"x" * 3000
    assert store.repair("drive-a", blob_of(machine, b"k2").place)
    _assert_equal_copies(machine)


def test_what_a_killed_transfer_left_is_not_removed_while_it_is_made_anew(
    machine: Machine,
) -> None:
    """One thread looks through a directory's names for more to do while others copy its blobs."""
    store = machine.open()
    store.lose("drive-b", "pulled")
    put_staged(machine, b"large", 1, machine.rng.randbytes(90_000))
    place = decode_place(blob_of(machine, b"large").place)
    assert isinstance(place, FilePlace)
    path = blob_path(place.blob_id)
    machine.disks["drive-b"].insert(machine.rng)
    volume = machine.disks["drive-b"].mount()
    volume.make_directory(path.rpartition("/")[0])
    volume.open(f"{path}{PARTIAL_SUFFIX}", write=True, create=True).close()
    store.add_outsider(volume)
    feed: Iterator[Piece] = iter(())
    ahead: list[Piece] = []

    def crew(pieces: Iterable[Piece]) -> None:
        nonlocal feed
        feed = iter(pieces)
        for piece in feed:
            piece()
        while ahead:
            ahead.pop()()

    @contextmanager
    def pace(_size_bytes: int) -> Iterator[None]:
        ahead.extend(feed)
        yield

    resync = store.begin_resync("drive-b", Means(pace, crew))
    resync.copy()
    assert store.finish_resync(resync)
    _assert_equal_copies(machine)
