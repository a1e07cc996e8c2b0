"""The refusal rules as a table: one row per objection, and what forcing does to each."""

from __future__ import annotations

import dataclasses

import pytest

from appliance.core.drives import (
    DRIVE_BYTES_MIN,
    Claimable,
    Drive,
    DriveKind,
    Objection,
    Refusal,
    Signature,
    claimable,
    is_our_label,
    label_of,
    resolve,
)
from appliance.core.errors import ApplianceError, InvalidInput, NotFound, Refused

GOOD = Drive(
    identity="ata-WDC_WD40_WCC7K0",
    kind=DriveKind.DISK,
    node="/dev/sdb",
    size_bytes=4 * 10**12,
    serial="WCC7K0",
    wwn="0x50014ee2b1c2d3e4",
    aliases=("wwn-0x50014ee2b1c2d3e4",),
)
OURS = Signature("xfs", label_of("0123456789abcdef"), "uuid")

TABLE = [
    ({}, None),
    ({"identity": ""}, Objection.NO_IDENTITY),
    ({"faults": ("probe failed",)}, Objection.UNREADABLE),
    ({"read_only": True}, Objection.READ_ONLY),
    ({"size_bytes": DRIVE_BYTES_MIN - 1}, Objection.TOO_SMALL),
    ({"mounts": ("/srv",)}, Objection.MOUNTED),
    ({"holders": ("md0",)}, Objection.HELD),
    ({"busy": True}, Objection.BUSY),
    ({"partitions": ("sdb1",)}, Objection.PARTITIONED),
    ({"signatures": (OURS,), "drive_id": "0123456789abcdef"}, Objection.OURS),
    ({"signatures": (Signature("ext4", "data"),)}, Objection.SIGNATURE),
    ({"signatures": (Signature("gpt"),)}, Objection.SIGNATURE),
    ({"signatures": (Signature("linux_raid_member"),)}, Objection.SIGNATURE),
    ({"signatures": (Signature("crypto_LUKS"),)}, Objection.SIGNATURE),
    ({"signatures": (Signature("swap"),)}, Objection.SIGNATURE),
]
FORCEABLE = {Objection.PARTITIONED, Objection.OURS, Objection.SIGNATURE}


@pytest.mark.parametrize(("changes", "objection"), TABLE)
def test_each_objection(changes: dict[str, object], objection: Objection | None) -> None:
    drive = dataclasses.replace(GOOD, **changes)  # type: ignore[arg-type]
    verdict = claimable(drive)
    if objection is None:
        assert verdict == Claimable()
        return
    assert isinstance(verdict, Refusal)
    assert [reason.objection for reason in verdict.reasons] == [objection]
    assert verdict.forceable == (objection in FORCEABLE)


@pytest.mark.parametrize(("changes", "objection"), TABLE)
def test_the_right_serial_forces_only_what_would_be_wiped(
    changes: dict[str, object], objection: Objection | None
) -> None:
    drive = dataclasses.replace(GOOD, **changes)  # type: ignore[arg-type]
    verdict = claimable(drive, force_serial=GOOD.serial)
    if objection is None or objection in FORCEABLE:
        assert isinstance(verdict, Claimable)
        assert bool(verdict.wipe) == (objection is not None)
    else:
        assert isinstance(verdict, Refusal)
        assert verdict.reasons[0].objection is objection


@pytest.mark.parametrize("typed", ["", "WCC7K1", "wcc7k0", "ata-WDC_WD40_WCC7K0"])
@pytest.mark.parametrize(("changes", "objection"), TABLE)
def test_a_wrong_serial_never_forces(
    typed: str, changes: dict[str, object], objection: Objection | None
) -> None:
    drive = dataclasses.replace(GOOD, **changes)  # type: ignore[arg-type]
    verdict = claimable(drive, force_serial=typed)
    assert isinstance(verdict, Refusal)
    objections = {reason.objection for reason in verdict.reasons}
    assert Objection.WRONG_SERIAL in objections
    assert objection is None or objection in objections


def test_a_drive_without_serial_cannot_be_forced_by_typing_nothing() -> None:
    drive = dataclasses.replace(GOOD, serial="", signatures=(Signature("ext4"),))
    assert isinstance(claimable(drive, force_serial=""), Refusal)


def test_every_reason_is_told_at_once() -> None:
    drive = dataclasses.replace(
        GOOD, mounts=("/a", "/b"), partitions=("sdb1",), signatures=(Signature("gpt"),), busy=True
    )
    verdict = claimable(drive)
    assert isinstance(verdict, Refusal)
    assert [reason.objection for reason in verdict.reasons] == [
        Objection.MOUNTED,
        Objection.MOUNTED,
        Objection.PARTITIONED,
        Objection.SIGNATURE,
    ]


def test_a_label_of_ours_fits_xfs_and_is_recognised() -> None:
    label = label_of("0123456789abcdef0123456789abcdef")
    assert len(label) == 12
    assert is_our_label(label)
    assert not is_our_label("backup")


@pytest.mark.parametrize(
    "identity",
    [
        "ata-WDC_WD40_WCC7K0",
        "WCC7K0",
        "0x50014ee2b1c2d3e4",
        "wwn-0x50014ee2b1c2d3e4",
        "/dev/disk/by-id/wwn-0x50014ee2b1c2d3e4",
        " WCC7K0 ",
    ],
)
def test_a_drive_answers_to_each_of_its_names(identity: str) -> None:
    other = dataclasses.replace(GOOD, identity="other", serial="X", wwn="", aliases=())
    assert resolve([other, GOOD], identity) is GOOD


@pytest.mark.parametrize(
    ("identity", "error"),
    [
        ("/dev/sdb", InvalidInput),
        ("sdb", InvalidInput),
        ("nvme0n1", InvalidInput),
        ("/dev/nvme0n1p2", InvalidInput),
        ("/dev/loop3", InvalidInput),
        ("vda", InvalidInput),
        ("", InvalidInput),
        ("WCC7K9", NotFound),
        ("/dev/disk/by-id/nothing", NotFound),
    ],
)
def test_kernel_names_and_strangers_are_refused(identity: str, error: type[ApplianceError]) -> None:
    with pytest.raises(error, match="drive list"):
        resolve([GOOD], identity)


def test_two_drives_of_one_name_are_refused() -> None:
    twin = dataclasses.replace(GOOD, node="/dev/sdc")
    with pytest.raises(Refused, match="/dev/sdb, /dev/sdc answer to it"):
        resolve([GOOD, twin], "WCC7K0")
