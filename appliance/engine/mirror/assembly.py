"""What control tells a store about its mirror: which drives are mounted where.

Owns the form of the ``assembly`` message and turns it into open volumes. Refuses, with
``InvalidInput``, a message it cannot read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from appliance.core.errors import DriveFault, InvalidInput, Unavailable
from appliance.core.ports import Lanes, Volume
from appliance.engine.mirror.assembled import Assembly
from appliance.engine.mirror.superblock import Superblock, read_superblock
from appliance.system.files import DirectoryVolume


@dataclass(frozen=True, slots=True)
class AssembledDrive:
    """A mounted drive. ``mount`` tells a new mount on the same path from the one before; a drive
    that was missing from a message in between is newly mounted too."""

    drive: str
    path: str
    serial: str = ""
    mount: int = 0


@dataclass(frozen=True, slots=True)
class AssemblyMessage:
    """Where everything of one mirror is, as control says. ``replaces``: new drives, and the one
    that each takes the place of."""

    mirror: str
    drives: Mapping[str, AssembledDrive]
    index_directory: str
    witness_file: str
    replaces: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def decode(cls, message: Any) -> AssemblyMessage:
        """Raises ``InvalidInput``."""
        try:
            drives = [
                AssembledDrive(
                    str(m["drive"]),
                    str(m["path"]),
                    str(m.get("serial", "")),
                    int(m.get("mount", 0)),
                )
                for m in message["members"]
            ]
            return cls(
                str(message["mirror"]),
                {drive.drive: drive for drive in drives},
                str(message["index_directory"]),
                str(message["witness_file"]),
                {str(new): str(old) for new, old in message.get("replaces", {}).items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInput(f"cannot read an assembly: {error!r}") from error

    def open(self, lanes: Lanes, *, deadline_s: float) -> tuple[Assembly, list[str]]:
        """Volumes for one attempt to open the store, and what went wrong with others: a drive that
        cannot be read, or does not answer in time, is left out. Raises ``Unavailable``,
        ``DriveFault`` of the index's directory."""
        volumes, superblocks, troubles = self._look(lanes, deadline_s)
        mirrors = {found.mirror_id for found in superblocks if found.mirror_id}
        try:
            if len(mirrors) != 1:
                what = "belong to different mirrors" if mirrors else "belong to no mirror yet"
                if troubles and not volumes:
                    what = f"cannot be read: {'; '.join(troubles)}"
                raise Unavailable(f"the present drives of mirror {self.mirror} {what}")
            Path(self.index_directory).mkdir(parents=True, exist_ok=True)
            index = DirectoryVolume(self.index_directory, "index")
        except BaseException:
            for volume in volumes:
                volume.close()
            raise
        assembly = Assembly(
            mirrors.pop(),
            volumes,
            index,
            self.index_directory,
            self._witness_directory(),
            Path(self.witness_file).name,
            self.replaces,
        )
        return assembly, troubles

    def _look(
        self, lanes: Lanes, deadline_s: float
    ) -> tuple[list[Volume], list[Superblock], list[str]]:
        """The drives that answer, their superblocks, and what the others say."""
        opened: dict[str, Volume] = {}
        troubles: list[str] = []
        for one in self.drives.values():
            try:
                opened[one.drive] = open_drive(one)
            except DriveFault as fault:
                troubles.append(str(fault))
        looking = {drive: partial(read_superblock, volume) for drive, volume in opened.items()}
        volumes: list[Volume] = []
        superblocks: list[Superblock] = []
        for drive, outcome in lanes.run(looking, deadline_s=deadline_s).items():
            if outcome.fault is not None:
                troubles.append(str(outcome.fault))
                opened[drive].close()
                continue
            volumes.append(opened[drive])
            if isinstance(outcome.value, Superblock):
                superblocks.append(outcome.value)
        return volumes, superblocks, troubles

    def _witness_directory(self) -> Volume | None:
        parent = Path(self.witness_file).parent
        try:
            return DirectoryVolume(parent, "witness")
        except DriveFault:
            return None


def open_drive(drive: AssembledDrive) -> Volume:
    """A drive's volume, named by its id. Raises ``DriveFault``."""
    return DirectoryVolume(drive.path, drive.drive)
