"""DeleteObjects."""

from __future__ import annotations

import base64
import hashlib
from typing import Any
from xml.sax.saxutils import escape

import pytest

from tests.s3.raw import RawAnswer, RawClient


def md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body).digest()).decode()


def ask(raw: RawClient, bucket: str, body: bytes) -> RawAnswer:
    return raw.ask("POST", f"/{bucket}?delete", {"content-md5": md5(body)}, body)


def test_many_at_once(s3: Any, bucket: str) -> None:
    keys = [f"k{index}" for index in range(20)] + ["with space", "日本", "a&b"]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key)
    wanted = [*keys, "never there"]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in wanted]})
    assert [found["Key"] for found in answer["Deleted"]] == wanted
    assert "Errors" not in answer
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_quiet_hides_successes_only(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k")
    answer = s3.delete_objects(
        Bucket=bucket, Delete={"Quiet": True, "Objects": [{"Key": "k"}, {"Key": "x" * 1025}]}
    )
    assert "Deleted" not in answer
    [error] = answer["Errors"]
    assert error["Code"] == "KeyTooLongError"
    assert error["Message"]


def test_versions(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k")
    answer = s3.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": "k", "VersionId": "null"}]}
    )
    assert answer["Deleted"] == [{"Key": "k", "VersionId": "null"}]
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_conditions(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    s3.put_object(Bucket=bucket, Key="plain", Body=b"x")
    answer = s3.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": "k", "ETag": '"other"'}, {"Key": "plain"}]}
    )
    assert [(found["Key"], found["Code"]) for found in answer["Errors"]] == [
        ("k", "PreconditionFailed")
    ]
    assert [found["Key"] for found in answer["Deleted"]] == ["plain"]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k", "ETag": etag}]})
    assert [found["Key"] for found in answer["Deleted"]] == ["k"]


def objects(count: int) -> bytes:
    inner = "".join(f"<Object><Key>k{index}</Key></Object>" for index in range(count))
    return f"<Delete>{inner}</Delete>".encode()


def test_a_thousand_is_the_limit(raw: RawClient, bucket: str) -> None:
    assert ask(raw, bucket, objects(1000)).status == 200
    answer = ask(raw, bucket, objects(1001))
    assert (answer.status, answer.code) == (400, "MalformedXML")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<Delete/>",
        b"<Delete><Object/></Delete>",
        b"<Delete><Object><Key></Key></Object></Delete>",
        b"<Delete><Object><Key>a</Key><Key>b</Key></Object></Delete>",
        b"<Remove><Object><Key>a</Key></Object></Remove>",
        b"<Delete><Object><Key>a</Key></Object>",
        b"<Delete><Object><Key>a</Key><Size>big</Size></Object></Delete>",
    ],
)
def test_malformed_documents(raw: RawClient, bucket: str, body: bytes) -> None:
    answer = ask(raw, bucket, body)
    assert (answer.status, answer.code) == (400, "MalformedXML")


def test_white_space_is_part_of_a_key(s3: Any, raw: RawClient, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key=" k ")
    body = f"<Delete><Object><Key>{escape(' k ')}</Key></Object></Delete>".encode()
    assert ask(raw, bucket, body).status == 200
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_a_checksum_is_demanded_and_checked(raw: RawClient, bucket: str) -> None:
    body = objects(1)
    without = raw.ask("POST", f"/{bucket}?delete", {}, body)
    assert (without.status, without.code) == (400, "InvalidRequest")
    wrong = raw.ask("POST", f"/{bucket}?delete", {"content-md5": md5(b"other")}, body)
    assert (wrong.status, wrong.code) == (400, "BadDigest")
    malformed = raw.ask("POST", f"/{bucket}?delete", {"content-md5": "!"}, body)
    assert (malformed.status, malformed.code) == (400, "InvalidDigest")
    sha256 = base64.b64encode(hashlib.sha256(body).digest()).decode()
    assert (
        raw.ask("POST", f"/{bucket}?delete", {"x-amz-checksum-sha256": sha256}, body).status == 200
    )
    wrong = raw.ask("POST", f"/{bucket}?delete", {"x-amz-checksum-sha256": md5(b"")}, body)
    assert wrong.status == 400


def test_strangers_delete_nothing(s3: Any, stranger: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k")
    try:
        answer = stranger.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k"}]})
    except stranger.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == "AccessDenied"
    else:
        assert [found["Code"] for found in answer["Errors"]] == ["AccessDenied"]
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
