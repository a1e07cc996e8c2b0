"""Claims and mirror creation over a fake bay: refused, interrupted, repeated."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from appliance.control.disks.creation import unfinished_mirror_id
from appliance.control.disks.passport import read_passport, write_passport
from appliance.core.drives import Signature
from appliance.core.errors import (
    ApplianceError,
    DriveFault,
    InvalidInput,
    NotFound,
    Refused,
)
from appliance.core.jobs import JobState
from tests.unit.drives.house import DEADLINE_S, House, mirrored, play


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


def test_a_mirror_whose_drives_are_away_is_not_made_anew(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        assert not house.disks.was_made("m0")
        await mirrored(house)
        away = [house.bay.detach("sda"), house.bay.detach("sdb")]
        await house.until(lambda: not house.disks.assembly("m0").members)
        await house.disks.close()
        house.disks = house.manager(tmp_path)
        await house.disks.start()
        assert house.disks.mirrors() == []
        assert house.disks.was_made("m0")
        for serial, node in (("C", "sdc"), ("D", "sdd")):
            house.bay.attach(serial, node)
            await house.claim(serial)
        with pytest.raises(Refused, match=r"'m0'.*drives are away.*choose another name"):
            await house.disks.create_mirror("m0", ["C", "D"])
        await house.disks.create_mirror("m1", ["C", "D"])
        for slot in away:
            house.bay.attach(slot.drive.serial, slot.drive.node, slot.content)
        await house.until(lambda: house.disks.mirrors() == ["m0", "m1"])
        assert [new.name for new in house.made] == ["m0", "m1"]

    play(tmp_path, scenario)
