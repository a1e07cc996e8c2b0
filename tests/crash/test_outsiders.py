"""Which drives may be brought in: those of this mirror whose past is known, and blank ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from appliance.core.epochs import successor
from appliance.core.errors import Refused
from appliance.engine.mirror.attach import WentItsOwnWay
from appliance.engine.mirror.superblock import SUPERBLOCK_PATH, Superblock, format_drive
from tests.crash.acts import commit, put
from tests.crash.machine import MIRROR_ID, SEGMENT_BYTES, Machine
from tests.crash.simulated import SimulatedDisk

Spoil = Callable[[SimulatedDisk], None]


def _foreign(disk: SimulatedDisk) -> None:
    format_drive(disk.mount(), Superblock("drive-b", mirror_id="d4" * 16))


def _unreadable(disk: SimulatedDisk) -> None:
    format_drive(disk.mount(), Superblock("drive-b", mirror_id=MIRROR_ID))
    disk.overwrite(SUPERBLOCK_PATH, 0, b"\xff" * 8192)


def _own_way(disk: SimulatedDisk) -> None:
    """Its newest epoch is none of ours, nor did we ever see and void it."""
    history = successor((), number=1, epoch_id="ab" * 16, in_sync=("drive-b",))
    history = successor(history, number=2, epoch_id="cd" * 16, in_sync=("drive-b",))
    format_drive(
        disk.mount(),
        Superblock(
            "drive-b", mirror_id=MIRROR_ID, segment_size_bytes=SEGMENT_BYTES, history=history
        ),
    )


@pytest.mark.parametrize(
    ("spoil", "error", "why"),
    [
        (_foreign, Refused, "another mirror"),
        (_unreadable, Refused, "claim it anew"),
        (_own_way, WentItsOwnWay, "went its own way"),
    ],
)
def test_a_drive_that_is_not_ours_is_left_as_it_is(
    machine: Machine, spoil: Spoil, error: type[Exception], why: str
) -> None:
    store = machine.open()
    commit(store, put(b"key", 1))
    disk = machine.disks["drive-b"]
    store.lose("drive-b", "taken away")
    disk.restore_image({"": None})
    spoil(disk)
    before = disk.digest()
    store.add_outsider(disk.mount())
    with pytest.raises(error, match=why):
        store.begin_resync("drive-b")
    assert disk.digest() == before
    assert list(store.members) == ["drive-a"]


def test_a_superblock_that_rots_between_two_looks_is_no_drive(machine: Machine) -> None:
    store = machine.open()
    disk = machine.disks["drive-b"]
    store.lose("drive-b", "taken away")
    looks = 0

    def look(kind: str, path: str) -> None:
        nonlocal looks
        looks += (kind, path) == ("open", SUPERBLOCK_PATH)
        if looks == 2:
            disk.overwrite(SUPERBLOCK_PATH, 0, b"\xff" * 8192)

    store.add_outsider(disk.mount())
    disk.look_hook = look
    with pytest.raises(Refused, match="cannot be opened"):
        store.begin_resync("drive-b")
    assert list(store.members) == ["drive-a"]


def test_a_drive_that_is_not_there_cannot_be_brought_in(machine: Machine) -> None:
    store = machine.open()
    with pytest.raises(Refused, match="not present"):
        store.begin_resync("drive-c")


def test_a_third_drive_has_no_place_while_both_are_in_sync(machine: Machine) -> None:
    store = machine.open()
    machine.add_disk("drive-c")
    store.add_outsider(machine.disks["drive-c"].mount())
    with pytest.raises(Refused, match="both drives"):
        store.begin_resync("drive-c")
