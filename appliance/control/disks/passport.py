"""The passport: what a drive of ours says of itself before any engine is open.

Owns ``passport.json`` in the root of a drive: drive id, serial, and once it is in a mirror the
mirror's name and all members with their serials, so that a missing one can be named. The votes that
decide what may be served are not here but in the engine's superblock. Replaced atomically.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.core.errors import DriveFault

PASSPORT_FILE: Final = "passport.json"
_FORMAT: Final = 1
_BYTES_MAX: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Membership:
    """The mirror a drive belongs to; ``members`` are pairs of drive id and serial."""

    mirror_id: str
    name: str
    members: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Passport:
    """Who a drive is."""

    drive_id: str
    serial: str
    model: str = ""
    claimed_ns: int = 0
    mirror: Membership | None = None

    def joined(self, membership: Membership) -> Passport:
        """The same drive as a member."""
        return dataclasses.replace(self, mirror=membership)


def read_passport(root: Path) -> Passport:
    """Raises ``DriveFault`` when there is none or it makes no sense."""
    path = root / PASSPORT_FILE
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_BYTES_MAX))
        if document["format"] != _FORMAT:
            raise ValueError(f"format {document['format']} is newer than this software")
        return _from(document)
    except OSError as error:
        raise DriveFault(str(root), "reading its passport", error.errno or 0, str(error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DriveFault(str(root), "reading its passport", 0, f"not readable: {error}") from error


def write_passport(root: Path, passport: Passport) -> None:
    """Durable on return; a crash leaves the old one or the new one. Raises ``DriveFault``.

    Crash points: (1) temporary file, flushed (2) rename (3) directory flushed.
    """
    document = {"format": _FORMAT, **dataclasses.asdict(passport)}
    data = json.dumps(document, indent=1).encode()
    path, temporary = root / PASSPORT_FILE, root / f"{PASSPORT_FILE}.new"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        try:
            os.write(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.rename(path)
        directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise DriveFault(str(root), "writing its passport", error.errno or 0, str(error)) from error


def _from(document: dict[str, object]) -> Passport:
    mirror = document.get("mirror")
    membership = None
    if isinstance(mirror, dict):
        membership = Membership(
            str(mirror["mirror_id"]),
            str(mirror["name"]),
            tuple((str(drive), str(serial)) for drive, serial in mirror["members"]),
        )
    claimed_ns = document.get("claimed_ns", 0)
    return Passport(
        drive_id=str(document["drive_id"]),
        serial=str(document["serial"]),
        model=str(document.get("model", "")),
        claimed_ns=claimed_ns if isinstance(claimed_ns, int) else 0,
        mirror=membership,
    )
