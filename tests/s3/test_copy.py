"""CopyObject."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.s3.raw import RawClient
from tests.s3.refusals import refused


@pytest.fixture
def source(s3: Any, bucket: str) -> dict[str, str]:
    """An object with everything an object can have."""
    s3.put_object(
        Bucket=bucket,
        Key="source",
        Body=b"content",
        ContentType="text/plain",
        CacheControl="no-cache",
        Metadata={"a": "1"},
        Tagging="t=1",
    )
    return {"Bucket": bucket, "Key": "source"}


def test_a_copy_has_what_its_source_has(s3: Any, bucket: str, source: dict[str, str]) -> None:
    answer = s3.copy_object(Bucket=bucket, Key="copy", CopySource=source)
    got = s3.get_object(Bucket=bucket, Key="copy")
    assert got["Body"].read() == b"content"
    assert answer["CopyObjectResult"]["ETag"] == got["ETag"]
    assert answer["CopyObjectResult"]["LastModified"].replace(microsecond=0) == got["LastModified"]
    assert (got["ContentType"], got["CacheControl"]) == ("text/plain", "no-cache")
    assert (got["Metadata"], got["TagCount"]) == ({"a": "1"}, 1)
    assert answer["ServerSideEncryption"] == "AES256"


def test_directives_replace(s3: Any, bucket: str, source: dict[str, str]) -> None:
    s3.copy_object(
        Bucket=bucket,
        Key="copy",
        CopySource=source,
        MetadataDirective="REPLACE",
        TaggingDirective="REPLACE",
        ContentType="image/png",
        Metadata={"b": "2"},
        Tagging="u=2&v=3",
    )
    head = s3.head_object(Bucket=bucket, Key="copy")
    assert (head["ContentType"], head["Metadata"]) == ("image/png", {"b": "2"})
    assert "CacheControl" not in head
    tags = s3.get_object_tagging(Bucket=bucket, Key="copy")["TagSet"]
    assert tags == [{"Key": "u", "Value": "2"}, {"Key": "v", "Value": "3"}]


def test_each_directive_alone(s3: Any, bucket: str, source: dict[str, str]) -> None:
    s3.copy_object(
        Bucket=bucket, Key="one", CopySource=source, MetadataDirective="REPLACE", Metadata={}
    )
    assert s3.head_object(Bucket=bucket, Key="one")["Metadata"] == {}
    assert len(s3.get_object_tagging(Bucket=bucket, Key="one")["TagSet"]) == 1
    s3.copy_object(Bucket=bucket, Key="two", CopySource=source, TaggingDirective="REPLACE")
    assert s3.head_object(Bucket=bucket, Key="two")["Metadata"] == {"a": "1"}
    assert s3.get_object_tagging(Bucket=bucket, Key="two")["TagSet"] == []


def test_onto_itself_needs_a_change(s3: Any, bucket: str, source: dict[str, str]) -> None:
    answer = refused(s3.copy_object, CopySource=source, **source)
    assert answer == (400, "InvalidRequest")
    s3.copy_object(
        CopySource=source, MetadataDirective="REPLACE", Metadata={"new": "yes"}, **source
    )
    assert s3.head_object(**source)["Metadata"] == {"new": "yes"}
    s3.copy_object(CopySource=source, StorageClass="STANDARD_IA", **source)
    assert s3.head_object(**source)["StorageClass"] == "STANDARD_IA"
    s3.copy_object(CopySource=source, ServerSideEncryption="AES256", **source)
    s3.copy_object(CopySource=source, WebsiteRedirectLocation="/x", **source)
    head = s3.head_object(**source)
    assert (head["WebsiteRedirectLocation"], head["Metadata"]) == ("/x", {"new": "yes"})
    got = s3.get_object(**source)
    assert got["Body"].read() == b"content"


@pytest.mark.parametrize(
    "key", ["with space+plus", "日本", "a%20b", "q?versionId=x", "/lead", "a//b"]
)
def test_keys_of_sources(s3: Any, bucket: str, key: str) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": key})
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == key.encode()


def test_forms_of_sources(s3: Any, raw: RawClient, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a b", Body=b"x")
    for form in (
        f"{bucket}/a b",
        f"/{bucket}/a%20b",
        f"%2F{bucket}%2Fa%20b",
        f"{bucket}/a%20b?versionId=null",
    ):
        answer = raw.ask("PUT", f"/{bucket}/copy", {"x-amz-copy-source": form})
        assert answer.status == 200, form
        assert answer.document.tag == "CopyObjectResult"


@pytest.mark.parametrize(
    ("form", "status", "code"),
    [
        ("{bucket}", 400, "InvalidArgument"),
        ("", 400, "InvalidArgument"),
        ("{bucket}/", 400, "InvalidArgument"),
        ("{bucket}/none", 404, "NoSuchKey"),
        ("no-such-bucket-at-all/k", 404, "NoSuchBucket"),
        ("{bucket}/%FF", 400, "InvalidArgument"),
        ("arn:aws:s3:eu:1:accesspoint/x/object/k", 501, "NotImplemented"),
    ],
)
def test_sources_that_are_none(
    raw: RawClient, bucket: str, form: str, status: int, code: str
) -> None:
    header = form.format(bucket=bucket)
    answer = raw.ask("PUT", f"/{bucket}/copy", {"x-amz-copy-source": header})
    assert (answer.status, answer.code) == (status, code)


def test_conditions_on_the_source(s3: Any, bucket: str, source: dict[str, str]) -> None:
    etag = s3.head_object(**source)["ETag"]
    now = datetime.now(UTC)
    for good in (
        {"CopySourceIfMatch": etag},
        {"CopySourceIfNoneMatch": '"x"'},
        {"CopySourceIfModifiedSince": now - timedelta(days=1)},
        {"CopySourceIfUnmodifiedSince": now + timedelta(days=1)},
    ):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, **good)
    for bad in (
        {"CopySourceIfMatch": '"x"'},
        {"CopySourceIfNoneMatch": etag},
        {"CopySourceIfModifiedSince": now + timedelta(days=1)},
        {"CopySourceIfUnmodifiedSince": now - timedelta(days=1)},
    ):
        answer = refused(s3.copy_object, Bucket=bucket, Key="no", CopySource=source, **bad)
        assert answer == (412, "PreconditionFailed")
    assert refused(s3.head_object, Bucket=bucket, Key="no")[0] == 404


def test_conditions_on_the_target(raw: RawClient, bucket: str, source: dict[str, str]) -> None:
    header: dict[str, str | bytes] = {"x-amz-copy-source": f"{bucket}/source"}
    there = f"/{bucket}/there"
    only_new = {**header, "if-none-match": "*"}
    assert raw.ask("PUT", there, only_new).status == 200
    answer = raw.ask("PUT", there, only_new)
    assert (answer.status, answer.code) == (412, "PreconditionFailed")


@pytest.mark.parametrize("header", ["x-amz-metadata-directive", "x-amz-tagging-directive"])
def test_unknown_directives(
    raw: RawClient, bucket: str, source: dict[str, str], header: str
) -> None:
    sent: dict[str, str | bytes] = {"x-amz-copy-source": f"{bucket}/source", header: "MERGE"}
    answer = raw.ask("PUT", f"/{bucket}/copy", sent)
    assert (answer.status, answer.code) == (400, "InvalidArgument")


def test_another_checksum(s3: Any, bucket: str, source: dict[str, str]) -> None:
    answer = s3.copy_object(
        Bucket=bucket, Key="copy", CopySource=source, ChecksumAlgorithm="SHA256"
    )
    head = s3.head_object(Bucket=bucket, Key="copy", ChecksumMode="ENABLED")
    assert answer["CopyObjectResult"]["ChecksumSHA256"] == head["ChecksumSHA256"]


def test_between_buckets_and_larger(s3: Any, bucket: str, chance: random.Random) -> None:
    other = f"{bucket}-other"
    s3.create_bucket(Bucket=other)
    body = chance.randbytes(600_000)
    s3.put_object(Bucket=bucket, Key="k", Body=body)
    s3.copy_object(Bucket=other, Key="k", CopySource={"Bucket": bucket, "Key": "k"})
    assert s3.get_object(Bucket=other, Key="k")["Body"].read() == body


def test_strangers_copy_nothing(
    stranger: Any, bucket: str, source: dict[str, str], bucket_name: str
) -> None:
    mine = f"{bucket_name}-mine"
    stranger.create_bucket(Bucket=mine)
    answer = refused(stranger.copy_object, Bucket=mine, Key="k", CopySource=source)
    assert answer == (403, "AccessDenied")
    stranger.put_object(Bucket=mine, Key="k", Body=b"x")
    answer = refused(
        stranger.copy_object, Bucket=bucket, Key="k", CopySource={"Bucket": mine, "Key": "k"}
    )
    assert answer == (403, "AccessDenied")
