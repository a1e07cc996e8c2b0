"""The aws-chunked decoder: any cut of the bytes gives the same content, the rest is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.chunked import (
    LINE_BYTES_MAX,
    ChunkedDecoder,
    ChunkEnd,
    Trailer,
    announced_trailers,
)
from appliance.core.errors import S3Error

SIGNATURE = "a1" * 32
CRC = frozenset({"x-amz-checksum-crc32"})
CODES = {"InvalidRequest", "IncompleteBody", "MalformedTrailerError"}


def encoded(chunks: list[bytes], *, signed: bool, trailer: bytes = b"\r\n") -> bytes:
    extension = f";chunk-signature={SIGNATURE}".encode() if signed else b""
    body = b""
    for chunk in [*chunks, b""]:
        body += b"%x%b\r\n" % (len(chunk), extension)
        body += chunk + b"\r\n" if chunk else b""
    return body + trailer


def decoder(
    size_bytes: int, *, signed: bool = False, announced: frozenset[str] = frozenset()
) -> ChunkedDecoder:
    return ChunkedDecoder(size_bytes=size_bytes, signed=signed, announced=announced)


def content_of(decoding: ChunkedDecoder, pieces: list[bytes]) -> tuple[bytes, int]:
    taken = b""
    ends = 0
    for piece in pieces:
        for event in decoding.feed(piece):
            if isinstance(event, memoryview):
                taken += event
            elif isinstance(event, ChunkEnd):
                ends += 1
    decoding.finish()
    return taken, ends


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    places=st.lists(st.integers(0, 10_000), max_size=8),
    signed=st.booleans(),
)
def test_any_chunks_cut_anywhere(chunks: list[bytes], places: list[int], signed: bool) -> None:
    body = encoded(chunks, signed=signed)
    whole = b"".join(chunks)
    decoding = decoder(len(whole), signed=signed)
    assert content_of(decoding, cut(body, places)) == (whole, len(chunks) + 1)
    assert decoding.ended


@given(places=st.lists(st.integers(0, 10_000), max_size=8))
def test_trailer_cut_anywhere(places: list[int]) -> None:
    body = encoded([b"data"], signed=False, trailer=b"x-amz-checksum-crc32: rfPxUQ==\r\n\r\n")
    decoding = decoder(4, announced=CRC)
    assert content_of(decoding, cut(body, places))[0] == b"data"
    assert decoding.trailers == {"x-amz-checksum-crc32": "rfPxUQ=="}


@given(data=st.binary(max_size=80), size=st.integers(0, 100), signed=st.booleans())
def test_no_bytes_break_the_decoder(data: bytes, size: int, signed: bool) -> None:
    decoding = decoder(size, signed=signed, announced=CRC)
    try:
        taken, _ = content_of(decoding, [data])
    except S3Error as error:
        assert error.code in CODES
    else:
        assert len(taken) == size


@given(data=st.data())
def test_a_damaged_encoding_never_gives_other_content(data: st.DataObject) -> None:
    body = bytearray(encoded([b"0123456789", b"abcdef"], signed=False))
    place = data.draw(st.integers(0, len(body) - 1))
    del body[place : place + data.draw(st.integers(1, 6))]
    decoding = decoder(16)
    try:
        taken, _ = content_of(decoding, [bytes(body)])
    except S3Error as error:
        assert error.code in CODES
    else:
        assert taken == b"0123456789abcdef"


@pytest.mark.parametrize(
    "body",
    [
        b"\r\n",
        b"0x4\r\ndata\r\n0\r\n\r\n",
        b"+4\r\ndata\r\n0\r\n\r\n",
        b"4_0\r\n",
        b"-4\r\n",
        b"4\ndata\r\n0\r\n\r\n",
        b"4\r\ndataX\r\n0\r\n\r\n",
        b"4\r\ndata0\r\n\r\n",
        b"00000000000000004\r\ndata\r\n0\r\n\r\n",
        b"4\r\ndata\r\n0\r\n\r\nmore",
        b"x" * (LINE_BYTES_MAX + 1),
    ],
)
def test_malformed_framing(body: bytes) -> None:
    with pytest.raises(S3Error) as refused:
        content_of(decoder(4), [body])
    assert refused.value.code == "InvalidRequest"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"4\r\nda",
        b"4\r\ndata\r\n",
        b"4\r\ndata\r\n0\r",
        b"3\r\ndat\r\n0\r\n\r\n",
        b"5\r\ndata!\r\n0\r\n\r\n",
        b"ffffffffffffffff\r\n",
    ],
)
def test_a_body_of_another_length(body: bytes) -> None:
    with pytest.raises(S3Error) as refused:
        content_of(decoder(4), [body])
    assert refused.value.code == "IncompleteBody"


def test_a_missing_last_line_end_is_forgiven() -> None:
    assert content_of(decoder(4), [b"4\r\ndata\r\n0\r\n"])[0] == b"data"


@pytest.mark.parametrize(
    "extension", [b"", b";", b";chunk-signature=", b";chunk-signature=zz", b";other=1"]
)
def test_a_signed_chunk_needs_a_signature(extension: bytes) -> None:
    with pytest.raises(S3Error, match="no signature"):
        decoder(4, signed=True).feed(b"4" + extension + b"\r\n")


@pytest.mark.parametrize(
    "trailer",
    [
        b"\r\n",
        b"x-amz-meta-a: 1\r\n\r\n",
        b"x-amz-checksum-crc32: a\r\nx-amz-checksum-crc32: b\r\n\r\n",
        b"x-amz-checksum-crc32\r\n\r\n",
        b"x-amz-checksum-crc32: a\r\nx-amz-trailer-signature: b\r\n\r\n",
    ],
)
def test_trailers_other_than_announced(trailer: bytes) -> None:
    with pytest.raises(S3Error) as refused:
        content_of(decoder(4, announced=CRC), [b"4\r\ndata\r\n0\r\n" + trailer])
    assert refused.value.code == "MalformedTrailerError"


def test_an_announced_trailer_that_never_comes() -> None:
    with pytest.raises(S3Error) as refused:
        content_of(decoder(4, announced=CRC), [b"4\r\ndata\r\n0\r\n"])
    assert refused.value.code == "IncompleteBody"


def test_a_signed_trailer_needs_its_signature() -> None:
    body = encoded([b"data"], signed=True, trailer=b"x-amz-checksum-crc32:a\r\n\r\n")
    with pytest.raises(S3Error):
        content_of(decoder(4, signed=True, announced=CRC), [body])


def test_what_a_trailer_signature_covers() -> None:
    trailer = b"x-amz-checksum-crc32: a\r\nX-Amz-Trailer-Signature: 00\r\n\r\n"
    body = encoded([], signed=True, trailer=trailer)
    events = decoder(0, signed=True, announced=CRC).feed(body)
    assert events == [ChunkEnd(SIGNATURE), Trailer(b"x-amz-checksum-crc32:a\n", "00")]


def test_announced_names() -> None:
    assert announced_trailers(None) == frozenset()
    assert announced_trailers(" X-Amz-Checksum-CRC32 ,") == CRC
    with pytest.raises(S3Error):
        announced_trailers(",".join(f"a{number}" for number in range(17)))
