"""Drives that fail, hang, vanish and fill up under real clients, as root with the whole appliance.

One machine goes from one trouble to the next. Clients with three attempts see no failure but puts
refused for want of room; nothing acknowledged is lost, the mirror says what is wrong with which
drive, and both copies are equal at the end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from botocore.exceptions import ClientError

from tests.crash.figures import publish_if_asked
from tests.system.clientele import BUCKET, Clientele
from tests.system.drives import LoopDrive, attached, settle, sh, until
from tests.system.failing_drive import FailingDrive
from tests.system.service import Appliance, appliance, digests
from tests.system.test_service import DRIVE_BYTES, bring_up, places

pytestmark = [
    pytest.mark.usefixtures("udev"),
    pytest.mark.timeout(1500),
    pytest.mark.needs("qemu-storage-daemon", "mkfs.xfs", "losetup"),
]
CRASH: Final = "crash, and a hang at the start"
"""While no store is there at all, requests may fail."""
HANG_S: Final = 30.0
DEADLINE_S: Final = 10.0
MISSING_S: Final = 5.0
BOTH_HANG_S: Final = 1.5 * DEADLINE_S
BACK_S: Final = 300.0
EAGER: Final = "resync_busy_percent = 75\n"
"""So that it takes minutes: by default a resync leaves clients three quarters of the time."""
LEFT_BYTES: Final = 256 * 1024
"""What a filler leaves of a drive."""


@pytest.mark.soak
def test_failing_drives_under_real_clients(tmp_path: Path, seed: int) -> None:
    one = FailingDrive(tmp_path, "one", size_bytes=DRIVE_BYTES)
    other = FailingDrive(tmp_path, "other", size_bytes=DRIVE_BYTES)
    with (
        attached(one, other),
        appliance(
            tmp_path / "machine", deadline_s=DEADLINE_S, missing_s=MISSING_S, more=EAGER
        ) as machine,
    ):
        settle()
        clients = Clientele(machine, bring_up(machine, one, other), tmp_path, seed)
        with clients.running():
            _writes_fail(machine, clients, one)
            _one_hangs(machine, clients, other)
            _both_hang(machine, clients, one, other)
            _one_hangs_at_the_start(machine, clients, other)
            _one_vanishes(machine, clients, one)
            refused = _fill_up(machine, clients)
        unharmed = clients.tolls.keys() - {*refused, CRASH}
        assert unharmed == {"EIO", "hang", "both hang", "gone and back"}
        assert not any(clients.tolls[name].failed for name in unharmed), clients.load.failures
        objects = clients.check()
        roots = places(machine)
        machine.stop_all()
        assert digests(roots[one.serial]) == digests(roots[other.serial])
        _publish(clients, objects)


def _says(machine: Appliance, drive: LoopDrive) -> str:
    """Why a drive does not count, by the mirror's status; empty while it does."""
    (member,) = (m for m in machine.mirror()["members"] if m["serial"] == drive.serial)
    return "" if member["in_sync"] else str(member["reason"])


def _alerts(machine: Appliance) -> str:
    return "\n".join(alert["text"] for alert in machine.mirror()["alerts"])


def _left_out(machine: Appliance, drive: LoopDrive, why: str) -> None:
    """The mirror goes on without the drive, and says so: why, at least in some words."""

    def is_told() -> bool:
        said = _says(machine, drive)
        return bool(said) and why in said

    until(is_told, f"{drive.serial} to be left out", deadline_s=BACK_S)
    assert machine.mirror()["state"] in {"degraded", "resyncing"}
    assert not machine.serves(), "the appliance calls itself well"
    assert "left the mirror" in _alerts(machine)


def _back(machine: Appliance, drive: LoopDrive) -> None:
    took_s = until(
        lambda: machine.mirror()["state"] == "in sync", f"{drive.serial} to be back",
        deadline_s=BACK_S,
    )  # fmt: skip
    print(f"   {drive.serial} in sync after {took_s:.1f} s under load")


def _writes_fail(machine: Appliance, clients: Clientele, drive: FailingDrive) -> None:
    """The device stays, and takes writes again after a while."""
    with clients.fault("EIO"):
        drive.fail_writes()
        _left_out(machine, drive, "Input/output error")
        clients.calm()
        drive.heal()
        _back(machine, drive)


def _one_hangs(machine: Appliance, clients: Clientele, drive: FailingDrive) -> None:
    """It is left out once it is over its deadline and its peer is not."""
    with clients.fault("hang"):
        ends_s = time.monotonic() + HANG_S
        drive.stall()
        try:
            _left_out(machine, drive, f"did not come back within {DEADLINE_S:g} s")
            clients.calm()
            until(lambda: time.monotonic() >= ends_s, "the hang to last", deadline_s=HANG_S + 1)
        finally:
            drive.resume()
        _back(machine, drive)


def _one_hangs_at_the_start(machine: Appliance, clients: Clientele, drive: FailingDrive) -> None:
    """A store that begins meets a drive that does not answer, and goes on with the other."""
    with clients.fault(CRASH):
        store = machine.processes["store-m0"]
        store.kill()
        store.wait()
        drive.stall()
        try:
            machine.start("store", "m0")
            until(
                lambda: machine.mirror()["state"] == "degraded",
                "the store to serve from the other drive",
                deadline_s=BACK_S,
            )
            clients.calm()
        finally:
            drive.resume()
        _back(machine, drive)


def _both_hang(
    machine: Appliance, clients: Clientele, one: FailingDrive, other: FailingDrive
) -> None:
    """Like a paused host: nobody is blamed, and all goes on afterwards."""
    epoch = machine.mirror()["epoch"]
    with clients.fault("both hang"):
        store = machine.processes["store-m0"]
        store.send_signal(signal.SIGSTOP)
        # What is under way ends, or one drive would finish what the other cannot.
        until(lambda: one.in_flight + other.in_flight == 0, "the drives to be idle")
        for drive in (one, other):
            drive.stall()
        store.send_signal(signal.SIGCONT)
        ends_s = time.monotonic() + BOTH_HANG_S
        try:
            until(lambda: time.monotonic() >= ends_s, "the hangs", deadline_s=BOTH_HANG_S + 1)
            said = _alerts(machine)
        finally:
            for drive in (one, other):
                drive.resume()
        clients.calm()
    assert "no drive answers" in said, said
    assert machine.mirror()["state"] == "in sync"
    assert machine.mirror()["epoch"] == epoch, "a drive was blamed for what both did"


def _one_vanishes(machine: Appliance, clients: Clientele, drive: FailingDrive) -> None:
    """Pulled and put back: the device goes, with its event, and the same bytes come as another."""
    with clients.fault("gone and back"):
        drive.die()
        sh("losetup", "--detach", drive.node)
        _left_out(machine, drive, "")
        clients.calm()
        drive.come_back()
        settle()
        _back(machine, drive)


def _fill_up(machine: Appliance, clients: Clientele) -> set[str]:
    """Full drives are not failed ones: puts are refused with 503, deletes and reads are not."""
    epoch = machine.mirror()["epoch"]
    client, names = clients.client, {"one full", "both full"}
    for number in range(8):
        client.put_object(Bucket=BUCKET, Key=f"room/{number}", Body=b"kept" * 200_000)
    roots = list(places(machine).values())
    for name, filled in (("one full", roots[:1]), ("both full", roots)):
        with clients.fault(name), _fillers(filled):
            refusal = _refused_for_room(client)
            assert refusal["ResponseMetadata"]["HTTPStatusCode"] == 503, refusal
            assert refusal["Error"]["Code"] == "ServiceUnavailable"
            assert "full" in refusal["Error"]["Message"]
            gone = f"room/{len(filled)}"
            client.delete_object(Bucket=BUCKET, Key=gone)
            assert client.get_object(Bucket=BUCKET, Key="room/0")["Body"].read(4) == b"kept"
            listed = client.list_objects_v2(Bucket=BUCKET, Prefix="room/")["Contents"]
            assert gone not in {each["Key"] for each in listed}
            assert machine.mirror()["state"] == "in sync"
        until(lambda: _stores(client), "room again", deadline_s=BACK_S)
    assert machine.mirror()["epoch"] == epoch, "a drive was failed for being full"
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="room/"):
        for each in page["Contents"]:
            client.delete_object(Bucket=BUCKET, Key=each["Key"])
    return names


@contextmanager
def _fillers(roots: list[Path]) -> Iterator[None]:
    """These drives have no room inside the block."""
    fillers = [root / "filler" for root in roots]
    try:
        for filler in fillers:
            with filler.open("wb") as file:
                space = os.statvfs(filler)
                room = space.f_bavail * space.f_frsize
                os.posix_fallocate(file.fileno(), 0, room - LEFT_BYTES)
        yield
    finally:
        for filler in fillers:
            filler.unlink()


def _refused_for_room(client: Any) -> Any:
    """The answer to a put, as soon as one is refused."""
    answers: list[Any] = []

    def is_refused() -> bool:
        try:
            client.put_object(Bucket=BUCKET, Key="room/more", Body=b"x" * 3_000_000)
        except ClientError as error:
            answers.append(error.response)
        return bool(answers)

    until(is_refused, "a put to be refused", deadline_s=BACK_S)
    return answers[0]


def _stores(client: Any) -> bool:
    try:
        client.put_object(Bucket=BUCKET, Key="room/again", Body=b"y" * 3_000_000)
    except ClientError:
        return False
    return True


def _publish(clients: Clientele, objects: int) -> None:
    rows: dict[str, object] = {name: toll.words() for name, toll in clients.tolls.items()}
    rows["objects read back at the end"] = objects
    rows["acknowledged objects lost"] = 0
    section = {
        "title": "Failing devices under aws-cli and boto3",
        "command": "PUBLISH_FIGURES=1 .venv/bin/pytest -s tests/system/test_drive_faults.py",
        "rows": rows,
    }
    publish_if_asked("4-failing-devices", section)
