"""From drives that carry a passport to mirrors: who belongs together, and where they are now.

Owns the assembly message that a store is given. Pure. Invariant: a drive is in one assembly at
most, and an assembly never holds two drives with one id.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from appliance.control.disks.passport import Membership, Passport

_SUFFIX_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class PresentDrive:
    """A drive of ours that is in its place. ``mount`` counts the mounts of all drives: a drive that
    went and came back has the same path but another number."""

    passport: Passport
    path: Path
    mount: int


@dataclass(frozen=True, slots=True)
class AssemblyMember:
    """A member that is there."""

    drive: str
    path: Path
    serial: str
    mount: int


@dataclass(frozen=True, slots=True)
class Assembly:
    """What a store needs to know of its mirror's drives. ``absent`` are drive ids with serials."""

    mirror: str
    mirror_id: str
    members: tuple[AssemblyMember, ...]
    membership: Membership
    absent: Mapping[str, str] = field(default_factory=dict)
    index_directory: Path = Path()
    witness_file: Path = Path()

    def message(self) -> dict[str, object]:
        """As it travels to the store."""
        return {
            "mirror": self.mirror,
            "mirror_id": self.mirror_id,
            "members": [
                {
                    "drive": member.drive,
                    "path": str(member.path),
                    "serial": member.serial,
                    "mount": member.mount,
                }
                for member in self.members
            ],
            "absent": [{"drive": drive, "serial": serial} for drive, serial in self.absent.items()],
            "replaces": dict(self.membership.joining),
            "index_directory": str(self.index_directory),
            "witness_file": str(self.witness_file),
        }


def assemble(
    present: Iterable[PresentDrive],
    mirrors_directory: Path,
    known: Iterable[Membership] = (),
) -> dict[str, Assembly]:
    """All mirrors of which a drive is there, by name. ``known``: memberships seen before, whose
    drives may be away now.

    A drive that a peer's passport lists is a member even if its own passport does not say so yet:
    mirror creation writes one after the other, and a crash may come between.
    """
    drives = {drive.passport.drive_id: drive for drive in present}
    memberships: dict[str, Membership] = {}
    for drive in drives.values():
        if drive.passport.mirror is not None:
            _keep_newest(memberships, drive.passport.mirror)
    for each in known:
        if each.mirror_id in memberships:
            _keep_newest(memberships, each)
    assemblies: dict[str, Assembly] = {}
    for mirror_id, membership in sorted(memberships.items(), key=lambda item: item[1].name):
        name = membership.name
        if name in assemblies:
            # Drives of another appliance may bring a mirror of the same name.
            name = f"{name}-{mirror_id.replace('-', '')[:_SUFFIX_DIGITS]}"
        assemblies[name] = _assembly(name, membership, drives, mirrors_directory)
    return assemblies


def _keep_newest(memberships: dict[str, Membership], found: Membership) -> None:
    known = memberships.get(found.mirror_id)
    if known is None or found.revision > known.revision:
        memberships[found.mirror_id] = found


def corrected(drive: PresentDrive, assemblies: Iterable[Assembly]) -> Passport | None:
    """The passport a drive should have by its mirror's newest membership; None if it has it. A
    member or spare that was overtaken by a change learns of it; one that was replaced while it was
    away is detached, with all it holds."""
    passport = drive.passport
    for assembly in assemblies:
        membership = assembly.membership
        if membership.lists(passport.drive_id):
            is_same = passport.mirror is not None and passport.mirror == membership
            return None if is_same else passport.joined(membership)
        if passport.mirror is not None and passport.mirror.mirror_id == membership.mirror_id:
            return passport.detached()
    return None


def _assembly(
    name: str,
    membership: Membership,
    drives: Mapping[str, PresentDrive],
    mirrors_directory: Path,
) -> Assembly:
    members = tuple(
        AssemblyMember(drive_id, drives[drive_id].path, serial, drives[drive_id].mount)
        for drive_id, serial in membership.members
        if drive_id in drives
    )
    home = mirrors_directory / name
    return Assembly(
        mirror=name,
        mirror_id=membership.mirror_id,
        members=members,
        membership=membership,
        absent={each: serial for each, serial in membership.members if each not in drives},
        index_directory=home / "index",
        witness_file=home / "witness" / "witness",
    )


def emptied(assembly: Assembly) -> Assembly:
    """The same mirror with every drive away."""
    gone = {member.drive: member.serial for member in assembly.members}
    return dataclasses.replace(assembly, members=(), absent={**assembly.absent, **gone})
