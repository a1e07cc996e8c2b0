"""A drive whose every write and flush is recorded: XFS on a loop device on a storage daemon.

Owns the device, its mount and the recording. The image as it was before the first recorded write is
kept beside it, for replaying. No ``--direct-io`` on the loop device: over FUSE that mixes up
partial pages.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Self

from tests.system.drives import DyingDrive, LoopDrive, sh

SIZE_BYTES: Final = 320 * 1024 * 1024
MOUNT_OPTIONS: Final = "nodev,nosuid,noexec,noatime,nouuid,inode64"
"""As the appliance mounts its drives."""


class RecordedDrive(DyingDrive):
    """See the module. A context manager: recorded and mounted inside."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder, name, size_bytes=SIZE_BYTES)
        self.log: Final = folder / f"{name}.log"
        self.pristine: Final = folder / f"{name}.pristine"
        self.root: Final = folder / f"{name}.mount"
        self.root.mkdir()
        self.log.touch()
        with LoopDrive(folder, name, size_bytes=SIZE_BYTES) as plain:
            sh("mkfs.xfs", "-q", "-f", "-K", "-m", "reflink=0", plain.node)
        sh("cp", "--sparse=always", str(self.image), str(self.pristine))
        self._log_file = os.open(self.log, os.O_RDONLY)

    def _nodes(self) -> list[str]:
        return [
            f"driver=file,node-name=bytes,filename={self.image},cache.direct=off",
            f"driver=file,node-name=log,filename={self.log},cache.direct=off",
            "driver=blklogwrites,node-name=image,file=bytes,log=log",
        ]

    def attach(self) -> Self:
        """Recorded from here on."""
        super().attach()
        sh("mount", "-t", "xfs", "-o", MOUNT_OPTIONS, self.node, str(self.root))
        return self

    def position(self) -> int:
        """How long the recording is now."""
        return os.fstat(self._log_file).st_size

    def close(self) -> None:
        """Leave nothing behind but the recording."""
        super().close()
        log_file, self._log_file = self._log_file, -1
        if log_file >= 0:
            os.close(log_file)


def copy_sparse(source: Path, target: Path) -> None:
    """Only what is allocated; ``target`` is replaced."""
    with source.open("rb") as original, target.open("wb") as copy:
        reading, writing = original.fileno(), copy.fileno()
        size = os.fstat(reading).st_size
        os.ftruncate(writing, size)
        at = 0
        while (start := _next_data(reading, at)) < size:
            at = os.lseek(reading, start, os.SEEK_HOLE)
            os.lseek(writing, start, os.SEEK_SET)
            while start < at:
                start += os.sendfile(writing, reading, start, at - start)


def _next_data(file: int, at: int) -> int:
    try:
        return os.lseek(file, at, os.SEEK_DATA)
    except OSError:
        return os.fstat(file).st_size
