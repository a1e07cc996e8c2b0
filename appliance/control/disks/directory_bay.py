"""Directories as drives, for development: the same interface, no privilege, nothing to wipe.

Owns the mapping from the directories it was given to drives. Refuses to wipe: a directory with
anything in it is never formatted. A directory that goes away is noticed at the next ``ensure``.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from appliance.control.disks.bay import Mounted
from appliance.core.drives import Drive, DriveKind, Signature
from appliance.core.errors import DriveFault, Refused
from appliance.core.ports import Space

IDENTITY_FILE: Final = "drive-id"
"""Stands for the file system's UUID, which a directory has not."""


class DirectoryBay:
    """A fixed list of directories."""

    def __init__(self, directories: Sequence[Path]) -> None:
        self._directories = [path.resolve() for path in directories]
        self._mounted: dict[str, Mounted] = {}

    def scan(self, *, fresh: bool = False) -> list[Drive]:
        """Those of the directories that are there. One that cannot be read is not."""
        found = []
        for path in self._directories:
            with contextlib.suppress(OSError):
                if path.is_dir():
                    found.append(self._drive(path))
        return found

    def _drive(self, path: Path) -> Drive:
        space = os.statvfs(path)
        drive_id = _drive_id(path)
        strange = not drive_id and any(path.iterdir())
        return Drive(
            identity=f"dir:{path}",
            kind=DriveKind.DIRECTORY,
            node=str(path),
            size_bytes=space.f_frsize * space.f_blocks,
            serial=path.name,
            model="directory",
            signatures=(Signature("files"),) if strange else (),
            drive_id=drive_id,
        )

    def format(self, drive: Drive, drive_id: str, step: Callable[[str], None]) -> None:
        """Mark an empty directory as ours."""
        step("checking that it is empty")
        path = Path(drive.node)
        if any(path.iterdir()):
            raise Refused(
                f"cannot claim {drive.identity}: directories are never wiped; empty it yourself"
            )
        step("marking it")
        descriptor = os.open(path / IDENTITY_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, drive_id.encode("ascii"))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def mount(self, drive: Drive) -> Path:
        """A directory is already in its place."""
        path = Path(drive.node)
        self._mounted[drive.drive_id] = Mounted(drive.drive_id, drive.node, path)
        return path

    def unmount(self, drive_id: str) -> None:
        """Forget it."""
        self._mounted.pop(drive_id, None)

    def mounted(self) -> Mapping[str, Mounted]:
        """What ``mount`` was asked for."""
        return dict(self._mounted)

    def space(self, drive_id: str) -> Space:
        """Of the file system it lies in."""
        try:
            found = os.statvfs(self._mounted[drive_id].path)
        except (KeyError, OSError) as error:
            raise DriveFault(drive_id, "asking for its room", errno.ENOENT) from error
        return Space(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)

    def pieces(self, drive_id: str) -> Sequence[tuple[int, int]]:
        """Its file system is somebody else's to trim."""
        return []

    def trim(self, drive_id: str, start: int, length: int) -> int | None:
        """Nobody is told."""
        return None

    def answers(self, drive: Drive) -> bool:
        """Whether it is still the same directory of ours."""
        return _drive_id(Path(drive.node)) == drive.drive_id

    def watch(self, callback: Callable[[], None]) -> None:
        """Directories send no events."""

    def close(self) -> None:
        """Nothing to stop."""


def _drive_id(path: Path) -> str:
    try:
        return (path / IDENTITY_FILE).read_text(encoding="ascii").strip()
    except OSError:
        return ""
