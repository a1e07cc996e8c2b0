"""What a log record is: its kinds, its place, and the small values inside it.

Owns the values and their codecs; how records lie in a batch is ``format``'s. Refuses, with
``Damaged``, bytes of a wrong length.

Records and places are named tuples, not dataclasses: they are made by the hundred thousand and a
frozen dataclass costs four times as much to make.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from appliance.core.errors import Damaged
from appliance.core.ports import Buffer
from appliance.engine.interface import Charge

REQUEST_ID_BYTES: Final = 16
BLOB_ID_BYTES: Final = 16
COMMITS_PER_BATCH_MAX: Final = 1 << 16

_LOCATION: Final = struct.Struct("<IIIII")
_FILE_BLOB: Final = struct.Struct("<Q16s")
_CHARGE: Final = struct.Struct("<Hq")
_MANIFEST_HEAD: Final = struct.Struct("<II")
_MANIFEST_ENTRY: Final = struct.Struct("<IIQQ")

LOCATION_BYTES: Final = _LOCATION.size


class Kind(enum.IntEnum):
    """What a record says."""

    PUT = 1
    DELETE = 2
    MOVE = 3
    """A put by compaction: the same version and content at a new place."""
    COMMIT = 4
    """A request id whose commit changed no record."""
    MARK = 5
    """Nothing: its batch makes the one before it unambiguous."""
    START = 6
    """The first batch of an incarnation."""
    MANIFEST = 7
    """The used segments, at the start of each segment."""


class BlobKind(enum.IntEnum):
    """Where a record's blob is."""

    NONE = 0
    INLINE = 1
    FILE = 2


class Location(NamedTuple):
    """A record's place in the log, the same on every drive. ``crc`` pins its exact content."""

    segment: int
    generation: int
    offset: int
    length: int
    crc: int

    def encode(self) -> bytes:
        """``LOCATION_BYTES`` bytes."""
        return _LOCATION.pack(*self)

    @classmethod
    def decode(cls, data: Buffer, at: int = 0) -> Location:
        """Inverse of ``encode``. Raises ``Damaged`` on too few bytes."""
        try:
            return cls(*_LOCATION.unpack_from(data, at))
        except struct.error as error:
            raise Damaged("cannot read a location: too few bytes") from error


class LogRecord(NamedTuple):
    """One record as the log holds it.

    ``charges`` are encoded (``encode_charges``). ``blob`` is the inline bytes, or for a file blob
    ``encode_file_blob``'s. ``version`` is ``version_of(sequence, commit number)``. ``request_id``
    (16 bytes or none) is carried by exactly one record of a commit.
    """

    kind: Kind
    partition: bytes
    key: bytes
    value: bytes = b""
    version: int = 0
    charges: bytes = b""
    blob_kind: BlobKind = BlobKind.NONE
    blob: bytes = b""
    request_id: bytes = b""


class Entry(NamedTuple):
    """A record and where it lies."""

    record: LogRecord
    location: Location


@dataclass(frozen=True, slots=True)
class FileBlob:
    """A blob that is a file of its own."""

    blob_id: bytes
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """A used segment. ``last_sequence`` is 0 for the one the manifest itself stands in."""

    segment: int
    generation: int
    first_sequence: int
    last_sequence: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """Which segments are used, and the lowest segment id never used yet."""

    next_segment: int
    entries: Sequence[ManifestEntry]


def version_of(sequence: int, commit: int) -> int:
    """The version of the records of the ``commit``-th commit of batch ``sequence``."""
    assert 0 <= commit < COMMITS_PER_BATCH_MAX
    return sequence << 16 | commit


def sequence_of(version: int) -> int:
    """The batch whose commit made a record, wherever the record was moved since."""
    return version >> 16


def encode_charges(charges: Iterable[Charge]) -> bytes:
    """Charges as bytes; empty for none."""
    parts = []
    for charge in charges:
        parts.append(_CHARGE.pack(len(charge.counter), charge.amount))
        parts.append(charge.counter)
    return b"".join(parts)


def decode_charges(data: bytes) -> list[tuple[bytes, int]]:
    """(counter, amount) pairs. Raises ``Damaged``."""
    pairs = []
    at = 0
    try:
        while at < len(data):
            length, amount = _CHARGE.unpack_from(data, at)
            at += _CHARGE.size + length
            if at > len(data):
                raise Damaged("cannot read charges: a counter's name is cut off")
            pairs.append((data[at - length : at], amount))
    except struct.error as error:
        raise Damaged("cannot read charges: too few bytes") from error
    return pairs


def encode_file_blob(blob: FileBlob) -> bytes:
    """What ``LogRecord.blob`` holds for a file blob."""
    return _FILE_BLOB.pack(blob.size_bytes, blob.blob_id)


def decode_file_blob(data: Buffer) -> FileBlob:
    """Inverse of ``encode_file_blob``. Raises ``Damaged``."""
    try:
        size_bytes, blob_id = _FILE_BLOB.unpack(data)
    except struct.error as error:
        raise Damaged("cannot read a file blob's reference: wrong length") from error
    return FileBlob(blob_id=blob_id, size_bytes=size_bytes)


def encode_manifest(manifest: Manifest) -> LogRecord:
    """The record that begins a segment."""
    parts = [_MANIFEST_HEAD.pack(manifest.next_segment, len(manifest.entries))]
    parts += [
        _MANIFEST_ENTRY.pack(e.segment, e.generation, e.first_sequence, e.last_sequence)
        for e in manifest.entries
    ]
    return LogRecord(Kind.MANIFEST, b"", b"", b"".join(parts))


def decode_manifest(record: LogRecord) -> Manifest:
    """Inverse of ``encode_manifest``. Raises ``Damaged``."""
    try:
        next_segment, count = _MANIFEST_HEAD.unpack_from(record.value)
        entries = [
            ManifestEntry(*fields)
            for fields in _MANIFEST_ENTRY.iter_unpack(record.value[_MANIFEST_HEAD.size :])
        ]
    except struct.error as error:
        raise Damaged("cannot read a segment manifest: wrong length") from error
    if len(entries) != count:
        raise Damaged("cannot read a segment manifest: wrong count")
    return Manifest(next_segment, entries)
