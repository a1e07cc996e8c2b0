"""The disk manager over a fake bay: assembly, loss and return, told in order."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import suppress
from pathlib import Path

import pytest

from appliance.control.disks.passport import read_passport, write_passport
from appliance.core.admin import DriveState
from appliance.core.errors import (
    NotFound,
)
from appliance.engine.interface import Health, MemberHealth, MirrorState
from tests.unit.drives.house import DEADLINE_S, House, mirrored, play


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
