"""Spares: kept ready, given back, and when one takes a drive's place by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.control.disks import succession
from appliance.control.disks.replacement import SparePolicy, Watch
from appliance.control.disks.succession import Succession
from appliance.core.admin import DriveState
from appliance.core.errors import NotFound, Refused
from appliance.core.jobs import JobState
from appliance.engine.interface import Health, MemberHealth, MirrorState
from tests.unit.drives.house import House, passport_at, play, three


def test_a_spare_takes_a_failed_drives_place_by_itself(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await three(house)
        ids = house.ids()
        report = await house.disks.add_spare("m0", "C")
        assert [member.serial for member in report.members if member.role == "spare"] == ["C"]
        assert sorted(house.ids()) == ["A", "B"]
        reports = {each.drive.serial: each for each in await house.disks.drive_reports()}
        assert reports["C"].state is DriveState.SPARE
        with pytest.raises(Refused, match="spare of mirror m0"):
            await house.disks.claim("C", force_serial="C")
        spare = passport_at(house, "sdc").drive_id
        house.says([ids["A"]], failed=[ids["B"]])
        assert await house.disks._succession.ensure()
        assert sorted(house.ids()) == ["A", "B", "C"]
        assert house.disks.assembly("m0").membership.spares == ()
        house.says([ids["A"], spare])
        await house.until(lambda: sorted(house.ids()) == ["A", "C"])
        (job,) = [each for each in house.disks.jobs() if each.title.startswith("replace")]
        assert (await house.ended(job)).state is JobState.DONE

    play(tmp_path, scenario)


def test_a_mistake_ends_neither_keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(succession, "AFTER_A_MISTAKE_S", 0.01)

    async def scenario(house: House) -> None:
        await three(house)
        await house.disks.add_spare("m0", "C")
        ids, spare = house.ids(), passport_at(house, "sdc").drive_id
        house.mistakes = 3
        house.bay.mistakes = 1
        house.bay.ring()
        await house.until(lambda: not house.mistakes and not house.bay.mistakes)
        house.says([ids["A"]], failed=[ids["B"]])
        await house.until(lambda: spare in house.ids().values())
        house.bay.detach("sdc")
        await house.until(lambda: "C" not in dict(house.present()))

    play(tmp_path, scenario)


def test_a_spare_is_given_back_free(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await three(house)
        await house.disks.add_spare("m0", "C")
        await house.disks.add_spare("m0", "C")
        await house.disks.remove_spare("m0", "C")
        assert passport_at(house, "sdc").is_free
        with pytest.raises(NotFound):
            await house.disks.remove_spare("m0", "C")
        await house.disks.replace("m0", "B", "C")

    play(tmp_path, scenario)


def test_a_spare_may_be_named_in_a_replacement(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await three(house)
        await house.disks.add_spare("m0", "C")
        await house.disks.replace("m0", "B", "C")
        assert house.disks.assembly("m0").membership.spares == ()
        assert sorted(house.ids()) == ["A", "B", "C"]

    play(tmp_path, scenario)


def test_spares_outlive_control(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await three(house)
        await house.disks.add_spare("m0", "C")
        await house.disks.close()
        again = house.manager(tmp_path)
        await again.start()
        assert [serial for _, serial in again.assembly("m0").membership.spares] == ["C"]
        await again.close()

    play(tmp_path, scenario)


def _health(state: MirrorState, *members: MemberHealth) -> Health:
    return Health(state, members=members)


def test_when_a_spare_is_due(tmp_path: Path) -> None:
    """At once for a failed drive, after a while for a missing one, never while the mirror does not
    serve, and from the beginning once the drive was back."""

    async def scenario(house: House) -> None:
        await three(house)
        ids = house.ids()
        whole = MemberHealth(ids["A"], True, True)
        failed = MemberHealth(ids["B"], False, True, failed=True)
        away = MemberHealth(ids["B"], False, False)
        assembly = house.disks.assembly("m0")
        degraded, watch = MirrorState.DEGRADED, Watch(SparePolicy(0.0, 600.0))
        assert watch.due(assembly, _health(degraded, whole, failed), 0.0) == ids["B"]
        assert watch.due(assembly, _health(MirrorState.READ_ONLY, whole, failed), 0.0) == ""
        assert watch.due(assembly, _health(degraded, whole, away), 0.0) == "", "it is there"
        house.bay.detach("sdb")
        await house.until(lambda: len(house.present()) == 1)
        assembly = house.disks.assembly("m0")
        watch = Watch(SparePolicy(0.0, 600.0))
        assert watch.due(assembly, _health(degraded, whole, away), 10.0) == ""
        assert watch.due(assembly, _health(degraded, whole, away), 609.0) == ""
        assert watch.due(assembly, _health(degraded, whole, away), 610.0) == ids["B"]
        back = MemberHealth(ids["B"], True, True)
        assert watch.due(assembly, _health(MirrorState.IN_SYNC, whole, back), 611.0) == ""
        assert watch.due(assembly, _health(degraded, whole, away), 612.0) == ""
        slow = Watch(SparePolicy(60.0, 600.0))
        assert slow.due(assembly, _health(degraded, whole, failed), 0.0) == ""
        assert slow.due(assembly, _health(degraded, whole, failed), 60.0) == ids["B"]

    play(tmp_path, scenario)


def test_the_smallest_spare_that_is_there_is_taken(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await three(house, 4 * 10**12)
        ids = house.ids()
        house.bay.attach("D", "sdd", size_bytes=2 * 10**12)
        house.bay.attach("E", "sde")
        for serial in ("D", "E"):
            await house.claim(serial)
        for serial in ("C", "D", "E"):
            await house.disks.add_spare("m0", serial)
        house.bay.detach("sde")
        await house.until(lambda: len(house.disks.present) == 4)
        house.says([ids["A"]], failed=[ids["B"]])
        await house.disks._succession.ensure()
        assert sorted(house.ids()) == ["A", "B", "D"]

    play(tmp_path, scenario)


def test_a_resync_is_paused_through_the_store(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await three(house)
        await house.disks.pause_resync("m0", paused=True)
        await house.disks.pause_resync("m0", paused=False)
        assert house.orders == [("m0", "resync", "pause"), ("m0", "resync", "resume")]
        with pytest.raises(NotFound):
            await house.disks.pause_resync("m9", paused=True)

    play(tmp_path, scenario)


def test_looking_again_changes_nothing(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await three(house)
        succession: Succession = house.disks._succession
        assert not await succession.ensure()
        await house.disks.replace("m0", "B", "C")
        house.told.clear()
        for _ in range(3):
            assert not await succession.ensure()
        assert house.told == []

    play(tmp_path, scenario)
