"""From passports to assemblies, and passports to disk and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.control.disks.assembly import PresentDrive, assemble, emptied
from appliance.control.disks.passport import (
    PASSPORT_FILE,
    Membership,
    Passport,
    read_passport,
    write_passport,
)
from appliance.core.errors import DriveFault

HOME = Path("/state/mirrors")
M0 = Membership("11" * 16, "m0", (("A", "SN-A"), ("B", "SN-B")))


def present(drive_id: str, mirror: Membership | None, mount: int = 1) -> PresentDrive:
    passport = Passport(drive_id, f"SN-{drive_id}", mirror=mirror)
    return PresentDrive(passport, Path("/run/drives") / drive_id, mount)


def test_two_members_make_a_whole_mirror() -> None:
    assembly = assemble([present("B", M0), present("A", M0)], HOME)["m0"]
    assert [member.drive for member in assembly.members] == ["A", "B"]
    assert not assembly.absent
    assert assembly.message() == {
        "mirror": "m0",
        "mirror_id": M0.mirror_id,
        "members": [
            {"drive": "A", "path": "/run/drives/A", "serial": "SN-A", "mount": 1},
            {"drive": "B", "path": "/run/drives/B", "serial": "SN-B", "mount": 1},
        ],
        "absent": [],
        "replaces": {},
        "index_directory": "/state/mirrors/m0/index",
        "witness_file": "/state/mirrors/m0/witness/witness",
    }


def test_a_missing_member_is_named_with_its_serial() -> None:
    assembly = assemble([present("B", M0)], HOME)["m0"]
    assert [member.drive for member in assembly.members] == ["B"]
    assert assembly.absent == {"A": "SN-A"}
    assert emptied(assembly).absent == {"A": "SN-A", "B": "SN-B"}


def test_a_member_without_its_own_entry_is_known_by_its_peer() -> None:
    assembly = assemble([present("A", M0), present("B", None)], HOME)["m0"]
    assert [member.drive for member in assembly.members] == ["A", "B"]


def test_a_claimed_drive_alone_is_no_mirror() -> None:
    assert assemble([present("A", None)], HOME) == {}


def test_a_fresh_mount_makes_another_assembly() -> None:
    before = assemble([present("A", M0, mount=1)], HOME)
    assert before != assemble([present("A", M0, mount=2)], HOME)


def test_two_mirrors_of_one_name_are_kept_apart() -> None:
    foreign = Membership("22" * 16, "m0", (("C", "SN-C"), ("D", "SN-D")))
    assemblies = assemble([present("A", M0), present("C", foreign)], HOME)
    assert {name: each.mirror_id for name, each in assemblies.items()} == {
        "m0": "11" * 16,
        "m0-222222": "22" * 16,
    }


@pytest.mark.parametrize("mirror", [None, M0])
def test_a_passport_survives_the_drive(tmp_path: Path, mirror: Membership | None) -> None:
    passport = Passport("A", "SN-A", "WD40", 17, mirror)
    write_passport(tmp_path, Passport("A", "old"))
    write_passport(tmp_path, passport)
    assert read_passport(tmp_path) == passport
    assert [each.name for each in tmp_path.iterdir()] == [PASSPORT_FILE]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"format": 2}',
        b'{"format": 1, "drive_id": "A"}',
        json.dumps({"format": 1, "drive_id": "A", "serial": "", "mirror": {"name": "m"}}).encode(),
        json.dumps(
            {
                "format": 1,
                "drive_id": "A",
                "serial": "",
                "mirror": {"mirror_id": "x", "name": "m", "members": [1]},
            }
        ).encode(),
    ],
)
def test_a_spoilt_passport_is_a_fault_of_the_drive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / PASSPORT_FILE).write_bytes(content)
    with pytest.raises(DriveFault, match="passport"):
        read_passport(tmp_path)
    with pytest.raises(DriveFault):
        read_passport(tmp_path / "missing")
