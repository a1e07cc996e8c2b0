"""Ranges, parts and conditions of GetObject and HeadObject."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.s3.raw import RawClient
from tests.s3.refusals import refused

BODY = bytes(range(256)) * 4


@pytest.fixture
def target(raw: RawClient, bucket: str) -> str:
    """An object of 1,024 known bytes."""
    assert raw.ask("PUT", f"/{bucket}/k", body=BODY).status == 200
    return f"/{bucket}/k"


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=1000-", 1000, 1023),
        ("bytes=-24", 1000, 1023),
        ("bytes=-5000", 0, 1023),
        ("bytes=1000-99999", 1000, 1023),
        ("bytes=0-1023", 0, 1023),
    ],
)
def test_ranges(raw: RawClient, target: str, header: str, start: int, end: int) -> None:
    for method in ("GET", "HEAD"):
        answer = raw.ask(method, target, {"range": header})
        assert answer.status == 206
        assert answer.headers["content-range"] == f"bytes {start}-{end}/1024"
        assert answer.headers["content-length"] == str(end - start + 1)
        assert "x-amz-checksum-crc64nvme" not in answer.headers
        if method == "GET":
            assert answer.body == BODY[start : end + 1]


@pytest.mark.parametrize(
    "header", ["bytes=0-1,3-4", "bytes=5-2", "bytes=-", "octets=0-1", "0-1", "bytes=a-b", ""]
)
def test_unparseable_ranges_get_everything(raw: RawClient, target: str, header: str) -> None:
    answer = raw.ask("GET", target, {"range": header})
    assert (answer.status, answer.body) == (200, BODY)


@pytest.mark.parametrize("header", ["bytes=1024-", "bytes=1024-1030", "bytes=-0"])
def test_ranges_beyond_the_end(raw: RawClient, target: str, header: str) -> None:
    answer = raw.ask("GET", target, {"range": header})
    assert (answer.status, answer.code) == (416, "InvalidRange")
    assert answer.headers["content-range"] == "bytes */1024"
    assert answer.document.findtext("ActualObjectSize") == "1024"
    assert answer.document.findtext("RangeRequested") == header


def test_any_range_of_an_empty_object_is_beyond(raw: RawClient, bucket: str) -> None:
    raw.ask("PUT", f"/{bucket}/empty", body=b"")
    for header in ("bytes=0-", "bytes=0-0", "bytes=-1"):
        answer = raw.ask("GET", f"/{bucket}/empty", {"range": header})
        assert answer.status == 416, header
        assert answer.headers["content-range"] == "bytes */0"


def test_random_ranges_of_a_larger_object(s3: Any, bucket: str, chance: random.Random) -> None:
    body = chance.randbytes(700_001)
    s3.put_object(Bucket=bucket, Key="k", Body=body)
    for _ in range(20):
        start = chance.randrange(len(body))
        end = chance.randrange(start, len(body))
        got = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={start}-{end}")
        assert got["Body"].read() == body[start : end + 1]


def test_entity_tag_conditions(raw: RawClient, target: str) -> None:
    etag = raw.ask("HEAD", target).headers["etag"]
    for method in ("GET", "HEAD"):
        assert raw.ask(method, target, {"if-match": etag}).status == 200
        assert raw.ask(method, target, {"if-match": etag.strip('"')}).status == 200
        assert raw.ask(method, target, {"if-match": '"x", ' + etag}).status == 200
        assert raw.ask(method, target, {"if-match": "*"}).status == 200
        assert raw.ask(method, target, {"if-match": '"x"'}).status == 412
        assert raw.ask(method, target, {"if-none-match": '"x"'}).status == 200
        unchanged = raw.ask(method, target, {"if-none-match": etag})
        assert (unchanged.status, unchanged.body) == (304, b"")
        assert unchanged.headers["etag"] == etag
        assert "last-modified" in unchanged.headers


def test_date_conditions(raw: RawClient, target: str) -> None:
    now = datetime.now(UTC)
    form = "%a, %d %b %Y %H:%M:%S GMT"
    before = (now - timedelta(days=1)).strftime(form)
    after = (now + timedelta(days=1)).strftime(form)
    assert raw.ask("GET", target, {"if-modified-since": before}).status == 200
    assert raw.ask("GET", target, {"if-modified-since": after}).status == 304
    assert raw.ask("GET", target, {"if-unmodified-since": after}).status == 200
    failed = raw.ask("GET", target, {"if-unmodified-since": before})
    assert (failed.status, failed.code) == (412, "PreconditionFailed")
    assert failed.document.findtext("Condition") == "If-Unmodified-Since"
    assert raw.ask("GET", target, {"if-modified-since": "whenever"}).status == 200


def test_entity_tags_outweigh_dates(raw: RawClient, target: str) -> None:
    etag = raw.ask("HEAD", target).headers["etag"]
    old = "Tue, 01 Jan 2019 00:00:00 GMT"
    assert raw.ask("GET", target, {"if-match": etag, "if-unmodified-since": old}).status == 200
    assert raw.ask("GET", target, {"if-none-match": etag, "if-modified-since": old}).status == 304


def test_resuming_another_version_starts_over(raw: RawClient, target: str) -> None:
    etag = raw.ask("HEAD", target).headers["etag"]
    resumed = raw.ask("GET", target, {"range": "bytes=1000-", "if-range": etag})
    assert (resumed.status, resumed.body) == (206, BODY[1000:])
    changed = raw.ask("GET", target, {"range": "bytes=1000-", "if-range": '"other"'})
    assert (changed.status, changed.body) == (200, BODY)


def test_part_numbers_of_a_plain_object(s3: Any, raw: RawClient, bucket: str, target: str) -> None:
    answer = raw.ask("GET", f"{target}?partNumber=1")
    assert (answer.status, answer.body) == (206, BODY)
    assert answer.headers["content-range"] == "bytes 0-1023/1024"
    assert "x-amz-mp-parts-count" not in answer.headers
    status, code = refused(s3.get_object, Bucket=bucket, Key="k", PartNumber=2)
    assert (status, code) in {(400, "InvalidPart"), (416, "InvalidPartNumber")}


def test_a_part_and_a_range_contradict(raw: RawClient, target: str) -> None:
    answer = raw.ask("GET", f"{target}?partNumber=1", {"range": "bytes=0-1"})
    assert (answer.status, answer.code) == (400, "InvalidRequest")
    for number in ("0", "-1", "x", "10001", ""):
        answer = raw.ask("GET", f"{target}?partNumber={number}")
        assert (answer.status, answer.code) == (400, "InvalidArgument"), number


def test_head_never_has_a_body(raw: RawClient, target: str) -> None:
    whole = raw.ask("HEAD", target)
    assert (whole.body, whole.headers["content-length"]) == (b"", "1024")
    missing = raw.ask("HEAD", f"{target}-not")
    assert (missing.status, missing.body) == (404, b"")
    assert raw.ask("GET", target).body == BODY, "the connection stays usable"


def test_checksums_are_told_when_asked(raw: RawClient, target: str) -> None:
    asked = raw.ask("GET", target, {"x-amz-checksum-mode": "ENABLED"})
    assert asked.headers["x-amz-checksum-type"] == "FULL_OBJECT"
    assert "x-amz-checksum-crc64nvme" in asked.headers
    assert "x-amz-checksum-crc64nvme" not in raw.ask("GET", target).headers
