"""The bytes of the log's batches; see DESIGN.md for the layout.

Owns the structs of batches and of records inside them. Refuses, with ``Damaged``, bytes whose
checksum, identity or place is not the expected one. Invariant: a record or batch verifies only at
the segment, generation and offset it was encoded for, in its own mirror; bytes that were written
elsewhere never pass.

Nothing here does I/O. The values of ``record`` are offered here too.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from awscrt.checksums import crc32c

from appliance.core.errors import Damaged, InvalidInput
from appliance.core.ports import Buffer
from appliance.engine.mirror.record import (
    BLOB_ID_BYTES,
    COMMITS_PER_BATCH_MAX,
    LOCATION_BYTES,
    REQUEST_ID_BYTES,
    BlobKind,
    Entry,
    FileBlob,
    Kind,
    Location,
    LogRecord,
    Manifest,
    ManifestEntry,
    decode_charges,
    decode_file_blob,
    decode_manifest,
    encode_charges,
    encode_file_blob,
    encode_manifest,
    version_of,
)

FORMAT: Final = 1
BLOCK_BYTES: Final = 4096
BATCH_HEADER_BYTES: Final = 128
MIRROR_ID_BYTES: Final = 16

BATCH_MAGIC: Final = b"APLBATCH"
_HEADER: Final = struct.Struct("<8sHHI16sQQQQIIIIII36x")
_CRC: Final = struct.Struct("<I")
_RECORD: Final = struct.Struct("<BBBBIIQHHIII")
_SEED: Final = struct.Struct("<16sII")

RECORD_HEADER_BYTES: Final = _CRC.size + _RECORD.size
_ZEROS: Final = bytes(BLOCK_BYTES)
_KINDS: Final = {int(kind): kind for kind in Kind}
_BLOB_KINDS: Final = {int(kind): kind for kind in BlobKind}

__all__ = [
    "BATCH_HEADER_BYTES",
    "BATCH_MAGIC",
    "BLOB_ID_BYTES",
    "BLOCK_BYTES",
    "COMMITS_PER_BATCH_MAX",
    "LOCATION_BYTES",
    "MIRROR_ID_BYTES",
    "RECORD_HEADER_BYTES",
    "REQUEST_ID_BYTES",
    "BatchHeader",
    "BatchPlace",
    "BlobKind",
    "DecodedBatch",
    "Entry",
    "FileBlob",
    "Kind",
    "Location",
    "LogRecord",
    "Manifest",
    "ManifestEntry",
    "Peeked",
    "decode_batch",
    "decode_charges",
    "decode_file_blob",
    "decode_header",
    "decode_manifest",
    "decode_record",
    "encode_batch",
    "encode_charges",
    "encode_file_blob",
    "encode_manifest",
    "padded",
    "peek_record",
    "record_bytes",
    "record_seed",
    "version_of",
]


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
    """A whole batch, verified, or just encoded: ``data`` are its bytes, padded with zeros."""

    header: BatchHeader
    entries: Sequence[Entry]
    data: bytes


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


@functools.lru_cache(maxsize=1024)
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


def decode_batch(data: bytes, *, records: bool = True) -> DecodedBatch:
    """A whole batch with every checksum and every record's place verified. Without ``records``
    it is the checksum over all of them that is, and there are no entries. Raises ``Damaged``."""
    header = decode_header(data)
    end = BATCH_HEADER_BYTES + header.payload_bytes
    if len(data) < end:
        raise Damaged("cannot read a batch: its payload is cut off")
    if crc32c(data[BATCH_HEADER_BYTES:end]) != header.payload_crc:
        raise Damaged("cannot read a batch: its payload's checksum is wrong")
    if not records:
        return DecodedBatch(header, (), _with_padding(data, end))
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
    return DecodedBatch(header, entries, _with_padding(data, end))


def _with_padding(data: bytes, end: int) -> bytes:
    """A batch that ends there, as it was encoded: no checksum covers what pads it, and rot there
    must not be copied to another drive."""
    whole = data[: padded(end)]
    if len(whole) == padded(end) and whole.count(0, end) == len(whole) - end:
        return whole
    return data[:end].ljust(padded(end), b"\0")


def decode_record(data: bytes, location: Location, mirror_id: bytes) -> LogRecord:
    """The record of exactly this location. Raises ``Damaged`` for any other bytes."""
    seed = record_seed(mirror_id, location.segment, location.generation)
    record, length, crc = _decode_record(data, 0, seed, location.offset)
    if length != location.length or crc != location.crc:
        raise Damaged("cannot read a record: another one lies at its place")
    return record


class Peeked(NamedTuple):
    """What a record that need not verify seems to be."""

    kind: Kind
    partition: bytes
    key: bytes
    version: int
    length: int


def peek_record(data: bytes, at: int, offset: int) -> Peeked | None:
    """What looks like the record that was written at ``offset``, though it need not verify: for
    naming what is lost, and nothing else. None for other bytes."""
    if len(data) < at + RECORD_HEADER_BYTES:
        return None
    fields = _RECORD.unpack_from(data, at + _CRC.size)
    kind, _, partition_bytes, request_bytes, own_offset, length, version, key_bytes = fields[:8]
    if own_offset != offset or length != RECORD_HEADER_BYTES + sum(fields[9:]) + (
        partition_bytes + request_bytes + key_bytes
    ):
        return None
    partition = at + RECORD_HEADER_BYTES + request_bytes
    key = partition + partition_bytes
    try:
        found = data[partition:key], data[key : key + key_bytes]
        return Peeked(Kind(kind), *found, version, length)
    except ValueError:
        return None


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
            kind=_KINDS[kind],
            partition=data[partition:key],
            key=data[key:value],
            value=data[value:charges],
            version=version,
            charges=data[charges:blob],
            blob_kind=_BLOB_KINDS[blob_kind],
            blob=data[blob:end],
            request_id=data[request:partition],
        )
    except KeyError as error:
        raise Damaged("cannot read a record: its kind is newer than this program") from error
    return record, length, crc
