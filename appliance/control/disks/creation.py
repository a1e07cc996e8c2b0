"""What the engine must be told to lay out a new mirror on two empty drives.

Owns the values, and knows an interrupted creation when it sees one; the engine's own function does
the work and is handed to the manager. A mirror without passports was never assembled, so nothing
was ever stored on it and its creation may be taken up again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from appliance.control.disks.assembly import PresentDrive
from appliance.engine.mirror.superblock import Superblock, read_superblock
from appliance.engine.mirror.witness import WitnessFile
from appliance.system.files import DirectoryVolume


@dataclass(frozen=True, slots=True)
class NewMember:
    """A claimed drive, mounted at ``path``."""

    drive_id: str
    serial: str
    path: Path


@dataclass(frozen=True, slots=True)
class NewMirror:
    """Everything that is decided about a mirror before it exists."""

    name: str
    mirror_id: str
    members: tuple[NewMember, ...]
    index_directory: Path
    witness_file: Path


MirrorMaker: TypeAlias = Callable[[NewMirror], None]
"""Blocking. Durable on return. Starts over when an earlier attempt was interrupted."""


def unfinished_mirror_id(drives: Sequence[PresentDrive]) -> str:
    """The mirror id that an interrupted creation left on one of these drives, which are in no
    mirror by their passports; empty when none. Blocking. Raises ``DriveFault``."""
    for drive in drives:
        with closing(DirectoryVolume(drive.path, drive.passport.drive_id)) as volume:
            found = read_superblock(volume)
        if isinstance(found, Superblock) and found.mirror_id:
            return found.mirror_id
    return ""


def made_mirror_id(witness_file: Path) -> str:
    """The mirror that was made with this witness, which is written last; empty when there is none
    that can be read. Blocking. Raises ``DriveFault``."""
    if not witness_file.exists():
        return ""
    with closing(DirectoryVolume(witness_file.parent, "witness")) as volume:
        found = WitnessFile.open(volume, witness_file.name)
        if not isinstance(found, WitnessFile):
            return ""
        found.close()
        return found.value.mirror_id
