"""Drives that take another's place, as root on loop devices with the whole appliance: a replacement
by hand under load, then a spare by itself when a drive dies, which comes back as nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.drives import DyingDrive, LoopDrive, attached, settle, until
from tests.system.load import Load, running
from tests.system.service import Appliance, appliance, digests
from tests.system.test_service import DRIVE_BYTES, RESYNC_S, bring_up, places

pytestmark = [
    pytest.mark.usefixtures("udev"),
    pytest.mark.timeout(600),
    pytest.mark.needs("qemu-storage-daemon", "mkfs.xfs", "losetup"),
]


def _claim(machine: Appliance, drive: LoopDrive) -> None:
    job = machine.json("drive", "claim", drive.identity)
    assert job["state"] == "done", job


def _in_sync(machine: Appliance) -> set[str]:
    return {each["serial"] for each in machine.mirror()["members"] if each["in_sync"]}


def _states(machine: Appliance) -> dict[str, str]:
    return {each["drive"]["identity"]: each["state"] for each in machine.json("drive", "list")}


def test_a_replacement_by_hand_and_one_by_a_spare(tmp_path: Path, seed: int) -> None:
    steady = LoopDrive(tmp_path, "steady", size_bytes=DRIVE_BYTES)
    outgoing = LoopDrive(tmp_path, "outgoing", size_bytes=DRIVE_BYTES)
    dying = DyingDrive(tmp_path, "dying", size_bytes=DRIVE_BYTES + 2**30)
    spare = LoopDrive(tmp_path, "spare", size_bytes=DRIVE_BYTES)
    small = LoopDrive(tmp_path, "small")
    with (
        attached(steady, outgoing, dying, spare, small),
        appliance(tmp_path / "machine") as machine,
    ):
        settle()
        account = bring_up(machine, steady, outgoing)
        for drive in (dying, spare, small):
            _claim(machine, drive)
        code, sentence = machine.refused("mirror", "replace", "m0", outgoing.serial, small.identity)
        assert code == 4
        assert f"the mirror needs {DRIVE_BYTES}" in sentence
        load = Load(machine.environment(account), account["bucket"], tmp_path, seed)
        with running(load, workers=2):
            until(lambda: load.operations >= 6, "load before the replacement", deadline_s=120)
            job = machine.json("mirror", "replace", "m0", outgoing.serial, dying.identity)
            assert job["state"] == "done", job
            assert _in_sync(machine) == {steady.serial, dying.serial}
            assert _states(machine)[outgoing.identity] == "detached"
            assert machine.refused("drive", "claim", outgoing.identity)[0] == 4
            machine.json("mirror", "spare", "add", "m0", spare.identity)
            assert _states(machine)[spare.identity] == "spare"
            dying.die()
            took_s = until(
                lambda: _in_sync(machine) == {steady.serial, spare.serial},
                "the spare to take its place",
                deadline_s=RESYNC_S,
            )
            print(f"a drive died: the spare is in sync after {took_s:.1f} s under load")
        dying.come_back()
        until(
            lambda: _states(machine).get(dying.identity) == "detached",
            "the drive to come back as nobody",
            deadline_s=RESYNC_S,
        )
        assert _in_sync(machine) == {steady.serial, spare.serial}
        assert not load.failures, load.failures
        load.verify()
        roots = places(machine)
        machine.stop_all()
        assert digests(roots[steady.serial]) == digests(roots[spare.serial])
