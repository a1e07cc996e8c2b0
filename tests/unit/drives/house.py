"""A disk manager over a fake bay, and everything around it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path

from appliance.control.disks.assembly import Assembly
from appliance.control.disks.creation import NewMirror
from appliance.control.disks.manager import Disks
from appliance.control.disks.passport import Passport, read_passport
from appliance.control.disks.replacement import SparePolicy
from appliance.core.errors import (
    DriveFault,
)
from appliance.core.jobs import Job, JobState
from appliance.engine.interface import Health, MemberHealth, MirrorState
from appliance.engine.mirror.superblock import Superblock, format_drive
from appliance.engine.mirror.witness import Witness, create_witness
from appliance.runtime.clock import SystemClock, SystemEntropy
from appliance.system.files import DirectoryVolume
from tests.unit.drives.bays import FakeBay

Scenario = Callable[["House"], Awaitable[None]]
DEADLINE_S = 20.0


class House:
    """A manager with everything around it."""

    def __init__(self, root: Path) -> None:
        self.bay = FakeBay(root)
        self.made: list[NewMirror] = []
        self.told: list[Assembly] = []
        self.health: Health | None = None
        self.spoil_creation = False
        self.mistakes = 0
        self.orders: list[tuple[str, str, object]] = []
        self.policy = SparePolicy(0.0, 0.0)
        self.disks = self.manager(root)

    def manager(self, root: Path) -> Disks:
        return Disks(
            self.bay,
            mirrors_directory=root / "mirrors",
            make_mirror=self.make,
            clock=SystemClock(),
            entropy=SystemEntropy(),
            health_of=self.health_of,
            order=self.order,
            spare_policy=self.policy,
            look_every_s=0.02,
        )

    def make(self, new: NewMirror) -> None:
        assert new.index_directory.is_dir()
        assert new.witness_file.parent.is_dir()
        for member in new.members:
            with closing(DirectoryVolume(member.path, member.drive_id)) as volume:
                format_drive(volume, Superblock(member.drive_id, mirror_id=new.mirror_id))
                if self.spoil_creation:
                    raise DriveFault("B", "write", 5)
        with closing(DirectoryVolume(new.witness_file.parent, "witness")) as volume:
            create_witness(volume, new.witness_file.name, Witness(new.mirror_id, 0, ()))
        self.made.append(new)

    async def order(self, mirror: str, what: str, message: object) -> None:
        self.orders.append((mirror, what, message))

    async def health_of(self, mirror: str) -> Health | None:
        if self.mistakes:
            self.mistakes -= 1
            raise ZeroDivisionError
        return self.health

    async def ended(self, job: Job) -> Job:
        await self.until(lambda: self.disks.job(job.id).ended)
        return self.disks.job(job.id)

    async def claim(self, serial: str, force: str | None = None) -> str:
        job = await self.ended(await self.disks.claim(serial, force_serial=force))
        assert job.state is JobState.DONE, job.error
        assert (job.done, job.eta_s) == (job.total, None)
        return job.result

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110
                # The manager's own tasks run meanwhile; not all of it has an event.
                await asyncio.sleep(0.001)

    def says(
        self,
        in_sync: Sequence[str],
        failed: Sequence[str] = (),
        away: Sequence[str] = (),
        bringing: str = "",
    ) -> None:
        """What the store tells from now on, by drive id."""
        members = [
            *(MemberHealth(drive, True, True) for drive in in_sync),
            *(MemberHealth(drive, False, False, "EIO", failed=True) for drive in failed),
            *(MemberHealth(drive, False, False, "it is not there") for drive in away),
        ]
        state = MirrorState.IN_SYNC if len(in_sync) > 1 else MirrorState.DEGRADED
        self.health = Health(state, members=members, resync_drive=bringing)

    def ids(self) -> dict[str, str]:
        """Drive ids of the mirror's members by serial."""
        members = self.disks.assembly("m0").membership.members
        return {serial: drive for drive, serial in members}

    def present(self) -> list[tuple[str, int]]:
        members = self.disks.assembly("m0").members
        return [(member.serial, member.mount) for member in members]


def play(root: Path, scenario: Scenario) -> House:
    async def run() -> House:
        house = House(root)
        await house.disks.start()
        house.disks.subscribe(house.told.append)
        try:
            await scenario(house)
        finally:
            await house.disks.close()
        return house

    house = asyncio.run(run())
    assert house.bay.closed
    return house


async def mirrored(house: House) -> None:
    house.bay.attach("A", "sda")
    house.bay.attach("B", "sdb")
    await house.claim("A")
    await house.claim("B")
    await house.disks.create_mirror("m0", ["A", "B"])


async def three(house: House, size_bytes: int = 10**12) -> None:
    """A mirror of A and B, and the claimed drive C."""
    await mirrored(house)
    house.bay.attach("C", "sdc", size_bytes=size_bytes)
    await house.claim("C")
    ids = house.ids()
    house.says([ids["A"], ids["B"]])


def passport_at(house: House, node: str) -> Passport:
    """What the drive at a node says of itself."""
    return read_passport(house.bay.slots[node].content)
