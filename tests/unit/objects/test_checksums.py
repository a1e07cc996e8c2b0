"""Checksums: known values, and parts that make a whole."""

from __future__ import annotations

import base64
import hashlib
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.checksums import (
    ChecksumAlgorithm,
    ChecksumKind,
    allowed_kind,
    combined,
    composite,
    decode,
    default_kind,
    encode,
    hasher,
)
from appliance.core.errors import InvalidInput

CRCS = (ChecksumAlgorithm.CRC32, ChecksumAlgorithm.CRC32C, ChecksumAlgorithm.CRC64NVME)


def digest(algorithm: ChecksumAlgorithm, data: bytes) -> bytes:
    made = hasher(algorithm)
    made.update(data)
    return made.digest()


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        (ChecksumAlgorithm.CRC32, "cbf43926"),
        (ChecksumAlgorithm.CRC32C, "e3069283"),
        (ChecksumAlgorithm.CRC64NVME, "ae8b14860a799888"),
        (ChecksumAlgorithm.SHA1, "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
        (ChecksumAlgorithm.SHA256, hashlib.sha256(b"123456789").hexdigest()),
    ],
)
def test_check_values(algorithm: ChecksumAlgorithm, expected: str) -> None:
    found = digest(algorithm, b"123456789")
    assert found.hex() == expected
    assert len(found) == algorithm.size_bytes
    assert decode(algorithm, encode(found)) == found
    assert algorithm.header == f"x-amz-checksum-{algorithm.name.lower()}"


def test_crc32_is_zlibs() -> None:
    assert digest(ChecksumAlgorithm.CRC32, b"abc") == zlib.crc32(b"abc").to_bytes(4, "big")


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=6), st.sampled_from(CRCS))
def test_crcs_of_parts_make_the_whole(parts: list[bytes], algorithm: ChecksumAlgorithm) -> None:
    table = [(digest(algorithm, part), len(part)) for part in parts]
    assert combined(algorithm, table) == digest(algorithm, b"".join(parts))


def test_composite_is_the_digest_of_digests() -> None:
    digests = [random.Random(n).randbytes(32) for n in range(3)]
    expected = hashlib.sha256(b"".join(digests)).digest()
    assert composite(ChecksumAlgorithm.SHA256, digests) == expected


def test_kinds() -> None:
    full, parts = ChecksumKind.FULL_OBJECT, ChecksumKind.COMPOSITE
    assert default_kind(ChecksumAlgorithm.CRC64NVME) is full
    assert default_kind(ChecksumAlgorithm.SHA1) is parts
    assert not allowed_kind(ChecksumAlgorithm.CRC64NVME, parts)
    assert not allowed_kind(ChecksumAlgorithm.SHA256, full)
    assert allowed_kind(ChecksumAlgorithm.CRC32, parts)
    assert allowed_kind(ChecksumAlgorithm.CRC32, full)


@pytest.mark.parametrize("value", ["", "bad", "!!!!", base64.b64encode(b"12345").decode()])
def test_what_is_no_digest(value: str) -> None:
    with pytest.raises(InvalidInput):
        decode(ChecksumAlgorithm.CRC32, value)
