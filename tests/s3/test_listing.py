"""ListObjects, ListObjectsV2, ListObjectVersions."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.s3.raw import RawClient

KEYS = [
    "asdf",
    "boo/bar",
    "boo/baz/xyzzy",
    "cquux/thud",
    "cquux/bla",
    "foo/",
    "foo+1/bar",
    "foo/bar",
    "quux ä/thud",
    "日本/x",
]


@pytest.fixture
def filled(s3: Any, bucket: str) -> str:
    """A bucket with ``KEYS``."""
    for key in KEYS:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    return bucket


def ordered(keys: list[str]) -> list[str]:
    """In UTF-8 byte order."""
    return sorted(keys, key=str.encode)


def expected(keys: list[str], prefix: str, delimiter: str) -> tuple[list[str], list[str]]:
    """Keys and common prefixes by the plainest reading of the rules."""
    found: list[str] = []
    prefixes: list[str] = []
    for key in ordered(keys):
        if not key.startswith(prefix):
            continue
        head, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
        if not cut:
            found.append(key)
        elif prefix + head + cut not in prefixes:
            prefixes.append(prefix + head + cut)
    return found, prefixes


def pages_v1(s3: Any, bucket: str, **parameters: Any) -> tuple[list[str], list[str]]:
    """Everything, by markers."""
    keys: list[str] = []
    prefixes: list[str] = []
    while True:
        page = s3.list_objects(Bucket=bucket, **parameters)
        keys += [found["Key"] for found in page.get("Contents", [])]
        prefixes += [found["Prefix"] for found in page.get("CommonPrefixes", [])]
        if not page["IsTruncated"]:
            return keys, prefixes
        parameters["Marker"] = page.get("NextMarker") or page["Contents"][-1]["Key"]


def pages_v2(s3: Any, bucket: str, **parameters: Any) -> tuple[list[str], list[str]]:
    """Everything, by tokens."""
    keys: list[str] = []
    prefixes: list[str] = []
    while True:
        page = s3.list_objects_v2(Bucket=bucket, **parameters)
        assert page["KeyCount"] == len(page.get("Contents", [])) + len(
            page.get("CommonPrefixes", [])
        )
        assert page["KeyCount"] <= parameters.get("MaxKeys", 1000)
        keys += [found["Key"] for found in page.get("Contents", [])]
        prefixes += [found["Prefix"] for found in page.get("CommonPrefixes", [])]
        if not page["IsTruncated"]:
            return keys, prefixes
        parameters["ContinuationToken"] = page["NextContinuationToken"]


def pages_versions(s3: Any, bucket: str, **parameters: Any) -> tuple[list[str], list[str]]:
    """Everything, by key and version markers."""
    keys: list[str] = []
    prefixes: list[str] = []
    while True:
        page = s3.list_object_versions(Bucket=bucket, **parameters)
        keys += [found["Key"] for found in page.get("Versions", [])]
        prefixes += [found["Prefix"] for found in page.get("CommonPrefixes", [])]
        if not page["IsTruncated"]:
            return keys, prefixes
        parameters["KeyMarker"] = page["NextKeyMarker"]
        if "NextVersionIdMarker" in page:
            parameters["VersionIdMarker"] = page["NextVersionIdMarker"]


@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    ("prefix", "delimiter"),
    [
        ("", ""),
        ("", "/"),
        ("foo", ""),
        ("foo/", "/"),
        ("boo/", "/"),
        ("", "a"),
        ("", "ba"),
        ("none", "/"),
        ("", "%"),
        ("日", "/"),
        ("", "\n"),
    ],
)
def test_every_way_of_paging_shows_everything_once(
    s3: Any, filled: str, prefix: str, delimiter: str, limit: int
) -> None:
    parameters = {"Prefix": prefix, "MaxKeys": limit}
    if delimiter:
        parameters["Delimiter"] = delimiter
    wanted = expected(KEYS, prefix, delimiter)
    assert pages_v1(s3, filled, **parameters) == wanted
    assert pages_v2(s3, filled, **parameters) == wanted
    assert pages_versions(s3, filled, **parameters) == wanted


def test_random_keys_and_delimiters(s3: Any, bucket: str, chance: random.Random) -> None:
    keys = list({"".join(chance.choices("ab/+é", k=chance.randint(1, 5))) for _ in range(40)})
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key)
    for _ in range(12):
        prefix = "".join(chance.choices("ab/", k=chance.randint(0, 2)))
        delimiter = chance.choice(["/", "a", "+", "b/"])
        limit = chance.randint(1, 7)
        wanted = expected(keys, prefix, delimiter)
        parameters = {"Prefix": prefix, "Delimiter": delimiter, "MaxKeys": limit}
        assert pages_v1(s3, bucket, **parameters) == wanted
        assert pages_v2(s3, bucket, **parameters) == wanted
        assert pages_versions(s3, bucket, **parameters) == wanted


def test_an_entry_tells_what_head_tells(s3: Any, filled: str) -> None:
    [entry] = s3.list_objects_v2(Bucket=filled, Prefix="asdf", FetchOwner=True)["Contents"]
    head = s3.head_object(Bucket=filled, Key="asdf")
    assert entry["ETag"] == head["ETag"]
    assert entry["Size"] == head["ContentLength"]
    assert entry["LastModified"].replace(microsecond=0) == head["LastModified"]
    assert entry["StorageClass"] == "STANDARD"
    assert entry["ChecksumAlgorithm"] == ["CRC32"]
    assert entry["ChecksumType"] == "FULL_OBJECT"
    assert entry["Owner"]["ID"] == s3.list_buckets()["Owner"]["ID"]
    [plain] = s3.list_objects_v2(Bucket=filled, Prefix="asdf")["Contents"]
    assert "Owner" not in plain
    [version] = s3.list_object_versions(Bucket=filled, Prefix="asdf")["Versions"]
    assert (version["VersionId"], version["IsLatest"]) == ("null", True)
    [old] = s3.list_objects(Bucket=filled, Prefix="asdf")["Contents"]
    assert "Owner" in old


def test_start_after_and_markers_need_not_exist(s3: Any, filled: str) -> None:
    page = s3.list_objects_v2(Bucket=filled, StartAfter="cquux/c")
    assert page["StartAfter"] == "cquux/c"
    assert [found["Key"] for found in page["Contents"]] == ordered(
        [key for key in KEYS if key.encode() > b"cquux/c"]
    )
    page = s3.list_objects(Bucket=filled, Marker="zzz", Prefix="a")
    assert (page["Marker"], page.get("Contents", [])) == ("zzz", [])


def test_a_token_outweighs_start_after(s3: Any, filled: str) -> None:
    first = s3.list_objects_v2(Bucket=filled, MaxKeys=1)
    page = s3.list_objects_v2(
        Bucket=filled, StartAfter="zzz", ContinuationToken=first["NextContinuationToken"]
    )
    assert page["ContinuationToken"] == first["NextContinuationToken"]
    assert page["KeyCount"] == len(KEYS) - 1


def test_no_keys_asked_for_is_an_empty_page(raw: RawClient, filled: str) -> None:
    for query in ("max-keys=0", "list-type=2&max-keys=0", "versions&max-keys=0"):
        answer = raw.ask("GET", f"/{filled}?{query}")
        assert answer.status == 200
        assert answer.document.findtext("IsTruncated") == "false"
        assert answer.document.find("Contents") is None


def test_more_than_a_thousand_is_a_thousand(raw: RawClient, filled: str) -> None:
    answer = raw.ask("GET", f"/{filled}?list-type=2&max-keys=5000")
    assert answer.document.findtext("MaxKeys") == "1000"


def test_url_encoding(raw: RawClient, filled: str) -> None:
    answer = raw.ask("GET", f"/{filled}?delimiter=%2F&encoding-type=url&prefix=quux%20")
    document = answer.document
    assert document.findtext("EncodingType") == "url"
    assert document.findtext("Prefix") == "quux%20"
    assert document.findtext("Delimiter") == "/"
    assert document.findtext("CommonPrefixes/Prefix") == "quux%20%C3%A4/"
    plain = raw.ask("GET", f"/{filled}?list-type=2&prefix=quux%20&encoding-type=url").document
    assert plain.findtext("Contents/Key") == "quux%20%C3%A4/thud"
    assert raw.ask("GET", f"/{filled}?prefix=quux%20").document.findtext("Contents/Key") == (
        "quux ä/thud"
    )


@pytest.mark.parametrize(
    "query",
    [
        "max-keys=x",
        "max-keys=-1",
        "max-keys=99999999999",
        "encoding-type=base64",
        "list-type=3",
        "list-type=2&continuation-token=not-ours",
        "list-type=2&continuation-token=%FF",
        "versions&version-id-marker=null",
        "list-type=2&max-keys=1.0",
        "allow-unordered=true&delimiter=%2F",
    ],
)
def test_malformed_parameters(raw: RawClient, bucket: str, query: str) -> None:
    answer = raw.ask("GET", f"/{bucket}?{query}")
    assert answer.status == 400
    assert answer.code in {"InvalidArgument", "InvalidURI"}


def test_empty_parameters_are_as_if_absent(raw: RawClient, filled: str) -> None:
    query = "list-type=2&prefix=&delimiter=&continuation-token=&start-after=&max-keys="
    document = raw.ask("GET", f"/{filled}?{query}").document
    assert document.findtext("KeyCount") == str(len(KEYS))
    assert document.find("Delimiter") is None
    assert document.findtext("ContinuationToken") == ""


def test_an_empty_bucket(s3: Any, bucket: str) -> None:
    page = s3.list_objects_v2(Bucket=bucket)
    assert (page["KeyCount"], page["IsTruncated"], page["Name"]) == (0, False, bucket)
    assert s3.list_objects(Bucket=bucket)["Marker"] == ""


def test_a_bucket_that_is_not_there(raw: RawClient) -> None:
    for query in ("", "?list-type=2", "?versions", "?uploads", "?list-type=2&max-keys=0"):
        answer = raw.ask("GET", f"/no-such-bucket-at-all{query}")
        assert (answer.status, answer.code) == (404, "NoSuchBucket"), query


@pytest.mark.parametrize("key", ["\x01", "a\x08b", "a&b<c>", "\ufffe", "a\r\nb", "\x7f"])
def test_keys_that_xml_cannot_carry(s3: Any, raw: RawClient, bucket: str, key: str) -> None:
    s3.put_object(Bucket=bucket, Key=key)
    assert pages_v1(s3, bucket) == ([key], [])
    assert pages_v2(s3, bucket) == ([key], [])
    assert pages_versions(s3, bucket) == ([key], [])
    assert raw.ask("GET", f"/{bucket}").status == 200
