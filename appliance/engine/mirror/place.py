"""What a ``BlobRef``'s place means, and how an index row looks to callers.

Owns the encoding of places: opaque above the engine, good in any process of the mirror. Refuses,
with ``Damaged``, bytes that are none. Pure.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

from appliance.core.errors import Damaged
from appliance.engine.interface import BlobRef, Record
from appliance.engine.mirror.format import LOCATION_BYTES, BlobKind, Location
from appliance.engine.mirror.index_reader import KIND_AT, IndexedRecord

_INLINE: Final = b"L"
_FILE: Final = b"F"
_OWNER: Final = struct.Struct("<QBH")
_LOCATED: Final = struct.Struct("<IIIIIQBH")
"""A location, and its owner behind it."""


class InlinePlace(NamedTuple):
    """A blob inside its log record; the owner lets it be found again when it moved."""

    location: Location
    version: int
    partition: str
    key: bytes


@dataclass(frozen=True, slots=True)
class FilePlace:
    """A blob that is a file."""

    blob_id: bytes


def encode_inline(row: IndexedRecord, partition: bytes) -> bytes:
    """The place of a record's inline blob."""
    owner = _OWNER.pack(row.version, len(partition), len(row.key))
    return b"".join((_INLINE, row.place[:LOCATION_BYTES], owner, partition, row.key))


def decode_place(place: bytes) -> InlinePlace | FilePlace:
    """What a ``BlobRef`` points at. Raises ``Damaged`` on anything else."""
    if place[:1] == _FILE:
        return FilePlace(place[1:])
    at = 1 + _LOCATED.size
    if place[:1] != _INLINE or len(place) < at:
        raise Damaged("cannot read a blob: its place is of no known kind")
    *location, version, partition_bytes, key_bytes = _LOCATED.unpack_from(place, 1)
    key = at + partition_bytes
    partition = place[at:key].decode()
    return InlinePlace(Location(*location), version, partition, place[key : key + key_bytes])


def to_record(row: IndexedRecord, partition: bytes) -> Record:
    """An index row as callers see it."""
    blob_kind = row.place[KIND_AT]  # listings ask for a thousand rows: no enum is made here
    if blob_kind == BlobKind.NONE:
        blob = None
    elif blob_kind == BlobKind.INLINE:
        blob = BlobRef(row.blob_size, encode_inline(row, partition))
    else:
        blob = BlobRef(row.blob_size, _FILE + row.blob_id)
    return Record(row.key, row.value, row.version, blob)
