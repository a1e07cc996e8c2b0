"""Every codec of the log: what goes in comes out, and nothing else passes for it."""

from __future__ import annotations

import struct

import pytest
from awscrt.checksums import crc32c
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.errors import Damaged, InvalidInput
from appliance.engine.interface import Charge
from appliance.engine.mirror.format import (
    BATCH_HEADER_BYTES,
    BLOCK_BYTES,
    BatchPlace,
    BlobKind,
    DecodedBatch,
    FileBlob,
    Kind,
    Location,
    LogRecord,
    Manifest,
    ManifestEntry,
    Peeked,
    decode_batch,
    decode_charges,
    decode_file_blob,
    decode_header,
    decode_manifest,
    decode_record,
    encode_batch,
    encode_charges,
    encode_file_blob,
    encode_manifest,
    padded,
    peek_record,
    record_bytes,
    record_seed,
    version_of,
)
from appliance.engine.mirror.segment import (
    SegmentHeader,
    decode_segment_header,
    encode_segment_header,
)

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
MIRROR = bytes(range(16))

records = st.builds(
    LogRecord,
    kind=st.sampled_from(Kind),
    partition=st.binary(max_size=40),
    key=st.binary(max_size=300),
    value=st.binary(max_size=500),
    version=U64,
    charges=st.binary(max_size=60),
    blob_kind=st.sampled_from(BlobKind),
    blob=st.binary(max_size=5000),
    request_id=st.one_of(st.just(b""), st.binary(min_size=16, max_size=16)),
)
places = st.builds(
    BatchPlace,
    mirror_id=st.binary(min_size=16, max_size=16),
    epoch=U64,
    incarnation=U64,
    sequence=U64,
    time_ns=U64,
    segment=U32,
    generation=U32,
    offset=st.integers(1, 2**15).map(lambda block: block * BLOCK_BYTES),
    previous_crc=U32,
)
batches = st.builds(encode_batch, places, st.lists(records, max_size=6))


def small_batch(offset: int = 8192) -> DecodedBatch:
    place = BatchPlace(MIRROR, 1, 2, 3, 4, 5, 6, offset, 7)
    return encode_batch(
        place,
        [
            LogRecord(Kind.PUT, b"acme", b"one", b"v" * 90, 9, b"", BlobKind.INLINE, b"x" * 700),
            LogRecord(Kind.DELETE, b"acme", b"two", version=10, request_id=bytes(16)),
        ],
    )


@given(batches)
def test_a_batch_comes_back_whole(batch: DecodedBatch) -> None:
    assert len(batch.data) == batch.header.padded_bytes == padded(len(batch.data))
    decoded = decode_batch(batch.data + b"next batch")
    assert decoded == batch
    assert decode_header(batch.data[:BATCH_HEADER_BYTES]) == batch.header
    assert sum(record_bytes(e.record) for e in batch.entries) == batch.header.payload_bytes


@given(batches)
def test_each_record_is_read_alone(batch: DecodedBatch) -> None:
    place = batch.header.place
    for entry in batch.entries:
        at = entry.location.offset - place.offset
        data = batch.data[at : at + entry.location.length]
        assert decode_record(data, entry.location, place.mirror_id) == entry.record
        assert Location.decode(entry.location.encode()) == entry.location


@given(st.integers(0, 8 * 4096 - 1), st.data())
def test_no_flipped_bit_passes(bit: int, data: st.DataObject) -> None:
    batch = small_batch()
    end = BATCH_HEADER_BYTES + batch.header.payload_bytes
    spoilt = bytearray(batch.data)
    at = bit // 8 % end
    spoilt[at] ^= 1 << bit % 8
    with pytest.raises(Damaged):
        decode_batch(bytes(spoilt))
    entry = data.draw(st.sampled_from(batch.entries))
    start = entry.location.offset - batch.header.place.offset
    if start <= at < start + entry.location.length:
        with pytest.raises(Damaged):
            decode_record(
                bytes(spoilt[start : start + entry.location.length]), entry.location, MIRROR
            )


def resealed(data: bytes, offset: int, layout: str, value: object) -> bytes:
    """A batch's header with another value in one field and a checksum that fits."""
    changed = bytearray(data)
    struct.pack_into(layout, changed, offset, value)
    at = BATCH_HEADER_BYTES - 4
    struct.pack_into("<I", changed, at, crc32c(bytes(changed[:at])))
    return bytes(changed)


def test_what_bears_another_magic_is_no_batch() -> None:
    data = small_batch().data
    assert decode_header(resealed(data, 0, "8s", data[:8])) == small_batch().header
    with pytest.raises(Damaged, match="there is none"):
        decode_header(resealed(data, 0, "8s", b"notbatch"))


def test_a_batch_of_a_newer_program_is_not_misread() -> None:
    with pytest.raises(Damaged, match="newer than this program"):
        decode_header(resealed(small_batch().data, 8, "<H", 200))


@pytest.mark.parametrize("count", [0, 1])
def test_a_batch_that_holds_more_than_its_records_does_not_pass(count: int) -> None:
    batch = small_batch()
    at = batch.data.index(struct.pack("<H", 2), 10)
    fewer = resealed(batch.data, at, "<H", count)
    assert decode_header(fewer).record_count == count
    with pytest.raises(Damaged, match="do not fill"):
        decode_batch(fewer)


def test_a_batch_that_is_cut_off_says_so() -> None:
    batch = small_batch()
    with pytest.raises(Damaged, match="cut off"):
        decode_batch(batch.data[: BATCH_HEADER_BYTES + batch.header.payload_bytes - 1])


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [("kind", 200, "newer"), ("blob kind", 200, "newer"), ("key", 4, "add up")],
)
def test_a_record_with_a_good_checksum_and_a_wrong_field(field: str, value: int, why: str) -> None:
    """As a newer program, or a mistake of this one, would write it."""
    location = small_batch().entries[0].location
    at = location.offset - 8192
    record = bytearray(small_batch().data[at : at + location.length])
    struct.pack_into("<B", record, {"kind": 4, "blob kind": 5, "key": 24}[field], value)
    crc = crc32c(bytes(record[4:]), record_seed(MIRROR, location.segment, location.generation))
    struct.pack_into("<I", record, 0, crc)
    with pytest.raises(Damaged, match=why):
        decode_record(bytes(record), location._replace(crc=crc), MIRROR)


def test_a_record_that_is_cut_off_says_so() -> None:
    location = small_batch().entries[0].location
    at = location.offset - 8192
    with pytest.raises(Damaged, match="cut off"):
        decode_record(small_batch().data[at : at + location.length - 1], location, MIRROR)


def test_what_is_lost_is_named_only_by_what_was_written_there() -> None:
    data, location = small_batch().data, small_batch().entries[0].location
    at = location.offset - 8192
    assert peek_record(data, at, location.offset) == Peeked(
        Kind.PUT, b"acme", b"one", 9, location.length
    )
    assert peek_record(data, at, location.offset + 4096) is None
    assert peek_record(data[:at] + b"\xff" * len(data), at, location.offset) is None


@pytest.mark.parametrize("keep", [0, 100, 128, 500, 900])
def test_a_torn_batch_does_not_pass(keep: int) -> None:
    data = small_batch().data
    for torn in (data[:keep], data[:keep].ljust(len(data), b"\0")):
        with pytest.raises(Damaged):
            decode_batch(torn)


def test_a_record_passes_only_at_its_own_place() -> None:
    batch = small_batch()
    location = batch.entries[0].location
    at = location.offset - 8192
    data = batch.data[at : at + location.length]
    decode_record(data, location, MIRROR)
    for wrong in (
        location._replace(segment=9),
        location._replace(generation=9),
        location._replace(offset=location.offset + 1),
        location._replace(crc=location.crc ^ 1),
    ):
        with pytest.raises(Damaged):
            decode_record(data, wrong, MIRROR)
    with pytest.raises(Damaged):
        decode_record(data, location, bytes(16))


def test_the_same_record_written_later_at_another_place_does_not_pass() -> None:
    """A write that landed in the wrong block is whole, but not what the index asked for."""
    here, there = small_batch(8192), small_batch(12288)
    asked = here.entries[0].location
    at = asked.offset - 8192
    with pytest.raises(Damaged):
        decode_record(there.data[at : at + asked.length], asked, MIRROR)


def test_a_header_and_a_payload_of_two_writes_do_not_pass() -> None:
    """Each record is whole, but the batch is a mixture."""
    first = small_batch()
    place = first.header.place
    records = [entry.record for entry in first.entries]
    second = encode_batch(place, [records[0]._replace(value=b"w" * 90), *records[1:]])
    mixed = first.data[:BATCH_HEADER_BYTES] + second.data[BATCH_HEADER_BYTES:]
    with pytest.raises(Damaged):
        decode_batch(mixed)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 44 * 8 - 1))
def test_segment_headers(segment: int, generation: int, bit: int) -> None:
    header = SegmentHeader(MIRROR, segment, generation, 1 << 26)
    data = encode_segment_header(header)
    assert len(data) == BLOCK_BYTES and decode_segment_header(data) == header
    assert not any(data[512:]), "one sector holds it, so that it is never torn"
    spoilt = bytearray(data)
    spoilt[bit // 8] ^= 1 << bit % 8
    for wrong in (bytes(spoilt), data[:40]):
        with pytest.raises(Damaged):
            decode_segment_header(wrong)


@pytest.mark.parametrize(
    ("offset", "content", "why"),
    [(0, b"notsegmt", "checksum is wrong"), (8, b"\x63\x00", "newer than this program")],
)
def test_a_segment_header_with_a_good_checksum_and_another_head(
    offset: int, content: bytes, why: str
) -> None:
    data = bytearray(encode_segment_header(SegmentHeader(MIRROR, 1, 1, 1 << 26)))
    end = len(bytes(data).rstrip(b"\0"))
    (at,) = [at for at in range(end - 4, end + 1) if _crc_at(data, at) == crc32c(bytes(data[:at]))]
    data[offset : offset + len(content)] = content
    struct.pack_into("<I", data, at, crc32c(bytes(data[:at])))
    with pytest.raises(Damaged, match=why):
        decode_segment_header(bytes(data))


def test_a_segment_header_with_a_wrong_checksum() -> None:
    data = bytearray(encode_segment_header(SegmentHeader(MIRROR, 1, 1, 1 << 26)))
    data[20] ^= 1
    with pytest.raises(Damaged, match="checksum is wrong"):
        decode_segment_header(bytes(data))


def _crc_at(data: bytearray, at: int) -> int:
    (crc,) = struct.unpack_from("<I", data, at)
    return int(crc)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_damaged(data: bytes) -> None:
    with pytest.raises(Damaged):
        decode_batch(data)
    with pytest.raises(Damaged):
        decode_record(data, Location(1, 1, 4096, len(data), 0), MIRROR)


def test_a_field_that_does_not_fit_is_refused() -> None:
    place = BatchPlace(MIRROR, 1, 2, 3, 4, 5, 6, 4096, 7)
    with pytest.raises(InvalidInput):
        encode_batch(place, [LogRecord(Kind.PUT, b"p" * 256, b"key")])
    with pytest.raises(InvalidInput):
        encode_batch(place, [LogRecord(Kind.PUT, b"p", b"k" * 65536)])


charges = st.builds(
    Charge, counter=st.binary(max_size=200), amount=st.integers(-(2**63), 2**63 - 1)
)


@given(st.lists(charges, max_size=8))
def test_charges(wanted: list[Charge]) -> None:
    data = encode_charges(wanted)
    assert decode_charges(data) == [(charge.counter, charge.amount) for charge in wanted]


@given(st.binary(min_size=1, max_size=60))
def test_arbitrary_charges_are_read_whole_or_damaged(data: bytes) -> None:
    try:
        pairs = decode_charges(data)
    except Damaged:
        return
    assert encode_charges([Charge(*pair) for pair in pairs]) == data


@given(st.binary(min_size=16, max_size=16), U64)
def test_file_blobs(blob_id: bytes, size: int) -> None:
    blob = FileBlob(blob_id, size)
    assert decode_file_blob(encode_file_blob(blob)) == blob
    with pytest.raises(Damaged):
        decode_file_blob(encode_file_blob(blob)[:-1])


@given(U32, st.lists(st.builds(ManifestEntry, U32, U32, U64, U64), max_size=20))
def test_manifests(next_segment: int, entries: list[ManifestEntry]) -> None:
    record = encode_manifest(Manifest(next_segment, entries))
    assert decode_manifest(record) == Manifest(next_segment, entries)
    with pytest.raises(Damaged):
        decode_manifest(record._replace(value=record.value + b"x" * 24))
    with pytest.raises(Damaged):
        decode_manifest(record._replace(value=record.value[:-1]))


def test_versions_rise_with_sequence_and_commit() -> None:
    versions = [version_of(s, c) for s in (1, 2, 3) for c in (0, 1, 65535)]
    assert versions == sorted(set(versions))
