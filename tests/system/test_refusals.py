"""Every kind of drive that must not be claimed, made for real, each refused with its reason, and
nothing on it touched by the refusal."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from appliance.control.disks.block_bay import BlockBay
from appliance.control.disks.creation import NewMirror
from appliance.control.disks.manager import Disks
from appliance.core.admin import DriveState
from appliance.core.drives import resolve
from appliance.core.errors import InvalidInput, Refused
from appliance.core.jobs import JobState
from appliance.runtime.clock import SystemClock, SystemEntropy
from tests.system.drives import LoopDrive, settle, sh

pytestmark = pytest.mark.usefixtures("udev")

Spoiler = Callable[[LoopDrive, Path, ExitStack], None]


def never(new: NewMirror) -> None:
    raise AssertionError("no mirror is made here")


def try_claim(folder: Path, identity: str, serial: str | None) -> tuple[str, DriveState]:
    """The refusal's sentence ("" when claimed) and the state the list shows beforehand."""

    async def run() -> tuple[str, DriveState]:
        disks = Disks(
            BlockBay(folder / "drives", None),
            mirrors_directory=folder / "mirrors",
            make_mirror=never,
            clock=SystemClock(),
            entropy=SystemEntropy(),
        )
        await disks.start()
        try:
            (report,) = (
                each for each in await disks.drive_reports() if each.drive.identity == identity
            )
            try:
                job = await disks.claim(identity, force_serial=serial)
            except Refused as refusal:
                return str(refusal), report.state
            async with asyncio.timeout(60):
                while not disks.job(job.id).ended:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            ended = disks.job(job.id)
            assert ended.state is JobState.DONE, ended.error
            for place in disks_mounts(folder):
                sh("umount", "--lazy", place)
            return "", report.state
        finally:
            await disks.close()

    return asyncio.run(run())


def disks_mounts(folder: Path) -> list[str]:
    return [str(each) for each in (folder / "drives").iterdir() if os.path.ismount(each)]


def file_system(device: LoopDrive, folder: Path, stack: ExitStack) -> None:
    sh("mkfs.ext4", "-q", "-L", "photos", device.node)


def foreign_xfs(device: LoopDrive, folder: Path, stack: ExitStack) -> None:
    sh("mkfs.xfs", "-q", "-L", "backup", device.node)


def gpt_table(device: LoopDrive, folder: Path, stack: ExitStack) -> None:
    sh("parted", "-s", device.node, "mklabel", "gpt", "mkpart", "a", "1MiB", "100%")


def mbr_table(device: LoopDrive, folder: Path, stack: ExitStack) -> None:
    sh("parted", "-s", device.node, "mklabel", "msdos")


def raid_member(device: LoopDrive, folder: Path, stack: ExitStack) -> None:
    # The superblock an array leaves on its member, where libblkid looks for version 1.2.
    superblock = bytearray(256)
    superblock[0:8] = b"\xfc\x4e\x2b\xa9\x01\x00\x00\x00"
    superblock[16:32] = bytes(range(16))
    superblock[128:136] = (8).to_bytes(8, "little")
    superblock[144:152] = (8).to_bytes(8, "little")
    with device.image.open("r+b") as image:
        image.seek(4096)
        image.write(superblock)
    sh("blockdev", "--flushbufs", device.node)


def swap_area(device: LoopDrive, folder: Path, stack: ExitStack) -> None:
    sh("mkswap", device.node)


def mounted(device: LoopDrive, folder: Path, stack: ExitStack) -> None:
    place = folder / "elsewhere"
    place.mkdir()
    sh("mkfs.ext4", "-q", device.node)
    sh("mount", device.node, str(place))
    stack.callback(sh, "umount", str(place))


def held_by_loop(device: LoopDrive, folder: Path, stack: ExitStack) -> None:
    above = sh("losetup", "--find", "--show", device.node)
    stack.callback(sh, "losetup", "--detach", above)


def exclusively_open(device: LoopDrive, folder: Path, stack: ExitStack) -> None:
    descriptor = os.open(device.node, os.O_RDONLY | os.O_EXCL)
    stack.callback(os.close, descriptor)


def write_protected(device: LoopDrive, folder: Path, stack: ExitStack) -> None:
    sh("blockdev", "--setro", device.node)
    stack.callback(sh, "blockdev", "--setrw", device.node)


MATRIX: list[tuple[Spoiler, str, bool]] = [
    (file_system, 'it carries a file system (ext4) labelled "photos"', True),
    (foreign_xfs, 'it carries a file system (xfs) labelled "backup"', True),
    (gpt_table, "it carries a partition table (GPT)", True),
    (mbr_table, "it carries a partition table (MBR)", True),
    (raid_member, "it carries a member of something bigger (linux_raid_member)", True),
    (swap_area, "it carries a swap area (swap)", True),
    (mounted, "it is mounted at {folder}/elsewhere", False),
    (held_by_loop, "it is held by loop", False),
    (exclusively_open, "another program or the kernel holds it exclusively open", False),
    (write_protected, "it is write-protected", False),
]


@contextmanager
def spoilt(spoil: Spoiler, folder: Path) -> Iterator[LoopDrive]:
    with LoopDrive(folder, "victim") as device, ExitStack() as stack:
        spoil(device, folder, stack)
        settle()
        yield device


def digest(path: Path) -> str:
    """Of what is really stored, with its place: the images are almost all holes."""
    found = hashlib.blake2b()
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        place = 0
        while place < end:
            try:
                place = os.lseek(file.fileno(), place, os.SEEK_DATA)
            except OSError as error:
                assert error.errno == errno.ENXIO, error
                break
            hole = os.lseek(file.fileno(), place, os.SEEK_HOLE)
            found.update(place.to_bytes(8) + os.pread(file.fileno(), hole - place, place))
            place = hole
    return found.hexdigest()


@pytest.mark.parametrize(("spoil", "reason", "forceable"), MATRIX)
def test_refused_with_its_reason(
    spoil: Spoiler, reason: str, forceable: bool, tmp_path: Path
) -> None:
    expected = reason.format(folder=tmp_path)
    with spoilt(spoil, tmp_path) as device:
        sh("sync", device.node)
        before = digest(device.image)
        sentence, state = try_claim(tmp_path, device.identity, None)
        assert state is DriveState.REFUSED
        assert expected in sentence
        assert device.identity in sentence
        assert ("--force-serial victim.img" in sentence) == forceable
        wrong, _ = try_claim(tmp_path, device.identity, "other.img")
        assert "the serial typed is 'other.img'" in wrong
        assert digest(device.image) == before
        forced, _ = try_claim(tmp_path, device.identity, device.serial)
        assert (forced == "") == forceable
        assert (digest(device.image) == before) != forceable


def test_kernel_names_are_refused(tmp_path: Path) -> None:
    with LoopDrive(tmp_path, "victim") as device:
        settle()
        drives = BlockBay(tmp_path / "drives", None).scan()
        with pytest.raises(InvalidInput, match="kernel names change"):
            resolve(drives, device.node)
