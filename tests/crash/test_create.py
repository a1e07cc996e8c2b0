"""What a new mirror is made of: what is refused, and that nothing of it waits in a cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from appliance.core.errors import InvalidInput, Refused
from appliance.engine.mirror.create import NewDrive, NewMirrorPlan, create_mirror
from appliance.system.files import DirectoryVolume
from tests.crash.machine import DRIVES, MIRROR_ID, SEGMENT_BYTES, Machine

OTHER_ID = "d4" * 16


def planned(machine: Machine, drives: tuple[str, ...] = DRIVES) -> NewMirrorPlan:
    directory = machine.index_directory.parent / "new index"
    directory.mkdir(exist_ok=True)
    return NewMirrorPlan(
        MIRROR_ID,
        [NewDrive(name, machine.disks[name].mount()) for name in drives],
        DirectoryVolume(directory, "index"),
        str(directory),
        machine.witness.mount(),
        segment_size_bytes=SEGMENT_BYTES,
    )


def make(machine: Machine, plan: NewMirrorPlan) -> None:
    create_mirror(plan, clock=machine.clock, entropy=machine.entropy)


def test_a_mirror_is_not_made_twice(machine: Machine) -> None:
    before = [disk.digest() for disk in machine.disks.values()]
    with pytest.raises(Refused, match="exists already"):
        make(machine, planned(machine))
    assert [disk.digest() for disk in machine.disks.values()] == before


def test_a_drive_of_another_mirror_is_not_taken(machine: Machine) -> None:
    before = [disk.digest() for disk in machine.disks.values()]
    with pytest.raises(Refused, match="belongs to mirror"):
        make(machine, replace(planned(machine), mirror_id=OTHER_ID))
    assert [disk.digest() for disk in machine.disks.values()] == before


@pytest.mark.parametrize("drives", [(), ("drive-a", "drive-a"), (*DRIVES, "drive-c")])
def test_it_takes_one_or_two_different_drives(machine: Machine, drives: tuple[str, ...]) -> None:
    machine.add_disk("drive-c")
    with pytest.raises(InvalidInput, match="two different drives"):
        make(machine, planned(machine, drives))


@pytest.mark.parametrize("size", [4096, SEGMENT_BYTES + 1])
def test_segments_have_a_size_that_works(machine: Machine, size: int) -> None:
    with pytest.raises(InvalidInput, match="segments"):
        make(machine, replace(planned(machine), segment_size_bytes=size))


def test_a_making_that_was_cut_short_is_done_again(scratch: Path) -> None:
    """The drives name the mirror, but there is no witness yet."""
    machine = Machine(3, scratch)
    machine.witness.restore_image({"": None})
    make(machine, planned(machine))
    machine.open()
