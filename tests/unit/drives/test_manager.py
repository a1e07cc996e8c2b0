"""The disk manager over a fake bay: claim, mirror, loss and return, told in order."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from appliance.control.disks.assembly import Assembly
from appliance.control.disks.creation import NewMirror, unfinished_mirror_id
from appliance.control.disks.manager import Disks
from appliance.control.disks.passport import read_passport, write_passport
from appliance.core.admin import DriveState
from appliance.core.drives import Signature
from appliance.core.errors import (
    ApplianceError,
    DriveFault,
    InvalidInput,
    NotFound,
    Refused,
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
        self.disks = self.manager(root)

    def manager(self, root: Path) -> Disks:
        return Disks(
            self.bay,
            mirrors_directory=root / "mirrors",
            make_mirror=self.make,
            clock=SystemClock(),
            entropy=SystemEntropy(),
            health_of=self.health_of,
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

    async def health_of(self, mirror: str) -> Health | None:
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


def test_from_two_drives_to_an_assembly(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await mirrored(house)
        assembly = await house.disks.assembled("m0")
        assert [member.serial for member in assembly.members] == ["A", "B"]
        assert house.told[-1] == assembly
        (new,) = house.made
        assert new.mirror_id == assembly.mirror_id
        assert [each.serial for each in new.members] == ["A", "B"]
        for member in assembly.members:
            passport = read_passport(member.path)
            assert passport.mirror is not None
            first, second = new.members
            expected = ((first.drive_id, "A"), (second.drive_id, "B"))
            assert passport.mirror.members == expected
        reports = await house.disks.drive_reports()
        assert [(each.state, each.mirror) for each in reports] == [
            (DriveState.MEMBER, "m0"),
            (DriveState.MEMBER, "m0"),
        ]

    play(tmp_path, scenario)


def test_a_drive_that_goes_and_returns_is_told_in_order(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await mirrored(house)
        before = house.present()
        house.told.clear()
        content = house.bay.detach("sdb").content
        await house.until(lambda: len(house.told) == 1)
        assert [member.serial for member in house.told[0].members] == ["A"]
        assert list(house.told[0].absent.values()) == ["B"]
        house.bay.attach("B", "sdx", content)
        await house.until(lambda: len(house.told) == 2)
        assert [member.serial for member in house.told[1].members] == ["A", "B"]
        assert house.present()[0] == before[0]
        assert house.present()[1][1] > before[1][1]

    play(tmp_path, scenario)


def test_all_drives_away_is_an_empty_assembly_not_a_forgotten_one(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await mirrored(house)
        house.bay.detach("sda")
        house.bay.detach("sdb")
        await house.until(lambda: not house.disks.assembly("m0").members)
        (report,) = await house.disks.mirror_reports()
        assert report.state == "offline"
        assert sorted(member.serial for member in report.members) == ["A", "B"]

    play(tmp_path, scenario)


def test_a_reported_drive_gets_a_fresh_mount_once_its_user_let_go(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await mirrored(house)
        before = house.present()
        drive_id = house.disks.assembly("m0").members[1].drive
        house.bay.slots["sdb"].held = True
        house.disks.report_failed(drive_id, "write error")
        await house.until(lambda: len(house.disks.assembly("m0").members) == 1)
        assert await house.disks.ensure() is False
        reports = {each.drive.serial: each for each in await house.disks.drive_reports()}
        assert reports["B"].state is DriveState.FAULTY
        house.bay.slots["sdb"].held = False
        house.bay.ring()
        await house.until(lambda: len(house.disks.assembly("m0").members) == 2)
        assert house.present()[1][1] > before[1][1]

    play(tmp_path, scenario)


def test_a_silent_drive_is_tried_again_without_any_event(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await mirrored(house)
        content = house.bay.detach("sdb").content
        await house.until(lambda: len(house.disks.assembly("m0").members) == 1)
        house.bay.attach("B", "sdb", content).dead = True
        await house.disks.ensure()
        house.bay.slots["sdb"].dead = False
        await house.until(lambda: len(house.disks.assembly("m0").members) == 2)

    play(tmp_path, scenario)


def test_a_restarted_manager_finds_the_mounts_of_its_former_life(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await mirrored(house)
        await house.disks.close()
        house.disks = house.manager(tmp_path)
        places = dict(house.bay.places)
        await house.disks.start()
        assert [member.serial for member in house.disks.assembly("m0").members] == ["A", "B"]
        assert house.bay.places == places

    play(tmp_path, scenario)


def test_a_clone_is_shown_and_not_mounted(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await mirrored(house)
        content = house.bay.slots["sdb"].content
        house.bay.attach("B2", "sdz", content)
        await house.disks.ensure()
        states = {each.drive.node: each.state for each in await house.disks.drive_reports()}
        assert states["sdz"] is DriveState.CLONE
        assert states["sdb"] is DriveState.MEMBER

    play(tmp_path, scenario)


def test_another_drives_passport_is_not_admitted(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        house.bay.attach("A", "sda")
        await house.claim("A")
        slot = house.bay.detach("sda")
        await house.until(lambda: not house.bay.places)
        passport = read_passport(slot.content)
        write_passport(slot.content, dataclasses.replace(passport, drive_id="another"))
        house.bay.attach("A", "sda", slot.content)
        await house.disks.ensure()
        (report,) = await house.disks.drive_reports()
        assert report.state is DriveState.FAULTY
        assert "another drive's" in report.reasons[0]
        assert not house.bay.places

    play(tmp_path, scenario)


def test_claiming_again_changes_nothing_and_forcing_wipes(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        house.bay.attach("A", "sda")
        first = await house.claim("A")
        assert await house.claim("A") == first
        assert house.bay.formatted == ["sda"]
        assert await house.claim("A", "A") != first
        assert house.bay.formatted == ["sda", "sda"]

    play(tmp_path, scenario)


def test_events_during_a_claim_leave_the_drive_to_its_job(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        loop = asyncio.get_running_loop()
        house.bay.attach("A", "sda")

        def look() -> None:
            looking = asyncio.run_coroutine_threadsafe(house.disks.ensure(), loop)
            assert looking.result(DEADLINE_S) is False

        house.bay.on_mount = look
        await house.claim("A")
        assert next(iter(house.bay.places.values())).node == "sda"

    play(tmp_path, scenario)


def test_what_carries_data_is_refused_with_the_way_on(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        slot = house.bay.attach("A", "sda")
        slot.drive = dataclasses.replace(slot.drive, signatures=(Signature("ext4", "data"),))
        with pytest.raises(Refused, match=r"ext4.*--force-serial A"):
            await house.disks.claim("A")
        with pytest.raises(Refused, match="serial typed"):
            await house.disks.claim("A", force_serial="B")
        with pytest.raises(InvalidInput):
            await house.disks.claim("/dev/sda")
        assert house.bay.formatted == []
        await house.claim("A", "A")

    play(tmp_path, scenario)


def test_a_member_is_never_claimed_not_even_forced(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await mirrored(house)
        for force in (None, "A"):
            with pytest.raises(Refused, match="member of mirror m0"):
                await house.disks.claim("A", force_serial=force)
        assert house.bay.formatted == ["sda", "sdb"]

    play(tmp_path, scenario)


def test_a_failed_format_ends_its_job_with_a_sentence(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        house.bay.attach("A", "sda")
        house.bay.failing_step = "making the file system"
        job = await house.ended(await house.disks.claim("A"))
        assert job.state is JobState.FAILED
        assert "it would not" in job.error
        house.bay.failing_step = ""
        await house.claim("A")

    play(tmp_path, scenario)


def test_what_makes_no_mirror_is_refused(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await mirrored(house)
        house.bay.attach("C", "sdc")
        refusals: list[tuple[str, list[str], type[ApplianceError]]] = [
            ("m0", ["A", "B"], Refused),
            ("m1", ["A", "C"], Refused),
            ("m1", ["C", "C"], Refused),
            ("m1", ["D", "C"], NotFound),
            ("M 1", ["C", "D"], InvalidInput),
            ("../up", ["C", "D"], InvalidInput),
        ]
        for name, drives, error in refusals:
            with pytest.raises(error):
                await house.disks.create_mirror(name, drives)
        await house.claim("C")
        for drives in (["C", "C"], ["C"]):
            with pytest.raises(InvalidInput, match="two different drives"):
                await house.disks.create_mirror("m1", drives)
        assert len(house.made) == 1

    play(tmp_path, scenario)


def test_an_interrupted_creation_starts_over(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        house.spoil_creation = True
        with pytest.raises(DriveFault):
            await mirrored(house)
        assert house.disks.mirrors() == []
        house.spoil_creation = False
        begun = unfinished_mirror_id(list(house.disks.present.values()))
        await house.disks.create_mirror("m0", ["A", "B"])
        assert house.disks.assembly("m0").mirror_id == begun

    play(tmp_path, scenario)


def test_a_creation_cut_before_the_passports_is_taken_up(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await mirrored(house)
        slots = [house.bay.detach("sda"), house.bay.detach("sdb")]
        await house.until(lambda: not house.disks.assembly("m0").members)
        await house.disks.close()
        for slot in slots:
            passport = read_passport(slot.content)
            write_passport(slot.content, dataclasses.replace(passport, mirror=None))
        house.disks = house.manager(tmp_path)
        await house.disks.start()
        for slot in slots:
            house.bay.attach(slot.drive.serial, slot.drive.node, slot.content)
        await house.disks.ensure()
        await house.disks.create_mirror("m0", ["A", "B"])
        assert len(house.made) == 1
        assert house.disks.assembly("m0").mirror_id == house.made[0].mirror_id

    play(tmp_path, scenario)


def test_a_creation_cut_between_the_passports_is_completed(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await mirrored(house)
        slot = house.bay.detach("sdb")
        await house.until(lambda: len(house.disks.assembly("m0").members) == 1)
        passport = read_passport(slot.content)
        write_passport(slot.content, dataclasses.replace(passport, mirror=None))
        house.bay.attach("B", "sdb", slot.content)
        await house.until(lambda: len(house.disks.assembly("m0").members) == 2)
        await house.disks.ensure()
        assert read_passport(slot.content) == passport

    play(tmp_path, scenario)


def test_the_store_s_word_is_in_the_mirror_report(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await mirrored(house)
        (silent,) = await house.disks.mirror_reports()
        assert silent.state == "assembling"
        first, second = (member.drive for member in house.disks.assembly("m0").members)
        house.health = Health(
            MirrorState.RESYNCING,
            reason="drive B returned",
            members=(MemberHealth(first, True, True), MemberHealth(second, False, True, "behind")),
            resync_done=10,
            resync_total=100,
        )
        (report,) = await house.disks.mirror_reports()
        by_serial = {member.serial: member for member in report.members}
        assert (report.state, report.resync_total) == ("resyncing", 100)
        assert by_serial["A"].in_sync
        assert by_serial["B"].reason == "behind"

    play(tmp_path, scenario)


def test_nobody_waits_for_a_mirror_that_is_unknown(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        with pytest.raises(NotFound):
            house.disks.assembly("m0")
        waiting = asyncio.create_task(house.disks.assembled("m0"))
        await mirrored(house)
        async with asyncio.timeout(DEADLINE_S):
            assert (await waiting).mirror == "m0"
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting

    play(tmp_path, scenario)
