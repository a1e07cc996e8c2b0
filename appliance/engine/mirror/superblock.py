"""A drive's superblock: whose it is, which mirror it belongs to, and its vote.

Owns ``superblock`` on each drive. A claimed drive that is in no mirror yet has an empty mirror id
and history. Readable without a log replay of the file system (``ro,norecovery``), because its
extents are written once and never move.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import msgpack

from appliance.core.epochs import Epoch, History, Leave
from appliance.core.errors import InvalidInput
from appliance.core.ports import Volume
from appliance.engine.mirror.slots import (
    PAYLOAD_BYTES_MAX,
    Blank,
    SlotFile,
    Unreadable,
    create_slots,
)

SUPERBLOCK_PATH: Final = "superblock"
TEXT_BYTES_MAX: Final = 128
SUPERBLOCK_KIND: Final = 1
"""The kind of its slots."""

__all__ = [
    "SUPERBLOCK_KIND",
    "SUPERBLOCK_PATH",
    "Blank",
    "Superblock",
    "SuperblockFile",
    "Unreadable",
    "format_drive",
    "pack_history",
    "read_superblock",
    "unpack_history",
]


@dataclass(frozen=True, slots=True)
class Superblock:
    """A drive's identity and vote. Ids are hexadecimal text."""

    drive_id: str
    serial: str = ""
    label: str = ""
    mirror_id: str = ""
    segment_size_bytes: int = 0
    heartbeat: int = 0
    created_ns: int = 0
    history: History = ()
    read_errors: int = 0
    """Found on it since it was claimed; as of its last write."""


def pack_history(history: History, room_bytes: int) -> list[object]:
    """A msgpack-able form of the newest epochs that fit in ``room_bytes``."""
    packed: list[object] = []
    used = 0
    for epoch in reversed(history):
        item = [
            epoch.number,
            epoch.id,
            epoch.parent_id,
            list(epoch.in_sync),
            [[leave.drive_id, leave.sequence, leave.clean] for leave in epoch.leaves],
            epoch.forced,
            list(epoch.voids),
            list(epoch.rejects),
        ]
        used += len(msgpack.packb(item))
        if packed and used > room_bytes:
            break
        packed.append(item)
    return packed[::-1]


def unpack_history(items: list[list[object]]) -> History:
    """Inverse of ``pack_history``. Raises ``ValueError`` or ``TypeError`` on anything else."""
    history = []
    for number, epoch_id, parent_id, in_sync, leaves, forced, voids, *later in items:
        epoch = Epoch(
            number=_whole(number),
            id=str(epoch_id),
            parent_id=str(parent_id),
            in_sync=tuple(str(drive) for drive in _list(in_sync)),
            leaves=tuple(map(_leave, map(_list, _list(leaves)))),
            forced=bool(forced),
            voids=tuple(str(void) for void in _list(voids)),
            rejects=tuple(str(end) for rejects in later[:1] for end in _list(rejects)),
        )
        if not epoch.is_sound():
            raise ValueError(f"epoch {epoch.number} breaks the rules of an epoch")
        history.append(epoch)
    return tuple(history)


def _leave(fields: list[object]) -> Leave:
    drive, sequence, *clean = fields
    return Leave(str(drive), _whole(sequence), clean=clean[:1] == [True])


def _whole(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError("a whole number is expected")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError("a list is expected")
    return value


def _encode(superblock: Superblock) -> bytes:
    texts = (superblock.drive_id, superblock.serial, superblock.label, superblock.mirror_id)
    if any(len(text.encode()) > TEXT_BYTES_MAX for text in texts):
        raise InvalidInput(f"cannot write a superblock: a text is over {TEXT_BYTES_MAX} bytes")
    fields: dict[str, object] = {
        "drive": superblock.drive_id,
        "serial": superblock.serial,
        "label": superblock.label,
        "mirror": superblock.mirror_id,
        "segment": superblock.segment_size_bytes,
        "heartbeat": superblock.heartbeat,
        "created": superblock.created_ns,
        "read_errors": superblock.read_errors,
    }
    room = PAYLOAD_BYTES_MAX - len(msgpack.packb(fields)) - 32
    fields["history"] = pack_history(superblock.history, room)
    return bytes(msgpack.packb(fields))


def _decode(payload: bytes) -> Superblock | Unreadable:
    try:
        fields = msgpack.unpackb(payload)
        return Superblock(
            drive_id=str(fields["drive"]),
            serial=str(fields["serial"]),
            label=str(fields["label"]),
            mirror_id=str(fields["mirror"]),
            segment_size_bytes=_whole(fields["segment"]),
            heartbeat=_whole(fields["heartbeat"]),
            created_ns=_whole(fields["created"]),
            history=unpack_history(fields["history"]),
            read_errors=_whole(fields.get("read_errors", 0)),
        )
    except (ValueError, TypeError, KeyError) as error:
        return Unreadable(f"its fields are wrong: {error}")


def format_drive(volume: Volume, superblock: Superblock) -> None:
    """Write a drive's first superblock (replacing one). Durable on return. Raises ``DriveFault``.
    Whether the drive may be formatted is the caller's to know."""
    create_slots(volume, SUPERBLOCK_PATH, SUPERBLOCK_KIND, _encode(superblock))


def read_superblock(volume: Volume) -> Superblock | Blank | Unreadable:
    """What a drive says it is. Works on a read-only mount. Raises ``DriveFault``."""
    opened = SlotFile.open(volume, SUPERBLOCK_PATH, SUPERBLOCK_KIND, write=False)
    if not isinstance(opened, SlotFile):
        return opened
    payload = opened.payload
    opened.close()
    return _decode(payload)


class SuperblockFile:
    """The open superblock of a drive in use. One thread at a time: the drive's lane."""

    def __init__(self, slots: SlotFile, value: Superblock) -> None:
        self._slots = slots
        self._value = value
        self.read_errors_before: Final = value.read_errors
        self.read_errors = 0
        """Found since; they are written with the next vote."""

    @classmethod
    def open(cls, volume: Volume) -> SuperblockFile | Blank | Unreadable:
        """Raises ``DriveFault``."""
        opened = SlotFile.open(volume, SUPERBLOCK_PATH, SUPERBLOCK_KIND, write=True)
        if not isinstance(opened, SlotFile):
            return opened
        value = _decode(opened.payload)
        if isinstance(value, Unreadable):
            opened.close()
            return value
        return cls(opened, value)

    @property
    def value(self) -> Superblock:
        """As last read or written."""
        return self._value

    def write(self, value: Superblock) -> None:
        """Durable on return; see ``SlotFile.write`` for a ``DriveFault``."""
        assert value.drive_id == self._value.drive_id, "a drive keeps its identity"
        value = replace(value, read_errors=self.read_errors_before + self.read_errors)
        self._slots.write(_encode(value))
        self._value = value

    def close(self) -> None:
        """Idempotent."""
        self._slots.close()
