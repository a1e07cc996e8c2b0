"""Whatever a client sends, it gets an S3 error with a 4xx (or 501), as XML, and never a 500."""

from __future__ import annotations

import random
from typing import Any
from urllib.parse import quote

import pytest

from tests.s3.raw import RawClient

METHODS = ["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH"]
SUBRESOURCES_TEXT = """
accelerate acl analytics attributes cors delete encryption intelligent-tiering inventory
legal-hold lifecycle list-type location logging metrics notification object-lock
ownershipControls partNumber policy policyStatus publicAccessBlock replication requestPayment
restore retention select tagging torrent uploadId uploads versionId versioning versions website
max-keys delimiter marker prefix encoding-type continuation-token start-after fetch-owner
key-marker version-id-marker max-uploads upload-id-marker max-parts part-number-marker
response-content-type response-expires max-buckets x-id
"""
HEADERS_TEXT = """
content-md5 content-encoding content-type if-match if-none-match if-modified-since
if-unmodified-since if-range range x-amz-acl x-amz-checksum-algorithm x-amz-checksum-crc32
x-amz-checksum-crc32c x-amz-checksum-crc64nvme x-amz-checksum-mode x-amz-checksum-sha1
x-amz-checksum-sha256 x-amz-checksum-type x-amz-copy-source x-amz-copy-source-if-match
x-amz-copy-source-if-modified-since x-amz-copy-source-range x-amz-decoded-content-length
x-amz-expected-bucket-owner x-amz-grant-read x-amz-if-match-last-modified-time
x-amz-if-match-size x-amz-max-parts x-amz-meta-a x-amz-metadata-directive x-amz-mp-object-size
x-amz-object-attributes x-amz-object-lock-mode x-amz-object-lock-retain-until-date
x-amz-part-number-marker x-amz-sdk-checksum-algorithm x-amz-server-side-encryption
x-amz-server-side-encryption-customer-algorithm x-amz-storage-class x-amz-tagging
x-amz-tagging-directive x-amz-trailer x-amz-website-redirect-location expect
"""
SUBRESOURCES, HEADERS = SUBRESOURCES_TEXT.split(), HEADERS_TEXT.split()
VALUES = [
    "",
    "0",
    "-1",
    "1",
    "2",
    "99999999999999999999",
    "x",
    "null",
    "true",
    "url",
    "/",
    "日本",
    "%",
    "\x01",
    "a=b&c",
    "bytes=0-0",
    "*",
    '"e"',
    "Tue, 14 Nov 2023 22:13:20 GMT",
    "9999-99-99T00:00:00Z",
    "AAAAAA==",
    "CRC32",
    "REPLACE",
    "STANDARD",
    "AES256",
    "aws-chunked",
    "ETag,ObjectParts",
    "é" * 300,
]
BODIES = [
    b"",
    b"x",
    b"\x00\xff",
    b"<",
    b"<Delete><Object><Key>k</Key></Object></Delete>",
    b"<Tagging><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tagging>",
    b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>e</ETag></Part>"
    b"</CompleteMultipartUpload>",
    b"<CreateBucketConfiguration><LocationConstraint>x</LocationConstraint>"
    b"</CreateBucketConfiguration>",
    b"<AccessControlPolicy><AccessControlList><Grant/></AccessControlList></AccessControlPolicy>",
    b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
    b"<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault/></Rule>"
    b"</ServerSideEncryptionConfiguration>",
]
ROUNDS = 25
PER_ROUND = 40


def header_value(text: str) -> bytes:
    """A value that HTTP can carry."""
    return text.encode().replace(b"\x01", b"?")


def some_request(
    chance: random.Random, bucket: str
) -> tuple[str, str, dict[str, str | bytes], bytes]:
    """One that may or may not make sense."""
    path = chance.choice(
        ["/", f"/{bucket}", f"/{bucket}/", f"/{bucket}/k", f"/{bucket}/%01", "/none", "/none/k"]
    )
    chosen = chance.sample(SUBRESOURCES, chance.choice([0, 1, 1, 1, 2, 3]))
    parts = []
    for name in chosen:
        value = chance.choice(VALUES)
        parts.append(name if chance.random() < 0.4 else f"{name}={quote(value, safe='')}")
    target = path + ("?" + "&".join(parts) if parts else "")
    headers: dict[str, str | bytes] = {
        name: header_value(chance.choice(VALUES))
        for name in chance.sample(HEADERS, chance.choice([0, 0, 1, 1, 2, 4]))
    }
    method = chance.choice(METHODS)
    body = chance.choice(BODIES) if method in {"PUT", "POST", "DELETE"} else b""
    return method, target, headers, body


@pytest.mark.parametrize("round_number", range(ROUNDS))
def test_no_request_is_our_fault(
    s3: Any, raw: RawClient, bucket: str, chance: random.Random, round_number: int
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"content")
    seen: set[str] = set()
    for _ in range(PER_ROUND):
        method, target, headers, body = some_request(chance, bucket)
        answer = raw.ask(method, target, headers, body)
        seen.add(answer.code if answer.status >= 400 else str(answer.status))
        context = f"{method} {target} {headers} {body!r}: {answer.status} {answer.body!r}"
        assert answer.status < 500 or answer.status == 501, context
        if answer.status >= 400 and method != "HEAD":
            assert answer.code, context
            assert answer.document.findtext("RequestId") == answer.headers["x-amz-request-id"]
    print(sorted(seen))
    assert "SignatureDoesNotMatch" not in seen, "refused before anything was looked at"
    assert len(seen) > 5, f"round {round_number} saw only {seen}"
