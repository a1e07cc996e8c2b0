"""Free space goes back to the device: seen on the file a loop device stands on."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from appliance.control.disks.block_bay import BlockBay
from appliance.core.drives import Drive, DriveKind
from appliance.core.errors import DriveFault
from appliance.system import trim
from appliance.system.files import flush_file_system
from tests.system.drives import LoopDrive, attached, settle, until

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("udev")]
DRIVE_ID = "0123456789abcdef0123456789abcdef"
MIB = 1024 * 1024
FILES = 40
FILE_BYTES = 4 * MIB


def _held(device: LoopDrive) -> int:
    """Bytes of blocks that the backing file has."""
    return device.backing.stat().st_blocks * 512


def _filled(place: Path) -> dict[Path, bytes]:
    contents = {place / f"{number}": os.urandom(FILE_BYTES) for number in range(FILES)}
    for path, data in contents.items():
        path.write_bytes(data)
    flush_file_system(place)
    return contents


def _trim(bay: BlockBay) -> int:
    given = [bay.trim(DRIVE_ID, *piece) for piece in bay.pieces(DRIVE_ID)]
    return sum(count or 0 for count in given)


def test_what_was_deleted_is_given_back_and_what_was_not_stays(tmp_path: Path) -> None:
    bay = BlockBay(tmp_path / "drives", None)
    with attached(device := LoopDrive(tmp_path, "a")):
        settle()
        drive = Drive("loop", DriveKind.LOOP, device.node, device.image.stat().st_size)
        bay.format(drive, DRIVE_ID, lambda _: None)
        settle()
        (ours,) = (each for each in bay.scan() if each.node == device.node)
        place = bay.mount(ours)
        contents = _filled(place)
        full = _held(device)
        assert full > FILES * FILE_BYTES
        _trim(bay)
        assert _held(device) > FILES * FILE_BYTES, "nothing that is used is given back"
        deleted = list(contents)[::2]
        for path in deleted:
            path.unlink()
        freed = len(deleted) * FILE_BYTES

        def is_given_back() -> bool:
            flush_file_system(place)  # what is freed is named once its deletion is durable
            _trim(bay)
            return _held(device) < full - freed * 9 // 10

        until(is_given_back, "the backing file shrinks by what was deleted")
        for path, data in contents.items():
            assert path in deleted or path.read_bytes() == data
        bay.unmount(DRIVE_ID)


def test_where_nobody_can_be_told_nothing_happens(tmp_path: Path) -> None:
    assert trim.trim(Path("/dev/shm"), 0, 16 * MIB) is None
    with pytest.raises(DriveFault):
        trim.trim(tmp_path / "nowhere", 0, 16 * MIB)
    with pytest.raises(DriveFault):
        trim.pieces(tmp_path / "nowhere")


def test_the_pieces_cover_the_file_system_and_none_is_long(tmp_path: Path) -> None:
    pieces = trim.pieces(tmp_path)
    assert pieces[0][0] == 0
    for (start, length), (following, _) in itertools.pairwise(pieces):
        assert following == start + length
    assert sum(length for _, length in pieces) == trim.space(tmp_path).total_bytes
    assert max(length for _, length in pieces) <= trim.PIECE_BYTES
