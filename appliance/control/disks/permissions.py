"""Whose the drives are: the store writes, gateways read and stage, nobody else looks.

Owns modes and owners of the private mount directory and of each drive's root. Where the service
users do not exist (development, tests) everything belongs to who runs it, and only to him.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.core.errors import DriveFault

STORE_USER: Final = "appliance-store"
SERVICE_GROUP: Final = "appliance"
STAGING: Final = "staging"
_PRIVATE: Final = 0o700
_PASS_THROUGH: Final = 0o710
_READABLE: Final = 0o2750
_SHARED: Final = 0o2770


@dataclass(frozen=True, slots=True)
class Owners:
    """Numbers of the store's user and of the group that store and gateways share."""

    store_user: int
    service_group: int


def service_owners() -> Owners | None:
    """None when the users are not there, or this process may not give files away."""
    if os.geteuid() != 0:
        return None
    try:
        return Owners(pwd.getpwnam(STORE_USER).pw_uid, grp.getgrnam(SERVICE_GROUP).gr_gid)
    except KeyError:
        return None


def make_private(directory: Path, owners: Owners | None) -> None:
    """The directory that holds the mounts: service processes may pass through, others not."""
    directory.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    if owners is None:
        directory.chmod(_PRIVATE)
        return
    os.chown(directory, 0, owners.service_group)
    directory.chmod(_PASS_THROUGH)


def give_to_store(directory: Path, owners: Owners | None) -> None:
    """The root of a drive, or a directory the store alone writes and gateways read. Idempotent.

    Set-group-id, so that whatever the store makes there can be read by gateways.
    """
    directory.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    if owners is None:
        return
    os.chown(directory, owners.store_user, owners.service_group)
    directory.chmod(_READABLE)


def give_tree_to_store(directory: Path, owners: Owners | None) -> None:
    """What this process laid out for the store there: the directory, and all in it but staging."""
    give_to_store(directory, owners)
    if owners is None:
        return
    for parent, names, files in os.walk(directory):
        names[:] = [name for name in names if name != STAGING]
        for name in (*names, *files):
            os.chown(
                Path(parent) / name, owners.store_user, owners.service_group, follow_symlinks=False
            )


def take_over_tree(drive_root: Path, owners: Owners | None) -> bool:
    """A drive that another server made: its numbers of users and groups mean nothing here.
    Everything becomes our store's; whether there was anything to do. Raises ``DriveFault``.

    The root comes last: it says that all below is done, so a walk that was cut short is done again.
    """
    if owners is None:
        return False
    try:
        found = drive_root.stat()
        if (found.st_uid, found.st_gid) == (owners.store_user, owners.service_group):
            return False
        for parent, names, files in os.walk(drive_root, onerror=_raise):
            for name in (*names, *files):
                place = Path(parent) / name
                os.chown(place, owners.store_user, owners.service_group, follow_symlinks=False)
        share_staging(drive_root, owners)
        give_to_store(drive_root, owners)
    except OSError as error:
        number = error.errno or errno.EIO
        raise DriveFault(str(drive_root), "taking it over", number, str(error)) from error
    return True


def _raise(error: OSError) -> None:
    raise error


def share_staging(drive_root: Path, owners: Owners | None) -> None:
    """Where gateways stage uploads: the one place on a drive that they may write. Idempotent.

    Set-group-id, so that whatever a gateway makes there can be adopted by the store.
    """
    staging = drive_root / STAGING
    staging.mkdir(mode=_PRIVATE, exist_ok=True)
    if owners is None:
        return
    os.chown(staging, owners.store_user, owners.service_group)
    staging.chmod(_SHARED)
