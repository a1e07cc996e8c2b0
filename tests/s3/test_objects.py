"""PutObject, GetObject, HeadObject, DeleteObject."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from appliance.core.errors import DataLost, NoSpace, ReadOnly, Unavailable
from tests.s3.endpoint import Endpoint
from tests.s3.raw import RawClient
from tests.s3.refusals import refused


def test_an_object_comes_back(s3: Any, bucket: str) -> None:
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"hello", ContentType="text/plain")
    assert put["ETag"] == f'"{hashlib.md5(b"hello").hexdigest()}"'
    assert put["ServerSideEncryption"] == "AES256"
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == b"hello"
    assert got["ETag"] == put["ETag"]
    assert got["ContentType"] == "text/plain"
    assert got["ContentLength"] == 5
    assert got["AcceptRanges"] == "bytes"
    assert got["ServerSideEncryption"] == "AES256"
    assert "VersionId" not in got
    age = datetime.now(UTC) - got["LastModified"]
    assert timedelta(minutes=-1) < age < timedelta(minutes=1)


def test_the_default_content_type(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    assert s3.head_object(Bucket=bucket, Key="k")["ContentType"] == "binary/octet-stream"


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 256 * 1024 + 1, 3 * 1024 * 1024 + 17])
def test_sizes(s3: Any, bucket: str, chance: random.Random, size: int) -> None:
    body = chance.randbytes(size)
    put = s3.put_object(Bucket=bucket, Key="k", Body=body)
    assert put["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    assert s3.head_object(Bucket=bucket, Key="k")["ContentLength"] == size
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == body


KEYS = [
    "plain",
    "with space",
    "plus+plus",
    "percent%25",
    "100%",
    "/leading",
    "trailing/",
    "a//b",
    "./x",
    "../x",
    "a/../b",
    "日本語/請求書.pdf",
    "emoji-\U0001f600",
    "q?uestion&am=p#hash",
    "quote\"'<>",
    "tab\tnew\nline",
    "\x01control",
    "x" * 1024,
    "~!*'();:@$,[]",
]


@pytest.mark.parametrize("key", KEYS)
def test_keys_are_opaque(s3: Any, bucket: str, key: str) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
    assert [found["Key"] for found in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [key]
    s3.delete_object(Bucket=bucket, Key=key)
    assert refused(s3.get_object, Bucket=bucket, Key=key) == (404, "NoSuchKey")


def test_keys_that_look_alike_live_side_by_side(s3: Any, bucket: str) -> None:
    keys = ["a", "a/", "a/b", "a//b", "A"]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    for key in keys:
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()


def test_virtual_hosted_style(raw: RawClient, bucket: str) -> None:
    there: dict[str, str | bytes] = {"host": f"{bucket}.{raw.host}"}
    assert raw.ask("PUT", "/a/b", there, b"x").status == 200
    assert raw.ask("GET", "/a/b", there).body == b"x"
    assert raw.ask("GET", f"/{bucket}/a/b").body == b"x"
    assert raw.ask("GET", "/?list-type=2", there).document.findtext("KeyCount") == "1"


def test_a_presigned_url_reads(client_of: Callable[..., Any], bucket: str, raw: RawClient) -> None:
    client = client_of("main", signature_version="s3v4")
    client.put_object(Bucket=bucket, Key="k", Body=b"shared")
    url = client.generate_presigned_url(
        "get_object",
        Params={"Bucket": bucket, "Key": "k", "ResponseContentDisposition": "attachment"},
    )
    target = url.split(raw.host, 1)[1]
    answer = raw.ask("GET", target, {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}, signed=False)
    assert (answer.status, answer.body) == (200, b"shared")
    assert answer.headers["content-disposition"] == "attachment"


def test_overwriting_replaces_everything(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"one", Metadata={"a": "1"}, Tagging="t=1")
    s3.put_object(Bucket=bucket, Key="k", Body=b"two!")
    got = s3.get_object(Bucket=bucket, Key="k")
    assert (got["Body"].read(), got["Metadata"]) == (b"two!", {})
    assert "TagCount" not in got


def test_headers_come_back(s3: Any, bucket: str) -> None:
    s3.put_object(
        Bucket=bucket,
        Key="k",
        Body=b"x",
        CacheControl="no-cache",
        ContentDisposition="inline",
        ContentEncoding="gzip",
        ContentLanguage="ja",
        Expires=datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
        Metadata={"colour": "red", "Upper": "Case"},
        StorageClass="STANDARD_IA",
        Tagging="a=1&b=2",
        WebsiteRedirectLocation="/elsewhere",
    )
    head = s3.head_object(Bucket=bucket, Key="k")
    assert head["CacheControl"] == "no-cache"
    assert head["ContentDisposition"] == "inline"
    assert head["ContentEncoding"] == "gzip", "aws-chunked of the transfer is not stored"
    assert head["ContentLanguage"] == "ja"
    assert head["ExpiresString"] == "Wed, 02 Jan 2030 03:04:05 GMT"
    assert head["Metadata"] == {"colour": "red", "upper": "Case"}
    assert head["StorageClass"] == "STANDARD_IA"
    assert head["WebsiteRedirectLocation"] == "/elsewhere"
    got = s3.get_object(Bucket=bucket, Key="k")
    assert (got["Body"].read(), got["TagCount"]) == (b"x", 2)


def test_the_transfer_coding_is_not_stored(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert "ContentEncoding" not in s3.head_object(Bucket=bucket, Key="k")


def test_metadata_bytes_survive(raw: RawClient, bucket: str) -> None:
    sent: dict[str, str | bytes] = {
        "x-amz-meta-utf": "会社".encode(),
        "x-amz-meta-latin": b"caf\xe9",
        "x-amz-meta-plain": "plain",
    }
    assert raw.ask("PUT", f"/{bucket}/k", sent, b"x").status == 200
    headers = raw.ask("HEAD", f"/{bucket}/k").headers
    assert headers["x-amz-meta-utf"] == "=?UTF-8?B?5Lya56S+?="
    assert headers["x-amz-meta-latin"] == "caf\xe9"
    assert headers["x-amz-meta-plain"] == "plain"


def test_too_much_metadata(s3: Any, bucket: str) -> None:
    answer = refused(s3.put_object, Bucket=bucket, Key="k", Metadata={"a": "x" * 2049})
    assert answer == (400, "MetadataTooLarge")


def test_overrides_of_a_read(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ContentType="a/b", CacheControl="old")
    got = s3.get_object(
        Bucket=bucket,
        Key="k",
        ResponseContentType="text/csv",
        ResponseCacheControl="new",
        ResponseContentDisposition='attachment; filename="日.txt"',
        ResponseContentLanguage="en",
        ResponseContentEncoding="identity",
    )
    assert got["Body"].read() == b"x"
    assert (got["ContentType"], got["CacheControl"]) == ("text/csv", "new")
    assert (got["ContentLanguage"], got["ContentEncoding"]) == ("en", "identity")
    assert got["ContentDisposition"].encode("latin-1").decode() == 'attachment; filename="日.txt"'


def test_missing_things(s3: Any, bucket: str) -> None:
    assert refused(s3.get_object, Bucket=bucket, Key="none") == (404, "NoSuchKey")
    assert refused(s3.head_object, Bucket=bucket, Key="none") == (404, "404")
    assert refused(s3.get_object, Bucket="no-such-bucket-here", Key="k") == (404, "NoSuchBucket")
    assert refused(s3.put_object, Bucket="no-such-bucket-here", Key="k") == (404, "NoSuchBucket")


def test_deleting_what_is_not_there_succeeds(s3: Any, bucket: str) -> None:
    answer = s3.delete_object(Bucket=bucket, Key="none")
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204


@pytest.mark.parametrize("version", ["null"])
def test_the_null_version(s3: Any, bucket: str, version: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    got = s3.get_object(Bucket=bucket, Key="k", VersionId=version)
    assert got["Body"].read() == b"x"
    s3.delete_object(Bucket=bucket, Key="k", VersionId=version)
    assert refused(s3.head_object, Bucket=bucket, Key="k")[0] == 404


def test_versions_that_are_none(raw: RawClient, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for version in ("", "no-such-version", "%00"):
        answer = raw.ask("GET", f"/{bucket}/k?versionId={version}")
        assert answer.status in {400, 404}, version
        assert answer.code in {"InvalidArgument", "NoSuchVersion"}, version


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"ACL": "aws-exec-read"}, "NotImplemented"),
        ({"ServerSideEncryption": "aws:kms"}, "NotImplemented"),
        ({"StorageClass": "GLACIER"}, "InvalidStorageClass"),
        ({"ObjectLockLegalHoldStatus": "ON"}, "InvalidRequest"),
        (
            {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": b"k" * 32},
            "NotImplemented",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused(
    s3: Any, bucket: str, parameters: dict[str, Any], code: str
) -> None:
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"x", **parameters)[1] == code
    assert refused(s3.head_object, Bucket=bucket, Key="k")[0] == 404


def test_what_is_so_anyway_is_accepted(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="private", ServerSideEncryption="AES256")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="bucket-owner-full-control")


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (NoSpace("full"), 503, "ServiceUnavailable", "60"),
        (ReadOnly("resync", 9), 503, "ServiceUnavailable", "9"),
        (Unavailable("restart"), 503, "ServiceUnavailable", "1"),
        (DataLost("gone"), 500, "InternalError", None),
    ],
)
def test_engine_refusals_reach_the_client(
    simulated: Endpoint,
    raw: RawClient,
    bucket: str,
    error: Any,
    status: int,
    code: str,
    retry_after: str | None,
) -> None:
    assert simulated.engine is not None
    simulated.engine.refusal = error
    try:
        answer = raw.ask("PUT", f"/{bucket}/k", body=b"x")
    finally:
        simulated.engine.refusal = None
    assert (answer.status, answer.code) == (status, code)
    assert answer.headers.get("retry-after") == retry_after
    assert raw.ask("PUT", f"/{bucket}/k", body=b"x").status == 200


def test_nothing_is_called_gone_while_a_loss_is_not_accepted(
    simulated: Endpoint, raw: RawClient, bucket: str
) -> None:
    """A backup program would forget, or delete elsewhere, what it is told is not there."""
    assert raw.ask("PUT", f"/{bucket}/there", body=b"x").status == 200
    assert simulated.engine is not None
    simulated.engine.lost = "batches 7 to 9 are lost on every drive"
    asked = [
        *(("GET", f"/{bucket}/{what}") for what in ("gone", "gone?versionId=null", "gone?acl")),
        ("HEAD", f"/{bucket}/gone"),
        ("GET", f"/{bucket}/gone?uploadId=bm9uZQ"),
        *(("GET", f"/{bucket}{what}") for what in ("", "?list-type=2", "?versions", "?uploads")),
        ("GET", "/"),
        ("GET", "/no-such-bucket-at-all/k"),
    ]
    try:
        for method, target in asked:
            answer = raw.ask(method, target)
            assert answer.status == 503, target
            assert answer.headers.get("retry-after") == "60"
        assert raw.ask("GET", f"/{bucket}/there").body == b"x"
    finally:
        simulated.engine.lost = ""
    assert raw.ask("GET", f"/{bucket}/gone").code == "NoSuchKey"
    assert raw.ask("GET", "/").status == 200
