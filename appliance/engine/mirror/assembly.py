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

from appliance.core.epochs import WITNESS
from appliance.core.errors import DriveTimeout, InvalidInput, Unavailable
from appliance.core.ports import Lanes, Volume
from appliance.engine.mirror.assembled import Assembly, NobodyAnswers
from appliance.engine.mirror.member import Opening
from appliance.engine.mirror.superblock import Blank, Superblock, Unreadable, read_superblock
from appliance.engine.mirror.votes import WITNESS_DEADLINE_S
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
        cannot be read, or does not answer in time, is left out. Raises ``Unavailable``
        (``NobodyAnswers``), ``DriveFault`` of the index's directory."""
        volumes, superblocks, faults = self._look(lanes, deadline_s)
        troubles = [str(fault) for fault in faults]
        if faults and not volumes and all(isinstance(fault, DriveTimeout) for fault in faults):
            raise NobodyAnswers(f"no drive of mirror {self.mirror} answers: {'; '.join(troubles)}")
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
            self._witness_directory(lanes),
            Path(self.witness_file).name,
            self.replaces,
            frozenset(self.drives) - {volume.name for volume in volumes},
        )
        return assembly, troubles

    def _look(
        self, lanes: Lanes, deadline_s: float
    ) -> tuple[list[Volume], list[Superblock], list[Exception]]:
        """The drives that answer, their superblocks, and what the others say. On their lanes: a
        drive with a call of an earlier attempt still out does not answer."""
        looks = {
            drive: Opening(partial(_Look.at, one), _Look.close)
            for drive, one in self.drives.items()
        }
        volumes: list[Volume] = []
        superblocks: list[Superblock] = []
        faults: list[Exception] = []
        for drive, outcome in lanes.run(looks, deadline_s=deadline_s).items():
            if outcome.fault is not None:
                faults.append(outcome.fault)
                looks[drive].give_up()
                continue
            assert isinstance(outcome.value, _Look), "that is what it makes"
            volumes.append(outcome.value.volume)
            if isinstance(outcome.value.superblock, Superblock):
                superblocks.append(outcome.value.superblock)
        return volumes, superblocks, faults

    def _witness_directory(self, lanes: Lanes) -> Volume | None:
        make = partial(DirectoryVolume, Path(self.witness_file).parent, "witness")
        opening = Opening(make, DirectoryVolume.close)
        outcome = lanes.run({WITNESS: opening}, deadline_s=WITNESS_DEADLINE_S)[WITNESS]
        if outcome.fault is not None:
            opening.give_up()
            return None
        assert isinstance(outcome.value, DirectoryVolume), "that is what it makes"
        return outcome.value


@dataclass(frozen=True, slots=True)
class _Look:
    """A drive that answered."""

    volume: Volume
    superblock: Superblock | Blank | Unreadable

    @classmethod
    def at(cls, drive: AssembledDrive) -> _Look:
        """Raises ``DriveFault``."""
        volume = open_drive(drive)
        try:
            return cls(volume, read_superblock(volume))
        except BaseException:
            volume.close()
            raise

    def close(self) -> None:
        self.volume.close()


def open_drive(drive: AssembledDrive) -> Volume:
    """A drive's volume, named by its id. Raises ``DriveFault``."""
    return DirectoryVolume(drive.path, drive.drive)
