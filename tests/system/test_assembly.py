"""From two blank devices to an assembly, and its members dying, vanishing and coming back, noticed
by udev events alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from appliance.control.disks.assembly import Assembly
from appliance.control.disks.block_bay import BlockBay
from appliance.control.disks.creation import NewMirror
from appliance.control.disks.manager import Disks
from appliance.control.disks.passport import read_passport
from appliance.core.admin import DriveState
from appliance.core.jobs import JobState
from appliance.engine.mirror.superblock import Superblock, read_superblock
from appliance.runtime.clock import SystemClock, SystemEntropy
from appliance.system.files import DirectoryVolume
from tests.system.drives import DyingDrive, LoopDrive, attached, settle, sh, unmount_all

pytestmark = pytest.mark.usefixtures("udev")
DEADLINE_S = 60.0


class House:
    """A disk manager over real devices, and what it told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[NewMirror] = []
        self.told: asyncio.Queue[Assembly] = asyncio.Queue()
        self.disks = Disks(
            BlockBay(folder / "drives", None),
            mirrors_directory=folder / "mirrors",
            make_mirror=self.made.append,
            clock=SystemClock(),
            entropy=SystemEntropy(),
        )
        self.disks.subscribe(self.told.put_nowait)

    async def claim(self, drive: LoopDrive) -> str:
        job = await self.disks.claim(drive.identity)
        while not self.disks.job(job.id).ended:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        ended = self.disks.job(job.id)
        assert ended.state is JobState.DONE, ended.error
        return ended.result

    async def mirror(self, *drives: LoopDrive) -> list[str]:
        ids = [await self.claim(drive) for drive in drives]
        await self.disks.create_mirror("m0", [drive.identity for drive in drives])
        assert await self.serials() == sorted(drive.serial for drive in drives)
        return ids

    async def serials(self) -> list[str]:
        """Of the members that the next message to subscribers names."""
        assembly = await self.told.get()
        return sorted(member.serial for member in assembly.members)


def play(folder: Path, *drives: LoopDrive, scenario: Callable[[House], Awaitable[None]]) -> None:
    async def run() -> None:
        house = House(folder)
        await house.disks.start()
        try:
            async with asyncio.timeout(DEADLINE_S):
                await scenario(house)
        finally:
            await house.disks.close()

    with attached(*drives):
        settle()
        try:
            asyncio.run(run())
        finally:
            for drive in drives:
                unmount_all(drive.node)


def test_claim_mirror_and_find_it_again(tmp_path: Path) -> None:
    first, second = LoopDrive(tmp_path, "a"), LoopDrive(tmp_path, "b")

    async def create(house: House) -> None:
        ids = await house.mirror(first, second)
        assembly = house.disks.assembly("m0")
        assert [member.drive for member in assembly.members] == ids
        for member in assembly.members:
            volume = DirectoryVolume(member.path, member.drive)
            found = read_superblock(volume)
            volume.close()
            assert isinstance(found, Superblock)
            assert (found.drive_id, found.serial) == (member.drive, member.serial)
            assert read_passport(member.path).serial == member.serial
        await house.disks.close()
        again = House(tmp_path)
        await again.disks.start()
        assert await again.serials() == ["a.img", "b.img"]
        await again.disks.close()
        for member in assembly.members:
            sh("umount", str(member.path))
        third = House(tmp_path)
        await third.disks.start()
        assert await third.serials() == ["a.img", "b.img"]
        await third.disks.close()

    play(tmp_path, first, second, scenario=create)


def test_a_drive_that_dies_and_comes_back_as_another_device(tmp_path: Path) -> None:
    steady, dying = LoopDrive(tmp_path, "steady"), DyingDrive(tmp_path, "dying")

    async def scenario(house: House) -> None:
        await house.mirror(steady, dying)
        before = {each.serial: each.mount for each in house.disks.assembly("m0").members}
        old = dying.node
        dying.die()
        await asyncio.to_thread(dying.come_back)
        assert dying.node != old
        assert await house.serials() == ["steady.img"]
        assert await house.serials() == ["dying", "steady.img"]
        after = {each.serial: each.mount for each in house.disks.assembly("m0").members}
        assert after["dying"] > before["dying"]
        assert after["steady.img"] == before["steady.img"]

    play(tmp_path, steady, dying, scenario=scenario)


def test_a_drive_that_its_store_gave_up_vanishes_and_comes_back(tmp_path: Path) -> None:
    steady, dying = LoopDrive(tmp_path, "steady"), DyingDrive(tmp_path, "dying")

    async def scenario(house: House) -> None:
        _, drive_id = await house.mirror(steady, dying)
        dying.die()
        await asyncio.to_thread(dying.detach)
        house.disks.report_failed(drive_id, "write error")
        assert await house.serials() == ["steady.img"]
        await asyncio.to_thread(settle)
        (report,) = await house.disks.mirror_reports()
        assert [each.serial for each in report.members if not each.present] == ["dying"]
        nodes = [each.drive.identity for each in await house.disks.drive_reports()]
        assert dying.identity not in nodes
        await asyncio.to_thread(dying.come_back)
        assert await house.serials() == ["dying", "steady.img"]

    play(tmp_path, steady, dying, scenario=scenario)


def test_a_copy_of_a_member_is_refused_while_the_mirror_goes_on(tmp_path: Path) -> None:
    first, second = LoopDrive(tmp_path, "a"), LoopDrive(tmp_path, "b")
    copy = LoopDrive(tmp_path, "copy", size_bytes=0)

    async def scenario(house: House) -> None:
        await house.mirror(first, second)
        sh("cp", "--sparse=always", str(second.image), str(copy.image))
        await asyncio.to_thread(copy.attach)
        await asyncio.to_thread(settle)
        await house.disks.ensure()
        states = {each.drive.serial: each.state for each in await house.disks.drive_reports()}
        assert states["copy.img"] is DriveState.CLONE
        assert states["b.img"] is DriveState.MEMBER
        assert house.told.empty()

    try:
        play(tmp_path, first, second, scenario=scenario)
    finally:
        copy.close()
