"""The examples AWS publishes for Signature Version 4 on S3, value by value."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence

import pytest

from appliance.core import sigv4
from appliance.core.checksums import ChecksumAlgorithm, hasher
from appliance.core.chunked import ChunkedDecoder, ChunkEnd, Trailer
from appliance.core.errors import S3Error

ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SCOPE = "20130524/us-east-1/s3/aws4_request"
DATE = "20130524T000000Z"
HOST = "examplebucket.s3.amazonaws.com"
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
CHUNKED_HEADERS = {
    "content-encoding": "aws-chunked",
    "host": "s3.amazonaws.com",
    "x-amz-date": DATE,
    "x-amz-decoded-content-length": "66560",
    "x-amz-storage-class": "REDUCED_REDUNDANCY",
}
CHUNK_SIGNATURES = (
    "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
    "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
    "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
)
SEED = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
TRAILER_SEED = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
TRAILER_CHUNK_SIGNATURES = (
    "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
    "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
    "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
)
TRAILER_SIGNATURE = "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435"


def key() -> bytes:
    return sigv4.signing_key(SECRET_KEY, "20130524", "us-east-1")


def authorization(headers: Mapping[str, str], signature: str) -> str:
    names = ";".join(sorted(headers))
    return (
        f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{SCOPE},SignedHeaders={names},"
        f"Signature={signature}"
    )


def verify(
    method: str,
    path: str,
    query: Sequence[tuple[str, str]],
    headers: Mapping[str, str],
    signature: str,
    payload_hash: str = EMPTY,
) -> None:
    presented = sigv4.parse_authorization(authorization(headers, signature), DATE)
    sigv4.verify(
        presented,
        key(),
        method=method,
        raw_path=path,
        query=query,
        headers=headers,
        payload_hash=payload_hash,
    )


def plain_headers(**more: str) -> dict[str, str]:
    headers = {"host": HOST, "x-amz-content-sha256": EMPTY, "x-amz-date": DATE}
    headers.update({name.replace("_", "-"): value for name, value in more.items()})
    return headers


def test_get_object() -> None:
    verify(
        "GET",
        "/test.txt",
        (),
        plain_headers(range="bytes=0-9"),
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    )


def test_put_object() -> None:
    payload_hash = hashlib.sha256(b"Welcome to Amazon S3.").hexdigest()
    headers = plain_headers(
        date="Fri, 24 May 2013 00:00:00 GMT",
        x_amz_storage_class="REDUCED_REDUNDANCY",
        x_amz_content_sha256=payload_hash,
    )
    verify(
        "PUT",
        "/test%24file.text",
        (),
        headers,
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        payload_hash,
    )


def test_get_bucket_lifecycle() -> None:
    verify(
        "GET",
        "/",
        (("lifecycle", ""),),
        plain_headers(),
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    )


def test_list_objects() -> None:
    verify(
        "GET",
        "/",
        (("max-keys", "2"), ("prefix", "J")),
        plain_headers(),
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    )


def test_presigned_get() -> None:
    pairs = (
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
        ("X-Amz-Credential", f"{ACCESS_KEY}/{SCOPE}"),
        ("X-Amz-Date", DATE),
        ("X-Amz-Expires", "86400"),
        ("X-Amz-SignedHeaders", "host"),
        ("X-Amz-Signature", "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"),
    )
    presented = sigv4.parse_presigned(dict(pairs))
    assert presented.expires_s == 86400
    sigv4.verify(
        presented,
        key(),
        method="GET",
        raw_path="/test.txt",
        query=pairs,
        headers={"host": HOST},
        payload_hash="UNSIGNED-PAYLOAD",
    )


def test_another_secret_does_not_verify() -> None:
    with pytest.raises(S3Error) as refused:
        verify("GET", "/test.txt", (), plain_headers(range="bytes=0-9"), "0" * 64)
    assert refused.value.code == "SignatureDoesNotMatch"
    fields = refused.value.fields
    assert fields["StringToSign"].splitlines() == [
        "AWS4-HMAC-SHA256",
        DATE,
        SCOPE,
        "7344ae5b7ee6c3e7e6b0fe0640412a37625d1fbfff95c48bbb2dc43964946972",
    ]
    assert fields["AWSAccessKeyId"] == ACCESS_KEY
    assert bytes.fromhex(fields["CanonicalRequestBytes"]).decode() == fields["CanonicalRequest"]


def chunked_body(signatures: Sequence[str]) -> bytes:
    body = b""
    for data, signature in zip((b"a" * 65536, b"a" * 1024, b""), signatures, strict=True):
        body += f"{len(data):x};chunk-signature={signature}\r\n".encode() + data
        body += b"\r\n" if data else b""
    return body


def drive(decoder: ChunkedDecoder, chain: sigv4.ChunkChain, body: bytes) -> bytes:
    """What the body of a request does with the events, reading 1,000 bytes at a time."""
    taken = b""
    digest = hashlib.sha256()
    for start in range(0, len(body), 1000):
        for event in decoder.feed(body[start : start + 1000]):
            if isinstance(event, memoryview):
                digest.update(event)
                taken += event
            elif isinstance(event, ChunkEnd):
                chain.chunk(digest.hexdigest(), event.signature)
                digest = hashlib.sha256()
            else:
                assert isinstance(event, Trailer)
                chain.trailer(event.canonical, event.signature)
    decoder.finish()
    return taken


def test_chunked_upload() -> None:
    headers = {
        **CHUNKED_HEADERS,
        "content-length": "66824",
        "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    }
    verify(
        "PUT",
        "/examplebucket/chunkObject.txt",
        (),
        headers,
        SEED,
        headers["x-amz-content-sha256"],
    )
    body = chunked_body(CHUNK_SIGNATURES) + b"\r\n"
    assert len(body) == 66824
    chain = sigv4.ChunkChain(sigv4.Signing(key(), SCOPE, DATE, SEED))
    decoder = ChunkedDecoder(size_bytes=66560, signed=True, announced=frozenset())
    assert drive(decoder, chain, body) == b"a" * 66560


@pytest.mark.parametrize("gap", [b"", b"\n"])
def test_chunked_upload_with_a_trailer(gap: bytes) -> None:
    headers = {
        **CHUNKED_HEADERS,
        "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
        "x-amz-trailer": "x-amz-checksum-crc32c",
    }
    verify(
        "PUT",
        "/examplebucket/chunkObject.txt",
        (),
        headers,
        TRAILER_SEED,
        headers["x-amz-content-sha256"],
    )
    body = chunked_body(TRAILER_CHUNK_SIGNATURES)
    # AWS's example, and clients after it, put a line feed of their own before CR LF.
    body += b"x-amz-checksum-crc32c:sOO8/Q==" + gap + b"\r\n"
    body += f"x-amz-trailer-signature:{TRAILER_SIGNATURE}\r\n\r\n".encode()
    chain = sigv4.ChunkChain(sigv4.Signing(key(), SCOPE, DATE, TRAILER_SEED))
    announced = frozenset({"x-amz-checksum-crc32c"})
    decoder = ChunkedDecoder(size_bytes=66560, signed=True, announced=announced)
    content = drive(decoder, chain, body)
    checksum = hasher(ChecksumAlgorithm.CRC32C)
    checksum.update(content)
    assert base64.b64encode(checksum.digest()).decode() == "sOO8/Q=="
    assert decoder.trailers == {"x-amz-checksum-crc32c": "sOO8/Q=="}


@pytest.mark.parametrize("index", [0, 1, 2])
def test_each_chunk_signature_is_checked(index: int) -> None:
    signatures = list(CHUNK_SIGNATURES)
    signatures[index] = signatures[index][::-1]
    chain = sigv4.ChunkChain(sigv4.Signing(key(), SCOPE, DATE, SEED))
    decoder = ChunkedDecoder(size_bytes=66560, signed=True, announced=frozenset())
    with pytest.raises(S3Error) as refused:
        drive(decoder, chain, chunked_body(signatures) + b"\r\n")
    assert refused.value.code == "SignatureDoesNotMatch"
