"""What control tells a store about its mirror: which drives are mounted where.

Owns the form of the ``assembly`` message and turns it into open volumes. Refuses, with
``InvalidInput``, a message it cannot read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.core.errors import DriveFault, InvalidInput, Unavailable
from appliance.core.ports import Volume
from appliance.engine.mirror.assembled import Assembly
from appliance.engine.mirror.superblock import Superblock, read_superblock
from appliance.system.files import DirectoryVolume


@dataclass(frozen=True, slots=True)
class AssembledDrive:
    """A mounted drive. A new mount has a new path or, on the same path, a new message."""

    drive: str
    path: str
    serial: str = ""


@dataclass(frozen=True, slots=True)
class AssemblyMessage:
    """Where everything of one mirror is, as control says."""

    mirror: str
    drives: Mapping[str, AssembledDrive]
    index_directory: str
    witness_file: str

    @classmethod
    def decode(cls, message: Any) -> AssemblyMessage:
        """Raises ``InvalidInput``."""
        try:
            drives = [
                AssembledDrive(str(m["drive"]), str(m["path"]), str(m.get("serial", "")))
                for m in message["members"]
            ]
            return cls(
                str(message["mirror"]),
                {drive.drive: drive for drive in drives},
                str(message["index_directory"]),
                str(message["witness_file"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidInput(f"cannot read an assembly: {error!r}") from error

    def open(self) -> tuple[Assembly, list[str]]:
        """Volumes for one attempt to open the store, and what went wrong with others. Raises
        ``Unavailable``, ``DriveFault`` of the index's directory."""
        volumes: list[Volume] = []
        troubles: list[str] = []
        mirrors: set[str] = set()
        for drive in self.drives.values():
            try:
                volume = open_drive(drive)
                found = read_superblock(volume)
            except DriveFault as fault:
                troubles.append(str(fault))
                continue
            volumes.append(volume)
            if isinstance(found, Superblock) and found.mirror_id:
                mirrors.add(found.mirror_id)
        if len(mirrors) != 1:
            for volume in volumes:
                volume.close()
            what = "belong to different mirrors" if mirrors else "belong to no mirror yet"
            raise Unavailable(f"the present drives of mirror {self.mirror} {what}")
        Path(self.index_directory).mkdir(parents=True, exist_ok=True)
        assembly = Assembly(
            mirrors.pop(),
            volumes,
            DirectoryVolume(self.index_directory, "index"),
            self.index_directory,
            self._witness_directory(),
            Path(self.witness_file).name,
        )
        return assembly, troubles

    def _witness_directory(self) -> Volume | None:
        parent = Path(self.witness_file).parent
        try:
            return DirectoryVolume(parent, "witness")
        except DriveFault:
            return None


def open_drive(drive: AssembledDrive) -> Volume:
    """A drive's volume, named by its id. Raises ``DriveFault``."""
    return DirectoryVolume(drive.path, drive.drive)
