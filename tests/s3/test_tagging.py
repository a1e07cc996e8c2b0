"""Tags of objects."""

from __future__ import annotations

from typing import Any

import pytest

from tests.s3.raw import RawClient
from tests.s3.refusals import refused


def as_set(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


@pytest.fixture
def key(s3: Any, bucket: str) -> dict[str, str]:
    """An object without tags."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    return {"Bucket": bucket, "Key": "k"}


def test_put_get_delete(s3: Any, key: dict[str, str]) -> None:
    before = s3.head_object(**key)["LastModified"]
    assert s3.get_object_tagging(**key)["TagSet"] == []
    tags = as_set({"a": "1", "b c": "+-=._:/@", "empty": "", "日": "本"})
    s3.put_object_tagging(Tagging={"TagSet": tags}, **key)
    assert s3.get_object_tagging(**key)["TagSet"] == tags
    s3.put_object_tagging(Tagging={"TagSet": as_set({"only": "this"})}, **key)
    assert s3.get_object_tagging(**key)["TagSet"] == as_set({"only": "this"})
    s3.delete_object_tagging(**key)
    assert s3.get_object_tagging(**key)["TagSet"] == []
    head = s3.head_object(**key)
    assert head["LastModified"] == before


def test_tags_with_the_object(s3: Any, key: dict[str, str]) -> None:
    s3.put_object(Body=b"x", Tagging="a=1&b%20c=d%2Be&f", **key)
    wanted = as_set({"a": "1", "b c": "d+e", "f": ""})
    assert s3.get_object_tagging(**key)["TagSet"] == wanted


@pytest.mark.parametrize(
    "tags",
    [
        [("k" * 129, "v")],
        [("k", "v" * 257)],
        [("same", "1"), ("same", "2")],
        [(f"k{index}", "v") for index in range(11)],
        [("k", "no<angle>")],
    ],
)
def test_tags_beyond_the_rules(s3: Any, key: dict[str, str], tags: list[tuple[str, str]]) -> None:
    tag_set = [{"Key": name, "Value": value} for name, value in tags]
    answer = refused(s3.put_object_tagging, Tagging={"TagSet": tag_set}, **key)
    assert answer == (400, "InvalidTag")
    assert s3.get_object_tagging(**key)["TagSet"] == []


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("a=1&a=2", "InvalidTag"),
        ("%FF=1", "InvalidArgument"),
        ("=1", "InvalidTag"),
        ("&".join(f"k{index}=v" for index in range(11)), "InvalidTag"),
    ],
)
def test_header_tags_beyond_the_rules(raw: RawClient, bucket: str, header: str, code: str) -> None:
    answer = raw.ask("PUT", f"/{bucket}/new", {"x-amz-tagging": header}, b"x")
    assert (answer.status, answer.code) == (400, code)
    assert raw.ask("HEAD", f"/{bucket}/new").status == 404


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<Tagging/>",
        b"<Tags><TagSet/></Tags>",
        b"<Tagging><TagSet><Tag><Key>k</Key></Tag></TagSet></Tagging>",
        b"<Tagging><TagSet><Tag><Value>v</Value></Tag></TagSet></Tagging>",
        b"<Tagging><TagSet/><TagSet/></Tagging>",
        b"<Tagging><TagSet><Tag><Key>k</Key><Key>l</Key><Value>v</Value></Tag></TagSet></Tagging>",
    ],
)
def test_malformed_documents(raw: RawClient, key: dict[str, str], body: bytes) -> None:
    answer = raw.ask("PUT", f"/{key['Bucket']}/k?tagging", body=body)
    assert (answer.status, answer.code) == (400, "MalformedXML")


def test_missing_objects(s3: Any, bucket: str) -> None:
    address = {"Bucket": bucket, "Key": "none"}
    assert refused(s3.get_object_tagging, **address) == (404, "NoSuchKey")
    answer = refused(s3.put_object_tagging, Tagging={"TagSet": []}, **address)
    assert answer == (404, "NoSuchKey")
