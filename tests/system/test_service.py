"""The whole path as root: two drives to a served bucket, a drive's death under load, its return."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.system.drives import DyingDrive, LoopDrive, attached, settle, sh, until
from tests.system.load import Load, running
from tests.system.service import PROGRAMS, Appliance, appliance, digests

pytestmark = [
    pytest.mark.usefixtures("udev"),
    pytest.mark.timeout(900),
    pytest.mark.needs("qemu-storage-daemon", "mkfs.xfs", "losetup"),
]
DRIVE_BYTES = 12 * 1024**3
WORKERS = 3
RESYNC_S = 180.0


def bring_up(machine: Appliance, first: LoopDrive, second: LoopDrive) -> dict[str, Any]:
    """list → claim → mirror → serve → account, as an operator types it."""
    machine.start_all()
    listed = {each["drive"]["identity"]: each for each in machine.json("drive", "list")}
    for drive in (first, second):
        assert listed[drive.identity]["state"] == "claimable", listed[drive.identity]
        job = machine.json("drive", "claim", drive.identity)
        assert job["state"] == "done", job
    report = machine.json("mirror", "create", "m0", first.identity, second.identity)
    assert {member["serial"] for member in report["members"]} == {first.serial, second.serial}
    machine.start("store", "m0")
    until(lambda: machine.mirror()["state"] == "in sync", "the mirror to be in sync", deadline_s=60)
    until(machine.serves, "the appliance to serve", deadline_s=60)
    return dict(machine.json("account", "create", "office"))


def places(machine: Appliance) -> dict[str, Path]:
    """Where each present member is mounted, by serial."""
    members = machine.mirror()["members"]
    return {member["serial"]: Path(member["path"]) for member in members if member["present"]}


def test_from_two_drives_to_a_bucket_and_over_a_restart(tmp_path: Path) -> None:
    first = LoopDrive(tmp_path, "first", size_bytes=DRIVE_BYTES)
    second = LoopDrive(tmp_path, "second", size_bytes=DRIVE_BYTES)
    taken = LoopDrive(tmp_path, "taken")
    with attached(first, second, taken), appliance(tmp_path / "machine") as machine:
        sh("mkfs.ext4", "-q", "-L", "photos", taken.node)
        settle()
        account = bring_up(machine, first, second)
        code, sentence = machine.refused("drive", "claim", taken.identity)
        assert code == 4
        assert 'a file system (ext4) labelled "photos"' in sentence
        assert f"--force-serial {taken.serial}" in sentence
        assert machine.refused("drive", "claim", first.node)[0] == 2
        assert machine.refused("drive", "claim", first.identity)[0] == 4
        assert machine.refused("drive", "claim", "nothing")[0] == 3
        load = Load(machine.environment(account), account["bucket"], tmp_path, seed=1)
        source = tmp_path / "body"
        source.write_bytes(b"first light")
        where = ("--bucket", account["bucket"], "--key", "a/b", "--body", str(source))
        assert load.aws("put-object", *where), load.failures
        machine.stop_all()
        assert machine.refused("status")[0] == 5
        machine.start_all("m0")
        until(machine.serves, "the appliance to serve again", deadline_s=60)
        environment = machine.environment(account)
        back = subprocess.run(
            [PROGRAMS / "aws", "s3", "cp", f"s3://{account['bucket']}/a/b", "-"],
            check=True,
            capture_output=True,
            env=environment,
        )
        assert back.stdout == b"first light"
        roots = places(machine)
        machine.stop_all()
        assert digests(roots[first.serial]) == digests(roots[second.serial])


def test_a_drive_dies_under_load_and_returns(tmp_path: Path, seed: int) -> None:
    steady = LoopDrive(tmp_path, "steady", size_bytes=DRIVE_BYTES)
    dying = DyingDrive(tmp_path, "dying", size_bytes=DRIVE_BYTES)
    with attached(steady, dying), appliance(tmp_path / "machine") as machine:
        settle()
        # Either place in the mirror may be the one that dies.
        pair = (steady, dying) if seed % 2 else (dying, steady)
        account = bring_up(machine, *pair)
        load = Load(machine.environment(account), account["bucket"], tmp_path, seed)
        with running(load, workers=WORKERS):
            until(lambda: load.operations >= 20, "load before the fault", deadline_s=120)
            load.longest_s = 0.0
            died_s = time.monotonic()
            dying.die()
            before = load.operations
            noticed_s = until(
                lambda: machine.mirror()["state"] == "degraded", "the fault noticed", deadline_s=60
            )
            until(lambda: load.operations >= before + 20, "load without it", deadline_s=120)
            assert not load.failures, load.failures
            print(
                f"drive died: degraded after {noticed_s:.1f} s, {load.operations - before} "
                f"operations since, 0 failed, the longest took {load.longest_s:.1f} s"
            )
            dying.come_back()
            in_sync_s = until(
                lambda: machine.mirror()["state"] == "in sync", "the return", deadline_s=RESYNC_S
            )
            print(f"drive returned: in sync after {in_sync_s:.1f} s under load")
        assert not load.failures, load.failures
        assert time.monotonic() - died_s < RESYNC_S * 2
        load.verify()
        roots = places(machine)
        machine.stop_all()
        assert digests(roots[steady.serial]) == digests(roots[dying.serial])
