"""The witness W: the third vote, on a device that is neither drive. A vote, nothing else.

Owns one slot file. W is never part of a backup: an old copy of it is told by its heartbeat, which
is raised on W first and then on the drives, and then counts as lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgpack

from appliance.core.epochs import History
from appliance.core.ports import Volume
from appliance.engine.mirror.slots import (
    PAYLOAD_BYTES_MAX,
    Blank,
    SlotFile,
    Unreadable,
    create_slots,
)
from appliance.engine.mirror.superblock import pack_history, unpack_history

_KIND: Final = 2

__all__ = ["Blank", "Unreadable", "Witness", "WitnessFile", "create_witness"]


@dataclass(frozen=True, slots=True)
class Witness:
    """W's vote. ``mirror_id`` is hexadecimal text."""

    mirror_id: str
    heartbeat: int
    history: History


def _encode(value: Witness) -> bytes:
    fields: dict[str, object] = {"mirror": value.mirror_id, "heartbeat": value.heartbeat}
    room = PAYLOAD_BYTES_MAX - len(msgpack.packb(fields)) - 32
    fields["history"] = pack_history(value.history, room)
    return bytes(msgpack.packb(fields))


def create_witness(volume: Volume, path: str, value: Witness) -> None:
    """Write a new witness (or one in place of a lost one). Durable on return. Raises
    ``DriveFault``. Only after the drives have decided without the old one."""
    create_slots(volume, path, _KIND, _encode(value))


class WitnessFile:
    """The open witness. One thread at a time: its own lane."""

    def __init__(self, slots: SlotFile, value: Witness) -> None:
        self._slots = slots
        self._value = value

    @classmethod
    def open(cls, volume: Volume, path: str) -> WitnessFile | Blank | Unreadable:
        """Raises ``DriveFault``."""
        opened = SlotFile.open(volume, path, _KIND, write=True)
        if not isinstance(opened, SlotFile):
            return opened
        try:
            fields = msgpack.unpackb(opened.payload)
            value = Witness(
                mirror_id=str(fields["mirror"]),
                heartbeat=int(fields["heartbeat"]),
                history=unpack_history(fields["history"]),
            )
        except (ValueError, TypeError, KeyError) as error:
            opened.close()
            return Unreadable(f"its fields are wrong: {error}")
        return cls(opened, value)

    @property
    def value(self) -> Witness:
        """As last read or written."""
        return self._value

    def write(self, value: Witness) -> None:
        """Durable on return; see ``SlotFile.write`` for a ``DriveFault``."""
        assert value.mirror_id == self._value.mirror_id, "a witness serves one mirror"
        self._slots.write(_encode(value))
        self._value = value

    def close(self) -> None:
        """Idempotent."""
        self._slots.close()
