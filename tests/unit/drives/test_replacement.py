"""Drives that take another's place, by an operator's word and by themselves, as control does it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from appliance.control.disks.passport import Passport, read_passport, write_passport
from appliance.core.admin import DriveState
from appliance.core.errors import InvalidInput, NotFound, Refused
from appliance.core.jobs import JobState
from tests.unit.drives.house import House, passport_at, play, three


def test_a_claimed_drive_takes_a_members_place(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await three(house)
        ids = house.ids()
        job = await house.disks.replace("m0", "B", "C")
        new = house.ids()["C"]
        assembly = house.disks.assembly("m0")
        assert house.told[-1] == assembly
        assert assembly.message()["replaces"] == {new: ids["B"]}
        assert sorted(member.serial for member in assembly.members) == ["A", "B", "C"]
        (report,) = await house.disks.mirror_reports()
        roles = {member.serial: member.role for member in report.members}
        assert roles == {"A": "member", "B": "outgoing", "C": "joining"}
        assert (await house.disks.replace("m0", "B", "C")).id == job.id, "the same once more"
        house.says([ids["A"], ids["B"]], bringing=new)
        await house.until(lambda: house.disks.job(job.id).step != "")
        house.says([ids["A"], new])
        ended = await house.ended(job)
        assert (ended.state, ended.result) == (JobState.DONE, new)
        assert sorted(house.ids()) == ["A", "C"]
        assert house.disks.assembly("m0").message()["replaces"] == {}
        old = passport_at(house, "sdb")
        assert (old.mirror, old.former) == (None, "m0")
        reports = {each.drive.serial: each for each in await house.disks.drive_reports()}
        assert reports["B"].state is DriveState.DETACHED
        assert reports["C"].state is DriveState.MEMBER

    play(tmp_path, scenario)


def test_what_was_detached_is_wiped_only_by_a_claim_with_its_serial(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await three(house)
        ids = house.ids()
        job = await house.disks.replace("m0", "B", "C")
        house.says([ids["A"], house.ids()["C"]])
        await house.ended(job)
        formatted = list(house.bay.formatted)
        for attempt in (
            house.disks.claim("B"),
            house.disks.create_mirror("m1", ["B", "C"]),
            house.disks.replace("m0", "C", "B"),
            house.disks.add_spare("m0", "B"),
        ):
            with pytest.raises(Refused):
                await attempt
        assert house.bay.formatted == formatted
        await house.claim("B", force="B")
        assert passport_at(house, "sdb").is_free

    play(tmp_path, scenario)


def test_a_dead_drive_is_replaced_and_comes_back_as_nobody(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await three(house)
        ids = house.ids()
        content = house.bay.detach("sdb").content
        await house.until(lambda: len(house.present()) == 1)
        job = await house.disks.replace("m0", ids["B"], "C")
        new = house.ids()["C"]
        house.says([ids["A"], new])
        await house.ended(job)
        house.told.clear()
        house.bay.attach("B", "sdx", content)
        await house.until(lambda: read_passport(content).former == "m0")
        assert house.told == [], "the store hears nothing of it"
        assert sorted(house.ids()) == ["A", "C"]

    play(tmp_path, scenario)


def _refusals() -> list[tuple[str, type[Exception], str, str, str]]:
    return [
        ("not claimed", Refused, "B", "D", "not claimed"),
        ("a member", Refused, "B", "A", "belongs to mirror m0|a member of the mirror"),
        ("itself", InvalidInput, "B", "B", "by itself"),
        ("no such member", NotFound, "Z", "C", "its drives are"),
        ("no such drive", NotFound, "B", "Z", "cannot find a drive"),
        ("no such mirror", NotFound, "", "", "mirror"),
    ]


@pytest.mark.parametrize(("_name", "error", "old", "new", "words"), _refusals())
def test_who_may_not(
    tmp_path: Path, _name: str, error: type[Exception], old: str, new: str, words: str
) -> None:
    async def scenario(house: House) -> None:
        await three(house)
        house.bay.attach("D", "sdd")
        with pytest.raises(error, match=words):
            if old:
                await house.disks.replace("m0", old, new)
            else:
                await house.disks.replace("m7", "B", "C")
        assert sorted(house.ids()) == ["A", "B"]

    play(tmp_path, scenario)


@pytest.mark.parametrize("size_bytes", [10**12 - 1, 10**12, 2 * 10**12])
def test_a_drive_that_is_too_small_is_told_by_numbers(tmp_path: Path, size_bytes: int) -> None:
    async def scenario(house: House) -> None:
        await three(house, size_bytes)
        if size_bytes >= 10**12:
            await house.disks.replace("m0", "B", "C")
            return
        with pytest.raises(Refused, match=r"999999999999 bytes .*, 1 too few.*1000000000000"):
            await house.disks.replace("m0", "B", "C")
        with pytest.raises(Refused, match="too few"):
            await house.disks.add_spare("m0", "C")

    play(tmp_path, scenario)


def test_the_capacity_is_the_smaller_drives(tmp_path: Path) -> None:
    """Both are replaced by larger ones; from then on a drive of the old size is too small."""

    async def scenario(house: House) -> None:
        await three(house, 2 * 10**12)
        ids = house.ids()
        job = await house.disks.replace("m0", "B", "C")
        house.says([ids["A"], house.ids()["C"]])
        await house.ended(job)
        assert house.disks.assembly("m0").membership.capacity_bytes == 10**12
        house.bay.attach("D", "sdd", size_bytes=3 * 10**12)
        await house.claim("D")
        job = await house.disks.replace("m0", "A", "D")
        house.says([house.ids()["C"], house.ids()["D"]])
        await house.ended(job)
        assert house.disks.assembly("m0").membership.capacity_bytes == 2 * 10**12

    play(tmp_path, scenario)


def test_a_copied_drive_is_no_replacement(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await three(house)
        passport = passport_at(house, "sdc")
        other = Passport(passport.drive_id, "Q", claimed_ns=passport.claimed_ns)
        content = house.bay.detach("sdc").content
        await house.until(lambda: passport.drive_id not in house.disks.present)
        write_passport(content, other)
        house.bay.attach("C", "sdc", content)
        await house.until(lambda: passport.drive_id in house.disks.present)
        with pytest.raises(Refused, match="serial Q, but this drive's is C"):
            await house.disks.replace("m0", "B", "C")

    play(tmp_path, scenario)


def test_a_new_drive_that_dies_gives_way_to_another(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await three(house)
        first = await house.disks.replace("m0", "B", "C")
        house.bay.attach("D", "sdd")
        await house.claim("D")
        with pytest.raises(Refused, match="taking the place"):
            await house.disks.replace("m0", "B", "D")
        with pytest.raises(Refused, match="taking the place"):
            await house.disks.replace("m0", "A", "D")
        content = house.bay.detach("sdc").content
        await house.until(lambda: len(house.present()) == 2)
        await house.disks.replace("m0", "B", "D")
        assert sorted(house.ids()) == ["A", "B", "D"]
        assert (await house.ended(first)).state is JobState.FAILED
        house.bay.attach("C", "sdc", content)
        await house.until(lambda: read_passport(content).former == "m0")
        assert sorted(house.ids()) == ["A", "B", "D"]

    play(tmp_path, scenario)


# -- crashes ---------------------------------------------------------------------------------------


def _interrupted(house: House, writes: int) -> Callable[[Path, Passport], None]:
    """A ``write_passport`` that fails from some write on, as if this process had died there."""
    done = 0

    def write(root: Path, passport: Passport) -> None:
        nonlocal done
        done += 1
        if done > writes:
            raise _Died
        write_passport(root, passport)

    return write


class _Died(BaseException):
    """Nobody is there any more to catch anything."""


@pytest.mark.parametrize("writes", range(7))
def test_a_crash_at_every_passport_is_made_good(
    tmp_path: Path, writes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies after some passports of a replacement; the next life ends it, or nothing
    has begun, and the same order begins it."""
    serials: dict[str, str] = {}

    async def first(house: House) -> None:
        await three(house)
        serials.update({drive: serial for serial, drive in house.ids().items()})
        serials[passport_at(house, "sdc").drive_id] = "C"
        by_serial = {serial: drive for drive, serial in serials.items()}
        house.says([by_serial["A"], by_serial["C"]])  # the store is quick
        with monkeypatch.context() as patched:
            for module in ("reality", "succession"):
                name = f"appliance.control.disks.{module}.write_passport"
                patched.setattr(name, _interrupted(house, writes))
            with contextlib.suppress(_Died):
                await house.disks.replace("m0", "B", "C")
                await house.disks._succession.ensure()
            await house.disks._succession.close()

    async def second(house: House) -> None:
        by_serial = {serial: drive for drive, serial in serials.items()}
        house.says([by_serial["A"], by_serial["C"]])
        await _again(lambda: house.disks.replace("m0", "B", "C"))
        await house.until(lambda: sorted(house.ids()) == ["A", "C"])
        await house.until(lambda: passport_at(house, "sdb").former == "m0")
        for node in ("sda", "sdc"):
            assert passport_at(house, node).mirror == house.disks.assembly("m0").membership

    bay = play(tmp_path, first).bay

    def attach_all(house: House) -> None:
        for serial, node in (("A", "sda"), ("B", "sdb"), ("C", "sdc")):
            house.bay.attach(serial, node, bay.slots[node].content)

    async def run() -> None:
        house = House(tmp_path)
        attach_all(house)
        await house.disks.start()
        try:
            await second(house)
        finally:
            await house.disks.close()

    asyncio.run(run())


async def _again(order: Callable[[], Awaitable[object]]) -> None:
    """Give the order once more; it may be done already."""
    with contextlib.suppress(NotFound, Refused):
        await order()
