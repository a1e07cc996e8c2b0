"""A small value kept in two alternating 4 KiB slots of one file: superblocks and the witness.

Owns the slot's bytes and the order of writes. Invariant: whatever instant the power goes, one slot
holds the value before or after the write, whole; the newest valid one wins. Each write goes to both
slots in turn, so that one slot that rots later does not bring an older vote back.

Crash points of ``write``: (1) before or during the first slot: the other slot's older value wins;
(2) after it: the new value wins, the write is durable; (3) during the second slot: the first wins.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from awscrt.checksums import crc32c

from appliance.core.errors import InvalidInput
from appliance.core.ports import File, Volume

SLOT_BYTES: Final = 4096
SLOTS: Final = 2
FORMAT: Final = 1

_MAGIC: Final = b"APLVOTES"
_HEADER: Final = struct.Struct("<8sHHIQI")
PAYLOAD_BYTES_MAX: Final = SLOT_BYTES - _HEADER.size


@dataclass(frozen=True, slots=True)
class Blank:
    """There is no such file: never formatted."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """There is a file, but it holds no valid value of the kind asked for."""

    reason: str


@dataclass(frozen=True, slots=True)
class Slot:
    """One valid slot."""

    number: int
    counter: int
    payload: bytes


def encode_slot(kind: int, counter: int, payload: bytes) -> bytes:
    """``SLOT_BYTES`` bytes. Raises ``InvalidInput`` for a payload that does not fit."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise InvalidInput(f"cannot write a slot: {len(payload)} bytes do not fit in it")
    zeros = bytes(PAYLOAD_BYTES_MAX - len(payload))
    head = _HEADER.pack(_MAGIC, FORMAT, kind, len(payload), counter, 0)
    crc = crc32c(b"".join((head, payload, zeros)))
    return b"".join((head[:-4], struct.pack("<I", crc), payload, zeros))


def decode_slot(data: bytes, kind: int) -> tuple[int, bytes] | str:
    """(counter, payload), or why these bytes are no valid slot of that kind."""
    if len(data) != SLOT_BYTES:
        return "too short"
    magic, form, own_kind, length, counter, crc = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        return "not written by this program"
    head = data[: _HEADER.size - 4] + bytes(4)
    if crc32c(data[_HEADER.size :], crc32c(head)) != crc:
        return "wrong checksum"
    if form != FORMAT:
        return f"format {form} is newer than this program"
    if own_kind != kind or length > PAYLOAD_BYTES_MAX:
        return "of another kind"
    return counter, data[_HEADER.size : _HEADER.size + length]


def create_slots(volume: Volume, path: str, kind: int, payload: bytes) -> None:
    """Write a new file with ``payload`` in both slots; replaces one of that name. Durable on
    return. Raises ``DriveFault``. A crash before the rename leaves what was there before."""
    temporary = f"{path}.new"
    if volume.stat(temporary) is not None:
        volume.unlink(temporary)
    data = encode_slot(kind, 1, payload)
    file = volume.open(temporary, write=True, create=True)
    try:
        file.write_at(0, data * SLOTS)
        file.flush()
    finally:
        file.close()
    volume.rename(temporary, path)
    volume.flush_directory(path.rpartition("/")[0])


class SlotFile:
    """An open slot file. One thread at a time."""

    def __init__(self, file: File, kind: int, newest: Slot) -> None:
        self._file = file
        self._kind = kind
        self._newest = newest

    @classmethod
    def open(
        cls, volume: Volume, path: str, kind: int, *, write: bool
    ) -> SlotFile | Blank | Unreadable:
        """The newest valid value. Raises ``DriveFault`` if a slot cannot be read at all, since
        that one might be the newest. With ``write`` it is durable on return: what an earlier life
        failed to write, or wrote last, may be in the drive's cache alone."""
        if volume.stat(path) is None:
            return Blank()
        file = volume.open(path, write=write, durable=write)
        try:
            if write:
                file.flush()
            found = _newest(file, kind)
        except BaseException:
            file.close()
            raise
        if isinstance(found, str):
            file.close()
            return Unreadable(found)
        return cls(file, kind, found)

    @property
    def payload(self) -> bytes:
        """The value as last read or written."""
        return self._newest.payload

    def write(self, payload: bytes) -> None:
        """Durable on return. Raises ``DriveFault``; then either value may be found later, and the
        file must not be written again before it was opened anew."""
        counter = self._newest.counter + 1
        data = encode_slot(self._kind, counter, payload)
        first = 1 - self._newest.number
        for number in (first, 1 - first):
            self._file.write_at(number * SLOT_BYTES, data)
        self._newest = Slot(first, counter, payload)

    def close(self) -> None:
        """Idempotent."""
        self._file.close()


def _newest(file: File, kind: int) -> Slot | str:
    """The valid slot with the highest counter, or why there is none."""
    found: list[Slot] = []
    reasons: list[str] = []
    for number in range(SLOTS):
        read = decode_slot(file.read_at(number * SLOT_BYTES, SLOT_BYTES, past_cache=True), kind)
        if isinstance(read, str):
            reasons.append(read)
        else:
            found.append(Slot(number, *read))
    if not found:
        return reasons[0]
    return max(found, key=lambda slot: slot.counter)
