"""Frame encryption: any range opens, nothing altered does."""

from __future__ import annotations

import random

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.core.errors import DataLost
from appliance.core.frames import (
    FRAME_BYTES,
    SEALED_FRAME_BYTES,
    Opener,
    Sealer,
    Span,
    frame_count,
    open_frame,
    seal,
    sealed_size,
)

KEY, WRITE_ID = bytes(range(32)), bytes(range(32, 64))
EDGES = (0, 1, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 2 * FRAME_BYTES, 3 * FRAME_BYTES + 7)
sizes = st.sampled_from(EDGES) | st.integers(0, 4 * FRAME_BYTES)


def open_range(sealed: bytes, size: int, offset: int, length: int, step: int = 10**9) -> bytes:
    span = Span(size, offset, length)
    opener = Opener(KEY, WRITE_ID, span)
    wanted = sealed[span.sealed_offset : span.sealed_offset + span.sealed_length]
    opened = b"".join(opener.update(wanted[at : at + step]) for at in range(0, len(wanted), step))
    opener.finish()
    if span.sealed_length <= SEALED_FRAME_BYTES:
        assert open_frame(KEY, WRITE_ID, span, wanted) == opened
    return opened


@given(sizes, st.data())
@settings(max_examples=40)
def test_every_range_opens(size: int, data: st.DataObject) -> None:
    plain = random.Random(size).randbytes(size)
    sealer, sealed = Sealer(KEY, WRITE_ID), b""
    step = data.draw(st.integers(1000, 3 * FRAME_BYTES))
    for at in range(0, size, step):
        sealed += sealer.update(plain[at : at + step])
    sealed += sealer.finish()
    assert len(sealed) == sealed_size(size)
    assert sealed == seal(KEY, WRITE_ID, plain)
    offset = data.draw(st.integers(0, size))
    length = data.draw(st.integers(0, size - offset))
    step = data.draw(st.integers(5000, 3 * FRAME_BYTES))
    assert open_range(sealed, size, offset, length, step) == plain[offset : offset + length]
    assert open_range(sealed, size, 0, size) == plain


def test_the_key_of_a_content_is_hkdf_of_rfc_5869() -> None:
    kept = HKDF(hashes.SHA256(), 32, salt=WRITE_ID, info=b"appliance content 1").derive(KEY)
    nonce = (1).to_bytes(4, "big") + bytes(8)
    assert AESGCM(kept).decrypt(nonce, seal(KEY, WRITE_ID, b"plain"), WRITE_ID) == b"plain"


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_frame_alone_opens_only_at_its_place(number: int) -> None:
    span = Span(SIZE, number * FRAME_BYTES + 5, 10)
    assert open_frame(KEY, WRITE_ID, span, FRAMES[number]) == bytes(10)
    spoilt = [flipped(FRAMES[number], 7), FRAMES[number][:-1], b"", FRAMES[(number + 1) % 3]]
    for sealed in spoilt:
        with pytest.raises(DataLost):
            open_frame(KEY, WRITE_ID, span, sealed)


def test_emptiness_is_sealed() -> None:
    sealed = seal(KEY, WRITE_ID, b"")
    assert len(sealed) == sealed_size(0) == 16
    assert open_range(sealed, 0, 0, 0) == b""
    with pytest.raises(DataLost):
        open_range(bytes(16), 0, 0, 0)


def test_ranges_touch_only_their_frames() -> None:
    span = Span(10 * FRAME_BYTES, 3 * FRAME_BYTES + 5, 10)
    assert (span.sealed_offset, span.sealed_length) == (3 * SEALED_FRAME_BYTES, SEALED_FRAME_BYTES)
    assert frame_count(10 * FRAME_BYTES) == 10


SIZE = 3 * FRAME_BYTES
SEALED = seal(KEY, WRITE_ID, bytes(SIZE))
FRAMES = [SEALED[at : at + SEALED_FRAME_BYTES] for at in range(0, len(SEALED), SEALED_FRAME_BYTES)]


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


@pytest.mark.parametrize(
    ("sealed", "size"),
    [
        (flipped(SEALED, 5), SIZE),
        (flipped(SEALED, len(SEALED) - 1), SIZE),
        (FRAMES[1] + FRAMES[0] + FRAMES[2], SIZE),
        (FRAMES[0] + FRAMES[0] + FRAMES[2], SIZE),
        (FRAMES[0] + FRAMES[1], 2 * FRAME_BYTES),
        (FRAMES[0] + FRAMES[1] + FRAMES[2] + FRAMES[2], 4 * FRAME_BYTES),
        (SEALED[: 2 * SEALED_FRAME_BYTES] + FRAMES[2][1:], SIZE - 1),
        (seal(KEY, bytes(32), bytes(SIZE)), SIZE),
        (seal(bytes(32), WRITE_ID, bytes(SIZE)), SIZE),
    ],
    ids=["flip", "tag", "swap", "repeat", "cut", "longer", "short", "write-id", "key"],
)
def test_nothing_altered_opens(sealed: bytes, size: int) -> None:
    assert open_range(SEALED, SIZE, 0, SIZE) == bytes(SIZE)
    with pytest.raises(DataLost):
        open_range(sealed, size, 0, size)


def test_a_content_that_ends_early_is_noticed() -> None:
    opener = Opener(KEY, WRITE_ID, Span(SIZE, 0, SIZE))
    opener.update(FRAMES[0])
    with pytest.raises(DataLost):
        opener.finish()


def test_ciphertext_shows_nothing() -> None:
    sealed = seal(KEY, WRITE_ID, b"secret" * 100)
    assert b"secret" not in sealed
    assert sealed != seal(KEY, bytes(32), b"secret" * 100)
