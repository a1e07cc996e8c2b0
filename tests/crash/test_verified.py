"""When a file is believed to be a blob: every byte read, none more, none less."""

from __future__ import annotations

import errno
import random

import pytest

from appliance.core.errors import DriveFault, DriveTimeout
from appliance.core.ports import FileStat
from appliance.engine.mirror.adoption import is_verified
from appliance.engine.mirror.blob import encode_chunks
from appliance.engine.mirror.format import FileBlob
from tests.crash.simulated import Operation, Power, SimulatedDisk
from tests.crash.simulated_volume import SimulatedVolume

ID = bytes(range(16))
DATA = random.Random(5).randbytes(150_000)
WHOLE = bytes(encode_chunks(ID, 0, DATA))


class Boasting(SimulatedVolume):
    """Says that its files are longer than what can be read of them."""

    def stat(self, path: str) -> FileStat | None:
        return FileStat(len(WHOLE), False)


def drive(content: bytes | None) -> SimulatedDisk:
    disk = SimulatedDisk("drive-a", Power())
    if content is not None:
        disk.mount().open("file", write=True, create=True).write_at(0, content)
    return disk


def verified(disk: SimulatedDisk) -> bool:
    return is_verified(disk.mount(), "file", FileBlob(ID, len(DATA)))


def test_a_whole_file_is_the_blob() -> None:
    assert verified(drive(WHOLE))


@pytest.mark.parametrize(
    "content",
    [None, b"", WHOLE[:-1], WHOLE + b"\0", WHOLE[:70_000] + b"x" + WHOLE[70_001:]],
    ids=["none", "empty", "shorter", "longer", "other bytes"],
)
def test_any_other_file_is_not(content: bytes | None) -> None:
    assert not verified(drive(content))


def test_another_blob_is_not() -> None:
    assert not verified(drive(bytes(encode_chunks(bytes(16), 0, DATA))))


@pytest.mark.parametrize("left", [0, 65_000, 65_556, len(WHOLE) - 1])
def test_a_file_that_ends_before_its_length_is_not(left: int) -> None:
    disk = drive(WHOLE[:left])
    disk.mounts += 1
    assert not is_verified(Boasting(disk, disk.mounts), "file", FileBlob(ID, len(DATA)))


@pytest.mark.parametrize("where", ["open", "read"])
def test_a_file_that_cannot_be_read_is_not_and_a_hang_is_told(where: str) -> None:
    disk = drive(WHOLE)
    fault: DriveFault = DriveFault("drive-a", where, errno.EIO)

    def look(kind: str, _path: str) -> None:
        if kind == where:
            raise fault

    def work(operation: Operation) -> None:
        if operation.kind == where:
            raise fault

    disk.look_hook, disk.hook = look, work
    assert not verified(disk)
    fault = DriveTimeout("drive-a", where, errno.ETIMEDOUT)
    with pytest.raises(DriveTimeout):
        verified(disk)
