"""Every way a body comes: aws-chunked signed and not, with trailers, inside HTTP chunks or not."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterator, Mapping, Sequence

import pytest

from appliance.core.checksums import ChecksumAlgorithm, encode, hasher
from tests.s3.front_door import (
    REGION,
    SECRET_KEY,
    Answer,
    Front,
    front,
    request_bytes,
    signed_headers,
)

SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
CRC32 = "x-amz-checksum-crc32"
CONTENT = bytes(range(256)) * 1000


@pytest.fixture(scope="module")
def running() -> Iterator[Front]:
    with front() as one:
        yield one


def crc32_of(data: bytes) -> str:
    digest = hasher(ChecksumAlgorithm.CRC32)
    digest.update(data)
    return encode(digest.digest())


def split(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


class ChunkSigner:
    """Signs chunks as a client does; written apart from what it checks."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.date = headers["X-Amz-Date"]
        self.scope = f"{self.date[:8]}/{REGION}/s3/aws4_request"
        self.previous = headers["Authorization"].rpartition("Signature=")[2]
        key = f"AWS4{SECRET_KEY}".encode()
        for part in self.scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        self.key = key

    def _sign(self, lines: Sequence[str]) -> str:
        text = "\n".join(lines)
        self.previous = hmac.digest(self.key, text.encode(), "sha256").hex()
        return self.previous

    def chunk(self, data: bytes) -> str:
        empty, digest = hashlib.sha256().hexdigest(), hashlib.sha256(data).hexdigest()
        kind = "AWS4-HMAC-SHA256-PAYLOAD"
        return self._sign([kind, self.date, self.scope, self.previous, empty, digest])

    def trailer(self, lines: bytes) -> str:
        digest = hashlib.sha256(lines).hexdigest()
        return self._sign(
            ["AWS4-HMAC-SHA256-TRAILER", self.date, self.scope, self.previous, digest]
        )


def headers_for(
    mode: str, size: int, more: Mapping[str, str] | None = None, *, trailer: str = CRC32
) -> dict[str, str]:
    headers = {
        "Content-Encoding": "aws-chunked",
        "X-Amz-Content-SHA256": mode,
        "X-Amz-Decoded-Content-Length": str(size),
    }
    if mode.endswith("TRAILER"):
        headers["X-Amz-Trailer"] = trailer
    return signed_headers("PUT", "/bucket/key", {**headers, **(more or {})})


def encoded(
    headers: Mapping[str, str], content: bytes, *, checksum: str | None = None, size: int = 65536
) -> bytes:
    """The aws-chunked body that belongs to ``headers``."""
    mode = headers["X-Amz-Content-SHA256"]
    signer = ChunkSigner(headers) if "UNSIGNED" not in mode else None
    body = b""
    for chunk in [*split(content, size), b""]:
        extension = f";chunk-signature={signer.chunk(chunk)}" if signer else ""
        body += f"{len(chunk):x}{extension}\r\n".encode()
        body += chunk + b"\r\n" if chunk else b""
    if mode.endswith("TRAILER"):
        line = f"{CRC32}:{checksum or crc32_of(content)}"
        body += f"{line}\r\n".encode()
        if signer:
            signed_line = f"{line}\n".encode()
            body += f"x-amz-trailer-signature:{signer.trailer(signed_line)}\r\n".encode()
    return body + b"\r\n"


def put(running: Front, headers: Mapping[str, str], body: bytes, *, http_chunks: int = 0) -> Answer:
    """Send with a Content-Length, or in HTTP chunks of that size."""
    client = running.connect()
    if http_chunks:
        framed = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in split(body, http_chunks))
        sent = {**headers, "Transfer-Encoding": "chunked"}
        client.send(request_bytes("PUT", "/bucket/key", sent) + framed + b"0\r\n\r\n")
    else:
        client.send(request_bytes("PUT", "/bucket/key", headers, body))
    answer = client.answer()
    if answer.status == 200:
        assert client.ask(request_bytes("GET", "/bucket/next")).seen["key"] == "next"
    return answer


@pytest.mark.parametrize("http_chunks", [0, 1000, 100_000])
@pytest.mark.parametrize("content", [b"", b"small", CONTENT])
@pytest.mark.parametrize("mode", [SIGNED, SIGNED_TRAILER, UNSIGNED_TRAILER])
def test_each_mode(running: Front, mode: str, content: bytes, http_chunks: int) -> None:
    headers = headers_for(mode, len(content))
    seen = put(running, headers, encoded(headers, content), http_chunks=http_chunks).seen
    assert (seen["size"], seen["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    expected = ["CRC32", crc32_of(content)] if mode.endswith("TRAILER") else None
    assert seen["checksum"] == expected


def test_one_chunk_larger_than_any_buffer(running: Front) -> None:
    content = CONTENT * 20
    headers = headers_for(SIGNED_TRAILER, len(content))
    seen = put(running, headers, encoded(headers, content, size=len(content))).seen
    assert seen["sha256"] == hashlib.sha256(content).hexdigest()
    assert seen["largest"] < len(content) / 2


def test_many_tiny_chunks(running: Front) -> None:
    headers = headers_for(SIGNED, 3000)
    assert put(running, headers, encoded(headers, CONTENT[:3000], size=3)).seen["size"] == 3000


@pytest.mark.parametrize("content", [b"small", CONTENT])
@pytest.mark.parametrize("mode", [SIGNED, SIGNED_TRAILER])
def test_a_changed_byte_in_a_signed_chunk(running: Front, mode: str, content: bytes) -> None:
    headers = headers_for(mode, len(content))
    body = bytearray(encoded(headers, content))
    place = body.index(content[-3:], len(body) // 2) if len(content) > 10 else body.index(content)
    body[place] ^= 1
    assert put(running, headers, bytes(body)).code == "SignatureDoesNotMatch"


def test_chunks_in_another_order(running: Front) -> None:
    content = b"a" * 100 + b"b" * 100
    headers = headers_for(SIGNED, 200)
    body = encoded(headers, content, size=100)
    line = len(b"64;chunk-signature=\r\n") + 64 + 102
    swapped = body[line : 2 * line] + body[:line] + body[2 * line :]
    assert put(running, headers, swapped).code == "SignatureDoesNotMatch"


def test_a_changed_signed_trailer(running: Front) -> None:
    headers = headers_for(SIGNED_TRAILER, 5)
    body = encoded(headers, b"small").replace(crc32_of(b"small").encode(), b"AAAAAA==")
    assert put(running, headers, body).code == "SignatureDoesNotMatch"


def test_a_trailer_without_its_signature(running: Front) -> None:
    headers = headers_for(SIGNED_TRAILER, 5)
    body = encoded(headers, b"small").partition(b"x-amz-trailer-signature")[0] + b"\r\n"
    answer = put(running, headers, body)
    assert (answer.status, answer.code) == (400, "IncompleteBody")


def test_trailer_checksums_are_handed_on_as_declared(running: Front) -> None:
    headers = headers_for(UNSIGNED_TRAILER, 5)
    seen = put(running, headers, encoded(headers, b"small", checksum="AAAAAA==")).seen
    assert seen["checksum"] == ["CRC32", "AAAAAA=="]
    answer = put(running, headers, encoded(headers, b"small", checksum="AAAA"))
    assert (answer.status, answer.code) == (400, "BadDigest")


@pytest.mark.parametrize(("size", "code"), [(4, "IncompleteBody"), (6, "IncompleteBody")])
@pytest.mark.parametrize("mode", [SIGNED, SIGNED_TRAILER, UNSIGNED_TRAILER])
def test_another_decoded_length(running: Front, mode: str, size: int, code: str) -> None:
    headers = headers_for(mode, size)
    answer = put(running, headers, encoded(headers, b"small"))
    assert (answer.status, answer.code) == (400, code)


@pytest.mark.parametrize("keep", [10, 100, -5, -20])
def test_a_chunked_body_cut_short(running: Front, keep: int) -> None:
    headers = headers_for(UNSIGNED_TRAILER, len(CONTENT))
    answer = put(running, headers, encoded(headers, CONTENT)[:keep])
    assert (answer.status, answer.code) == (400, "IncompleteBody")


@pytest.mark.parametrize(
    ("length", "status", "code"),
    [
        (None, 411, "MissingContentLength"),
        ("x", 400, "InvalidArgument"),
        ("-1", 400, "InvalidArgument"),
    ],
)
def test_the_decoded_length_is_needed(
    running: Front, length: str | None, status: int, code: str
) -> None:
    headers = {"X-Amz-Content-SHA256": UNSIGNED_TRAILER}
    if length is not None:
        headers["X-Amz-Decoded-Content-Length"] = length
    answer = put(running, signed_headers("PUT", "/bucket/key", headers), b"0\r\n\r\n")
    assert (answer.status, answer.code) == (status, code)


@pytest.mark.parametrize(
    "more",
    [
        {"X-Amz-Checksum-Crc32c": "AAAAAA=="},
        {"X-Amz-Checksum-Crc32": "AAAAAA=="},
    ],
)
def test_only_one_checksum(running: Front, more: Mapping[str, str]) -> None:
    headers = headers_for(UNSIGNED_TRAILER, 5, more)
    assert put(running, headers, encoded(headers, b"small")).code == "InvalidRequest"


def test_a_trailer_that_is_no_checksum(running: Front) -> None:
    headers = headers_for(UNSIGNED_TRAILER, 5, trailer="x-amz-meta-a")
    assert put(running, headers, encoded(headers, b"small")).code == "InvalidRequest"


def test_checksum_headers(running: Front) -> None:
    good = {CRC32: crc32_of(b"small")}
    headers = signed_headers("PUT", "/bucket/key", good, b"small")
    assert put(running, headers, b"small").seen["checksum"] == ["CRC32", good[CRC32]]
    for bad in ("", "AAAA", "not base64!!"):
        headers = signed_headers("PUT", "/bucket/key", {CRC32: bad}, b"small")
        assert put(running, headers, b"small").code == "BadDigest"


@pytest.mark.parametrize("md5", ["", "AAAA", "not base64!!", "YQ=="])
def test_malformed_md5(running: Front, md5: str) -> None:
    headers = signed_headers("PUT", "/bucket/key", {"Content-MD5": md5}, b"small")
    answer = put(running, headers, b"small")
    assert (answer.status, answer.code) == (400, "InvalidDigest")


def test_small_documents_are_compared_with_what_was_declared(running: Front) -> None:
    client = running.connect()
    target = "/?deed=small_body"
    md5 = base64.b64encode(hashlib.md5(b"<a/>").digest()).decode()
    assert client.ask(request_bytes("POST", target, {"Content-MD5": md5}, b"<a/>")).status == 200
    answer = client.ask(request_bytes("POST", target, {"Content-MD5": md5}, b"<b/>"))
    assert (answer.status, answer.code) == (400, "BadDigest")
    crc32 = {CRC32: crc32_of(b"<a/>")}
    assert client.ask(request_bytes("POST", target, crc32, b"<a/>")).status == 200
    assert client.ask(request_bytes("POST", target, crc32, b"<b/>")).code == "BadDigest"


def test_a_body_that_was_never_announced(running: Front) -> None:
    client = running.connect()
    answer = client.ask(request_bytes("PUT", "/?deed=answer_without_length"))
    assert (answer.status, answer.code) == (411, "MissingContentLength")


def test_anonymous_and_unsigned_bodies(running: Front) -> None:
    client = running.connect()
    assert client.ask(request_bytes("PUT", "/bucket/key", {}, b"small")).seen["size"] == 5
    headers = {
        "Content-Encoding": "gzip,aws-chunked",
        "X-Amz-Trailer": CRC32,
        "X-Amz-Decoded-Content-Length": "5",
    }
    body = f"5\r\nsmall\r\n0\r\n{CRC32}:{crc32_of(b'small')}\r\n\r\n".encode()
    seen = client.ask(request_bytes("PUT", "/bucket/key", headers, body)).seen
    assert (seen["size"], seen["checksum"]) == (5, ["CRC32", crc32_of(b"small")])
    headers = {"X-Amz-Content-SHA256": SIGNED, "X-Amz-Decoded-Content-Length": "5"}
    assert client.ask(request_bytes("PUT", "/bucket/key", headers, b"")).code == "InvalidRequest"


def test_unsigned_payload(running: Front) -> None:
    unsigned = {"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}
    headers = signed_headers("PUT", "/bucket/key", unsigned)
    assert put(running, headers, CONTENT).seen["size"] == len(CONTENT)
    assert put(running, headers, CONTENT, http_chunks=5000).seen["size"] == len(CONTENT)
