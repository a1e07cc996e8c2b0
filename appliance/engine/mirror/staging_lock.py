"""Whose staging directory is whose: a lock that dies with its process, and no clock.

Owns the making and locking of ``staging/<name>-<nonce>/`` on a drive, and the collector's question
whether such a directory's gateway is gone. Invariant: what lies in a locked directory is never
collected, and a directory is never used before it is locked.

A new process never takes over an old one's directory, so a gateway may be replaced while it drains.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from appliance.core.errors import DriveFault
from appliance.engine.mirror.blob import STAGING_DIRECTORY

_SHARED_MODE: Final = 0o2770


class StagingClaim:
    """A locked staging directory on one drive; released by ``close`` or the process's end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        """Give the directory up to the collector. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def claim_staging(drive_root: Path, directory: str) -> StagingClaim:
    """Make and lock a staging directory. Blocking. Raises ``DriveFault``."""
    path = drive_root / STAGING_DIRECTORY / directory
    try:
        while True:
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(_SHARED_MODE)  # the store adopts out of it, whoever made it
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if _is_same(path, descriptor):
                return StagingClaim(descriptor)
            os.close(descriptor)  # the collector was faster; make it again
    except OSError as error:
        number = error.errno or errno.EIO
        raise DriveFault(str(drive_root), f"claiming {directory}", number) from error


def _is_same(path: Path, descriptor: int) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)


def sweep_if_free(drive_roots: Sequence[Path], directory: str) -> int:
    """Remove a staging directory and all in it on every drive if its gateway is gone, which is so
    when no drive's is locked; how many files went. The locks are held meanwhile, so that no gateway
    can begin to use it. Raises ``DriveFault``."""
    held: list[tuple[Path, int]] = []
    removed = 0
    try:
        for root in drive_roots:
            path = root / STAGING_DIRECTORY / directory
            if path.is_dir():
                held.append((path, os.open(path, os.O_RDONLY | os.O_DIRECTORY)))
                fcntl.flock(held[-1][1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        for path, descriptor in held:
            for name in os.listdir(descriptor):
                os.unlink(name, dir_fd=descriptor)
                removed += 1
            path.rmdir()
    except BlockingIOError:
        return 0
    except OSError as error:
        number = error.errno or errno.EIO
        raise DriveFault(str(drive_roots[0]), f"sweeping {directory}", number) from error
    finally:
        for _, descriptor in held:
            os.close(descriptor)
    return removed
