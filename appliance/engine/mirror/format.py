"""The bytes of the log: records, batches, places; see DESIGN.md for the layout.

Owns every struct of the log. Refuses, with ``Damaged``, bytes whose checksum, identity or place is
not the expected one. Invariant: a record or batch verifies only at the segment, generation and
offset it was encoded for, in its own mirror; bytes that were written elsewhere never pass.

Nothing here does I/O. Records and places are named tuples, not dataclasses: they are made by the
hundred thousand and a frozen dataclass costs four times as much to make.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from awscrt.checksums import crc32c

from appliance.core.errors import Damaged, InvalidInput
from appliance.core.ports import Buffer
from appliance.engine.interface import Charge

FORMAT: Final = 1
BLOCK_BYTES: Final = 4096
BATCH_HEADER_BYTES: Final = 128
REQUEST_ID_BYTES: Final = 16
BLOB_ID_BYTES: Final = 16
MIRROR_ID_BYTES: Final = 16
COMMITS_PER_BATCH_MAX: Final = 1 << 16

BATCH_MAGIC: Final = b"APLBATCH"
_HEADER: Final = struct.Struct("<8sHHI16sQQQQIIIIII36x")
_CRC: Final = struct.Struct("<I")
_RECORD: Final = struct.Struct("<BBBBIIQHHIII")
_SEED: Final = struct.Struct("<16sII")
_LOCATION: Final = struct.Struct("<IIIII")
_FILE_BLOB: Final = struct.Struct("<Q16s")
_CHARGE: Final = struct.Struct("<Hq")
_MANIFEST_HEAD: Final = struct.Struct("<II")
_MANIFEST_ENTRY: Final = struct.Struct("<IIQQ")

RECORD_HEADER_BYTES: Final = _CRC.size + _RECORD.size
LOCATION_BYTES: Final = _LOCATION.size
_ZEROS: Final = bytes(BLOCK_BYTES)


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
class BatchPlace:
    """Where a batch goes and what identifies it. Equal on every drive."""

    mirror_id: bytes
    epoch: int
    incarnation: int
    sequence: int
    time_ns: int
    segment: int
    generation: int
    offset: int
    previous_crc: int


@dataclass(frozen=True, slots=True)
class BatchHeader:
    """A verified batch header. ``crc`` is the batch's CRC: the next batch's ``previous_crc``."""

    place: BatchPlace
    record_count: int
    payload_bytes: int
    payload_crc: int
    crc: int

    @property
    def padded_bytes(self) -> int:
        """Length on the drive, a multiple of ``BLOCK_BYTES``."""
        return padded(BATCH_HEADER_BYTES + self.payload_bytes)


@dataclass(frozen=True, slots=True)
class DecodedBatch:
    """A whole batch, verified, or just encoded: ``data`` are its padded bytes."""

    header: BatchHeader
    entries: Sequence[Entry]
    data: bytes


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


def padded(length: int) -> int:
    """``length`` rounded up to whole blocks."""
    return -(-length // BLOCK_BYTES) * BLOCK_BYTES


def record_bytes(record: LogRecord) -> int:
    """Encoded length of a record, for admission."""
    return RECORD_HEADER_BYTES + (
        len(record.request_id)
        + len(record.partition)
        + len(record.key)
        + len(record.value)
        + len(record.charges)
        + len(record.blob)
    )


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


def record_seed(mirror_id: bytes, segment: int, generation: int) -> int:
    """The CRC every record of a segment's generation starts from."""
    return int(crc32c(_SEED.pack(mirror_id, segment, generation)))


def encode_batch(place: BatchPlace, records: Sequence[LogRecord]) -> DecodedBatch:
    """The padded bytes of a batch and where each record lies. Raises ``InvalidInput`` for a field
    that does not fit its struct."""
    try:
        entries, parts = _encode_records(place, records)
        payload = b"".join(parts)
        payload_crc = crc32c(payload)
        head = _HEADER.pack(
            BATCH_MAGIC,
            FORMAT,
            0,
            len(entries),
            place.mirror_id,
            place.epoch,
            place.incarnation,
            place.sequence,
            place.time_ns,
            place.segment,
            place.generation,
            place.offset,
            len(payload),
            place.previous_crc,
            payload_crc,
        )
    except struct.error as error:
        raise InvalidInput(f"cannot encode a batch: {error}") from error
    crc = crc32c(head)
    length = BATCH_HEADER_BYTES + len(payload)
    data = b"".join((head, _CRC.pack(crc), payload, _ZEROS[: padded(length) - length]))
    header = BatchHeader(place, len(entries), len(payload), payload_crc, crc)
    return DecodedBatch(header, entries, data)


def _encode_records(
    place: BatchPlace, records: Sequence[LogRecord]
) -> tuple[list[Entry], list[bytes]]:
    seed = record_seed(place.mirror_id, place.segment, place.generation)
    segment, generation = place.segment, place.generation
    offset = place.offset + BATCH_HEADER_BYTES
    entries: list[Entry] = []
    parts: list[bytes] = []
    for record in records:
        kind, partition, key, value, version, charges, blob_kind, blob, request_id = record
        tail = b"".join((request_id, partition, key, value, charges, blob))
        length = RECORD_HEADER_BYTES + len(tail)
        head = _RECORD.pack(
            kind,
            blob_kind,
            len(partition),
            len(request_id),
            offset,
            length,
            version,
            len(key),
            0,
            len(value),
            len(charges),
            len(blob),
        )
        crc = crc32c(tail, crc32c(head, seed))
        parts += (_CRC.pack(crc), head, tail)
        entries.append(Entry(record, Location(segment, generation, offset, length, crc)))
        offset += length
    return entries, parts


def decode_header(data: Buffer) -> BatchHeader:
    """The batch header at the start of ``data``, its CRC verified. Raises ``Damaged``; the caller
    compares the place with where the bytes were read."""
    if len(data) < BATCH_HEADER_BYTES:
        raise Damaged("cannot read a batch: too few bytes")
    fields = _HEADER.unpack_from(data)
    magic, form, _, count, mirror_id, epoch, incarnation, sequence, time_ns = fields[:9]
    segment, generation, offset, payload_bytes, previous_crc, payload_crc = fields[9:]
    if magic != BATCH_MAGIC:
        raise Damaged("cannot read a batch: there is none")
    (crc,) = _CRC.unpack_from(data, BATCH_HEADER_BYTES - _CRC.size)
    if crc != crc32c(bytes(data[: BATCH_HEADER_BYTES - _CRC.size])):
        raise Damaged("cannot read a batch: its header's checksum is wrong")
    if form != FORMAT:
        raise Damaged(f"cannot read a batch: format {form} is newer than this program")
    place = BatchPlace(
        mirror_id=mirror_id,
        epoch=epoch,
        incarnation=incarnation,
        sequence=sequence,
        time_ns=time_ns,
        segment=segment,
        generation=generation,
        offset=offset,
        previous_crc=previous_crc,
    )
    return BatchHeader(place, count, payload_bytes, payload_crc, crc)


def decode_batch(data: bytes) -> DecodedBatch:
    """A whole batch with every checksum and every record's place verified. Raises ``Damaged``."""
    header = decode_header(data)
    end = BATCH_HEADER_BYTES + header.payload_bytes
    if len(data) < end:
        raise Damaged("cannot read a batch: its payload is cut off")
    if crc32c(data[BATCH_HEADER_BYTES:end]) != header.payload_crc:
        raise Damaged("cannot read a batch: its payload's checksum is wrong")
    place = header.place
    seed = record_seed(place.mirror_id, place.segment, place.generation)
    entries = []
    at = BATCH_HEADER_BYTES
    for _ in range(header.record_count):
        record, length, crc = _decode_record(data, at, seed, place.offset + at)
        location = Location(place.segment, place.generation, place.offset + at, length, crc)
        entries.append(Entry(record, location))
        at += length
    if at != end:
        raise Damaged("cannot read a batch: its records do not fill its payload")
    return DecodedBatch(header, entries, data[: header.padded_bytes])


def decode_record(data: bytes, location: Location, mirror_id: bytes) -> LogRecord:
    """The record of exactly this location. Raises ``Damaged`` for any other bytes."""
    seed = record_seed(mirror_id, location.segment, location.generation)
    record, length, crc = _decode_record(data, 0, seed, location.offset)
    if length != location.length or crc != location.crc:
        raise Damaged("cannot read a record: another one lies at its place")
    return record


def _decode_record(data: bytes, at: int, seed: int, offset: int) -> tuple[LogRecord, int, int]:
    """(record, length, CRC) of the record at ``data[at:]``, which lies at ``offset``."""
    body = at + RECORD_HEADER_BYTES
    if len(data) < body:
        raise Damaged("cannot read a record: too few bytes")
    (crc,) = _CRC.unpack_from(data, at)
    fields = _RECORD.unpack_from(data, at + _CRC.size)
    kind, blob_kind, partition_bytes, request_bytes, own_offset, length, version = fields[:7]
    key_bytes, _, value_bytes, charges_bytes, blob_bytes = fields[7:]
    end = at + length
    if end > len(data) or length < RECORD_HEADER_BYTES:
        raise Damaged("cannot read a record: it is cut off")
    if crc32c(data[at + _CRC.size : end], seed) != crc or own_offset != offset:
        raise Damaged("cannot read a record: its checksum or place is wrong")
    request = body
    partition = request + request_bytes
    key = partition + partition_bytes
    value = key + key_bytes
    charges = value + value_bytes
    blob = charges + charges_bytes
    if blob + blob_bytes != end:
        raise Damaged("cannot read a record: its lengths do not add up")
    try:
        record = LogRecord(
            kind=Kind(kind),
            partition=data[partition:key],
            key=data[key:value],
            value=data[value:charges],
            version=version,
            charges=data[charges:blob],
            blob_kind=BlobKind(blob_kind),
            blob=data[blob:end],
            request_id=data[request:partition],
        )
    except ValueError as error:
        raise Damaged("cannot read a record: its kind is newer than this program") from error
    return record, length, crc
