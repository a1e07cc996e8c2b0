"""Directories that a role needs before anything else.

Owns their making, and the lock that keeps a second appliance off the same one. Refuses those that
cannot be written to, with the reason.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from appliance.core.errors import Refused, Unreachable

LOCK_S: Final = 5.0
"""A former process may still be winding down."""
_POLL_S: Final = 0.05


def make_directory(directory: Path, mode: int) -> None:
    """Raises ``Refused`` or ``Unreachable`` when it cannot be made or written to."""
    try:
        directory.mkdir(mode=mode, parents=True, exist_ok=True)
        probe = directory / ".writable"
        probe.touch()
        probe.unlink()
    except PermissionError as error:
        raise Refused(
            f"cannot write to {directory}: permission denied; run as its owner or choose another"
        ) from error
    except OSError as error:
        raise Unreachable(f"cannot write to {directory}: {error.strerror}") from error


@contextlib.contextmanager
def only_one(directory: Path, role: str) -> Iterator[None]:
    """Hold the directory for this process alone. Blocks for ``LOCK_S`` at most. Raises ``Refused``
    and ``Unreachable``."""
    file = directory / f"{role}.lock"
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        raise Refused(
            f"cannot use {directory}: {file.name} in it is another user's; run as that user, or"
            " choose another directory"
        ) from error
    except OSError as error:
        raise Unreachable(f"cannot use {directory}: {file.name}: {error.strerror}") from error
    try:
        deadline_s = time.monotonic() + LOCK_S
        while not _locked(descriptor):
            if time.monotonic() > deadline_s:
                raise Unreachable(
                    f"cannot use {directory}: another appliance runs on it; stop that one first"
                )
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
