"""Superblocks and the witness: their codecs, and every crash of a write."""

from __future__ import annotations

import errno
import random
import struct
from dataclasses import replace

import msgpack
import pytest
from awscrt.checksums import crc32c
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.epochs import HISTORY_MAX, Epoch, History, Leave, successor
from appliance.core.errors import DriveFault, InvalidInput
from appliance.engine.mirror.slots import (
    PAYLOAD_BYTES_MAX,
    SLOT_BYTES,
    Blank,
    SlotFile,
    Unreadable,
    create_slots,
    decode_slot,
    encode_slot,
)
from appliance.engine.mirror.superblock import (
    SUPERBLOCK_KIND,
    SUPERBLOCK_PATH,
    Superblock,
    SuperblockFile,
    format_drive,
    pack_history,
    read_superblock,
    unpack_history,
)
from appliance.engine.mirror.witness import Witness, WitnessFile, create_witness
from tests.crash.simulated import Power, PowerCut, SimulatedDisk

HISTORY = successor((), number=1, epoch_id="aa" * 16, in_sync=("A" * 32, "B" * 32))
HEAD_BYTES = SLOT_BYTES - PAYLOAD_BYTES_MAX
DRIVE = Superblock("A" * 32, "serial", "label", "cc" * 16, 1 << 26, 3, 4, HISTORY)


def disk() -> SimulatedDisk:
    return SimulatedDisk("A", Power())


@given(st.integers(0, 2**16 - 1), st.integers(0, 2**64 - 1), st.binary(max_size=PAYLOAD_BYTES_MAX))
def test_a_slot_comes_back(kind: int, counter: int, payload: bytes) -> None:
    data = encode_slot(kind, counter, payload)
    assert len(data) == SLOT_BYTES
    assert decode_slot(data, kind) == (counter, payload)
    assert isinstance(decode_slot(data, kind ^ 1), str)
    assert isinstance(decode_slot(data[:-1], kind), str)


@given(st.integers(0, SLOT_BYTES * 8 - 1))
def test_no_flipped_bit_of_a_slot_passes(bit: int) -> None:
    data = bytearray(encode_slot(1, 7, b"payload"))
    data[bit // 8] ^= 1 << bit % 8
    assert isinstance(decode_slot(bytes(data), 1), str)


@pytest.mark.parametrize(
    ("offset", "content", "why"),
    [(0, b"notslots", "not written by"), (8, b"\x63\x00", "newer"), (8, b"\x00\x00", "newer")],
)
def test_a_slot_with_a_good_checksum_and_another_head(
    offset: int, content: bytes, why: str
) -> None:
    data = bytearray(encode_slot(1, 7, b"payload"))
    head = HEAD_BYTES - 4
    data[offset : offset + len(content)] = content
    data[head:HEAD_BYTES] = bytes(4)
    struct.pack_into("<I", data, head, crc32c(bytes(data)))
    assert why in str(decode_slot(bytes(data), 1))


def test_a_superblock_holds_no_text_without_end() -> None:
    format_drive(disk().mount(), replace(DRIVE, label="l" * 128))
    for name in ("drive_id", "serial", "label", "mirror_id"):
        fresh = disk()
        with pytest.raises(InvalidInput, match="128 bytes"):
            format_drive(fresh.mount(), replace(DRIVE, **{name: "l" * 129}))  # type: ignore[arg-type]
        assert isinstance(read_superblock(fresh.mount()), Blank)


@pytest.mark.parametrize(
    "fields",
    [
        {"heartbeat": "7"},
        {"segment": None},
        {"created": 1.5},
        {"history": [[1, "a", "", "not a list", [], False, []]]},
        {"history": [["1", "a", "", ["A"], [], False, []]]},
        {"history": [[1, "a", "", ["A"], [["A", "7"]], False, []]]},
        {"history": [[1, "a", "", ["A"], [], False, "not a list"]]},
    ],
)
def test_fields_of_another_kind_are_no_superblock(fields: dict[str, object]) -> None:
    """The checksum is right, so it was written so: nothing of it is believed."""
    whole: dict[str, object] = {
        "drive": "A", "serial": "", "label": "", "mirror": "", "segment": 0, "heartbeat": 0,
        "created": 0, "read_errors": 0, "history": [],
    }  # fmt: skip
    here = disk()
    create_slots(here.mount(), SUPERBLOCK_PATH, SUPERBLOCK_KIND, msgpack.packb(whole))
    assert isinstance(read_superblock(here.mount()), Superblock)
    create_slots(here.mount(), SUPERBLOCK_PATH, SUPERBLOCK_KIND, msgpack.packb({**whole, **fields}))
    assert isinstance(read_superblock(here.mount()), Unreadable)


@given(st.binary(max_size=SLOT_BYTES + 1))
def test_arbitrary_bytes_are_no_slot(data: bytes) -> None:
    assert isinstance(decode_slot(data, 1), str)
    assert isinstance(decode_slot(data.ljust(SLOT_BYTES, b"\0")[:SLOT_BYTES], 1), str)


def test_a_payload_too_large_is_refused() -> None:
    with pytest.raises(InvalidInput):
        encode_slot(1, 1, bytes(PAYLOAD_BYTES_MAX + 1))


names = st.text("0123456789abcdef", min_size=32, max_size=32)
epochs = st.builds(
    Epoch,
    number=st.integers(1, 2**63),
    id=names,
    parent_id=names,
    in_sync=st.lists(names, min_size=1, max_size=2, unique=True).map(lambda n: tuple(sorted(n))),
    leaves=st.lists(st.builds(Leave, names, st.integers(0, 2**63)), max_size=1).map(tuple),
    forced=st.booleans(),
    voids=st.lists(names, max_size=2).map(tuple),
)
histories = st.lists(epochs, max_size=HISTORY_MAX).map(tuple)


@given(histories, st.integers(0, 2**63), st.text(max_size=30))
def test_a_superblock_comes_back(history: History, heartbeat: int, label: str) -> None:
    volume = disk().mount()
    wanted = Superblock("d", "serial 1", label, "m", 1 << 23, heartbeat, 12, history)
    format_drive(volume, wanted)
    found = read_superblock(volume)
    assert isinstance(found, Superblock)
    assert found.history == history[len(history) - len(found.history) :]
    assert len(found.history) >= min(len(history), 8)
    assert (found.heartbeat, found.label) == (heartbeat, label)


def test_a_drive_without_a_superblock_is_blank_and_garbage_is_unreadable() -> None:
    drive = disk()
    volume = drive.mount()
    assert read_superblock(volume) == Blank()
    assert SuperblockFile.open(volume) == Blank()
    volume.open("superblock", write=True, create=True).write_at(0, b"something else" * 900)
    assert isinstance(read_superblock(volume), Unreadable)
    create_slots(volume, "superblock", 1, b"no msgpack map")
    assert isinstance(read_superblock(volume), Unreadable)
    create_slots(volume, "superblock", 2, b"of another kind")
    assert isinstance(read_superblock(volume), Unreadable)


def test_an_unsound_epoch_is_not_believed() -> None:
    volume = disk().mount()
    wrong = Epoch(1, "x", "", ("B", "A"))
    format_drive(volume, Superblock("A", history=(wrong,)))
    assert isinstance(read_superblock(volume), Unreadable)


@pytest.mark.parametrize("clean", [True, False])
def test_why_a_drive_left_comes_back(clean: bool) -> None:
    left = successor(
        HISTORY,
        number=2,
        epoch_id="bb" * 16,
        in_sync=("A" * 32,),
        leaves=(Leave("B" * 32, 7, clean=clean),),
    )
    packed = pack_history(left, PAYLOAD_BYTES_MAX)
    assert unpack_history(packed) == left  # type: ignore[arg-type]


def test_a_leave_that_does_not_say_why_was_not_clean() -> None:
    unsaid = [[2, "bb" * 16, "aa" * 16, ["A"], [["B", 7]], False, []]]
    (epoch,) = unpack_history(unsaid)
    assert epoch.leaves == (Leave("B", 7, clean=False),)


def test_writes_alternate_and_survive_one_rotten_slot() -> None:
    drive = disk()
    format_drive(drive.mount(), DRIVE)
    file = SuperblockFile.open(drive.mount())
    assert isinstance(file, SuperblockFile)
    for beat in range(4, 9):
        file.write(replace(DRIVE, heartbeat=beat))
    for slot in (0, 1):
        image = drive.image()
        drive.flip("superblock", slot * SLOT_BYTES + 50)
        found = read_superblock(drive.mount())
        assert isinstance(found, Superblock) and found.heartbeat == 8
        drive.restore_image(image)
    drive.flip("superblock", 50)
    drive.flip("superblock", SLOT_BYTES + 50)
    assert isinstance(read_superblock(drive.mount()), Unreadable)


def test_a_slot_that_cannot_be_read_is_a_fault_not_an_older_vote() -> None:
    drive = disk()
    format_drive(drive.mount(), DRIVE)
    drive.fail_at(2, errno.EIO, kinds=frozenset({"read"}))
    with pytest.raises(DriveFault):
        read_superblock(drive.mount())


@pytest.mark.parametrize("seed", range(40))
def test_every_crash_of_a_vote_leaves_the_old_or_the_new(seed: int) -> None:
    rng = random.Random(seed)
    for cut in range(1, 6):
        drive = disk()
        create_slots(drive.mount(), "votes", 1, b"0")
        done = 0
        drive.power.operations = 0
        opened = SlotFile.open(drive.mount(), "votes", 1, write=True)
        assert isinstance(opened, SlotFile)
        drive.power.cut_at = drive.power.operations + cut
        try:
            for value in range(1, 10):
                opened.write(b"%d" % value)
                done = value
        except PowerCut:
            pass
        drive.power.restore(rng)
        found = SlotFile.open(drive.mount(), "votes", 1, write=True)
        assert isinstance(found, SlotFile)
        assert int(found.payload) in {done, done + 1}
        found.write(b"99")
        again = SlotFile.open(drive.mount(), "votes", 1, write=False)
        assert isinstance(again, SlotFile) and again.payload == b"99"


@pytest.mark.parametrize("newer", [0, 1])
def test_with_unlike_slots_the_newer_counts_and_is_overwritten_last(newer: int) -> None:
    """As a crash between the two slots leaves them: what was read once must not be lost again."""
    drive = disk()
    create_slots(drive.mount(), "votes", 1, b"old")
    drive.overwrite("votes", newer * SLOT_BYTES, encode_slot(1, 2, b"new"))
    opened = SlotFile.open(drive.mount(), "votes", 1, write=True)
    assert isinstance(opened, SlotFile) and opened.payload == b"new"
    writes: list[int] = []
    drive.hook = lambda operation: writes.append(operation.offset)
    opened.write(b"newest")
    assert writes == [(1 - newer) * SLOT_BYTES, newer * SLOT_BYTES]


@pytest.mark.parametrize("seed", range(10))
def test_every_crash_of_formatting_leaves_a_blank_or_a_whole_superblock(seed: int) -> None:
    rng = random.Random(seed)
    for cut in range(1, 7):
        drive = disk()
        drive.power.cut_at = cut
        try:
            format_drive(drive.mount(), DRIVE)
            whole = True
        except PowerCut:
            whole = False
        drive.power.restore(rng)
        found = read_superblock(drive.mount())
        assert found == DRIVE or (not whole and found == Blank())
        format_drive(drive.mount(), DRIVE)
        assert read_superblock(drive.mount()) == DRIVE


def test_the_witness() -> None:
    volume = disk().mount()
    assert WitnessFile.open(volume, "w") == Blank()
    create_witness(volume, "w", Witness("m", 1, HISTORY))
    file = WitnessFile.open(volume, "w")
    assert isinstance(file, WitnessFile)
    file.write(Witness("m", 2, HISTORY))
    file.close()
    again = WitnessFile.open(volume, "w")
    assert isinstance(again, WitnessFile) and again.value == Witness("m", 2, HISTORY)
    with pytest.raises(AssertionError):
        again.write(Witness("another", 3, HISTORY))
    create_slots(volume, "w", 2, b"\xc0")
    assert isinstance(WitnessFile.open(volume, "w"), Unreadable)
