"""The passport: what a drive of ours says of itself before any engine is open.

Owns ``passport.json`` in the root of a drive: drive id, serial, and once it is in a mirror the
mirror's name and all members with their serials, so that a missing one can be named. The votes that
decide what may be served are not here but in the engine's superblock. Replaced atomically.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.core.errors import DriveFault

PASSPORT_FILE: Final = "passport.json"
_FORMAT: Final = 1
_BYTES_MAX: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Membership:
    """The mirror a drive belongs to; ``members`` and ``spares`` are pairs of drive id and serial.
    ``joining`` are pairs of a new member and the one it takes the place of; both are members until
    that is done. ``capacity_bytes``: size of the smallest drive it was made for, 0 if nobody wrote
    it down. Of several drives' memberships the one with the highest ``revision`` counts."""

    mirror_id: str
    name: str
    members: tuple[tuple[str, str], ...]
    joining: tuple[tuple[str, str], ...] = ()
    spares: tuple[tuple[str, str], ...] = ()
    capacity_bytes: int = 0
    revision: int = 0

    def lists(self, drive_id: str) -> bool:
        """Whether the drive is a member or a spare."""
        return any(drive_id == each for each, _ in (*self.members, *self.spares))


@dataclass(frozen=True, slots=True)
class Passport:
    """Who a drive is. ``former``: the mirror it was detached from, whose data it still holds."""

    drive_id: str
    serial: str
    model: str = ""
    claimed_ns: int = 0
    mirror: Membership | None = None
    former: str = ""

    @property
    def is_free(self) -> bool:
        """Whether the drive is empty and in no mirror."""
        return self.mirror is None and not self.former

    @property
    def station(self) -> str:
        """Why it is not free, for a sentence that begins with "it"."""
        if self.mirror is None:
            return f"it was detached from mirror {self.former} and still holds its data"
        is_spare = any(self.drive_id == spare for spare, _ in self.mirror.spares)
        return f"it is a {'spare' if is_spare else 'member'} of {self.mirror.name}"

    def joined(self, membership: Membership) -> Passport:
        """The same drive as a member or spare."""
        return dataclasses.replace(self, mirror=membership, former="")

    def detached(self) -> Passport:
        """The same drive in no mirror any more, with all it holds."""
        former = self.mirror.name if self.mirror is not None else self.former
        return dataclasses.replace(self, mirror=None, former=former)

    def freed(self) -> Passport:
        """The same drive in no mirror any more, and empty."""
        return dataclasses.replace(self, mirror=None)


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
            _pairs(mirror["members"]),
            _pairs(mirror.get("joining", ())),
            _pairs(mirror.get("spares", ())),
            int(mirror.get("capacity_bytes", 0)),
            int(mirror.get("revision", 0)),
        )
    claimed_ns = document.get("claimed_ns", 0)
    return Passport(
        drive_id=str(document["drive_id"]),
        serial=str(document["serial"]),
        model=str(document.get("model", "")),
        claimed_ns=claimed_ns if isinstance(claimed_ns, int) else 0,
        mirror=membership,
        former=str(document.get("former", "")),
    )


def _pairs(items: Iterable[tuple[object, object]]) -> tuple[tuple[str, str], ...]:
    return tuple((str(first), str(second)) for first, second in items)
