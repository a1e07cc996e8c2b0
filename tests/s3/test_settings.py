"""What clients probe: settings that are the same for every bucket, and what is not there."""

from __future__ import annotations

from typing import Any

import pytest

from tests.s3.raw import RawClient
from tests.s3.refusals import refused


def test_what_every_bucket_has(s3: Any, bucket: str) -> None:
    encryption = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]
    [rule] = encryption["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    assert s3.get_bucket_request_payment(Bucket=bucket)["Payer"] == "BucketOwner"
    assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"] == {"IsPublic": False}
    assert "Status" not in s3.get_bucket_accelerate_configuration(Bucket=bucket)
    assert "LoggingEnabled" not in s3.get_bucket_logging(Bucket=bucket)
    notification = s3.get_bucket_notification_configuration(Bucket=bucket)
    assert list(notification) == ["ResponseMetadata"]


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("get_bucket_cors", "NoSuchCORSConfiguration"),
        ("get_bucket_lifecycle_configuration", "NoSuchLifecycleConfiguration"),
        ("get_object_lock_configuration", "ObjectLockConfigurationNotFoundError"),
        ("get_bucket_policy", "NoSuchBucketPolicy"),
        ("get_bucket_ownership_controls", "OwnershipControlsNotFoundError"),
        ("get_public_access_block", "NoSuchPublicAccessBlockConfiguration"),
        ("get_bucket_replication", "ReplicationConfigurationNotFoundError"),
        ("get_bucket_tagging", "NoSuchTagSet"),
        ("get_bucket_website", "NoSuchWebsiteConfiguration"),
    ],
)
def test_what_was_never_set(s3: Any, stranger: Any, bucket: str, call: str, code: str) -> None:
    assert refused(getattr(s3, call), Bucket=bucket) == (404, code)
    assert refused(getattr(s3, call), Bucket="no-such-bucket-at-all") == (404, "NoSuchBucket")
    assert refused(getattr(stranger, call), Bucket=bucket) == (403, "AccessDenied")


@pytest.mark.parametrize(
    "call",
    [
        "delete_bucket_cors",
        "delete_bucket_lifecycle",
        "delete_bucket_policy",
        "delete_bucket_ownership_controls",
        "delete_public_access_block",
        "delete_bucket_tagging",
        "delete_bucket_website",
        "delete_bucket_encryption",
    ],
)
def test_deleting_what_was_never_set(s3: Any, stranger: Any, bucket: str, call: str) -> None:
    assert getattr(s3, call)(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert refused(getattr(stranger, call), Bucket=bucket) == (403, "AccessDenied")


def test_encryption_as_it_is(s3: Any, bucket: str) -> None:
    def configuration(algorithm: str) -> dict[str, Any]:
        default = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": algorithm}}
        return {"Rules": [default]}

    s3.put_bucket_encryption(
        Bucket=bucket, ServerSideEncryptionConfiguration=configuration("AES256")
    )
    answer = refused(
        s3.put_bucket_encryption,
        Bucket=bucket,
        ServerSideEncryptionConfiguration=configuration("aws:kms"),
    )
    assert answer == (501, "NotImplemented")


@pytest.mark.parametrize(
    ("method", "query"),
    [
        ("PUT", "versioning"),
        ("PUT", "lifecycle"),
        ("PUT", "policy"),
        ("PUT", "cors"),
        ("PUT", "website"),
        ("PUT", "replication"),
        ("PUT", "notification"),
        ("PUT", "logging"),
        ("GET", "inventory"),
        ("GET", "analytics&id=1"),
        ("PUT", "metrics&id=1"),
        ("GET", "intelligent-tiering"),
        ("GET", "session"),
    ],
)
def test_known_and_absent(raw: RawClient, bucket: str, method: str, query: str) -> None:
    answer = raw.ask(method, f"/{bucket}?{query}", body=b"<x/>" if method == "PUT" else b"")
    assert (answer.status, answer.code) == (501, "NotImplemented")
    assert query.partition("&")[0] in answer.document.findtext("Message", "")


@pytest.mark.parametrize(
    ("method", "query", "status", "code"),
    [
        ("GET", "torrent", 404, "NoSuchKey"),
        ("POST", "select&select-type=2", 501, "NotImplemented"),
        ("POST", "restore", 403, "InvalidObjectState"),
        ("GET", "retention", 400, "InvalidRequest"),
        ("PUT", "retention", 400, "InvalidRequest"),
        ("PUT", "legal-hold", 400, "InvalidRequest"),
        ("POST", "", 405, "MethodNotAllowed"),
        ("POST", "tagging", 501, "NotImplemented"),
        ("GET", "acl&tagging", 400, "InvalidArgument"),
    ],
)
def test_of_objects(
    s3: Any, raw: RawClient, bucket: str, method: str, query: str, status: int, code: str
) -> None:
    s3.put_object(Bucket=bucket, Key="k")
    answer = raw.ask(method, f"/{bucket}/k?{query}", body=b"x" if method != "GET" else b"")
    assert (answer.status, answer.code) == (status, code)


def test_object_lock_cannot_come_later(raw: RawClient, bucket: str) -> None:
    answer = raw.ask("PUT", f"/{bucket}?object-lock", body=b"<ObjectLockConfiguration/>")
    assert (answer.status, answer.code) == (409, "InvalidBucketState")


def test_methods_that_do_not_exist(raw: RawClient, bucket: str) -> None:
    for target in ("/", f"/{bucket}", f"/{bucket}/k"):
        answer = raw.ask("PATCH", target)
        assert (answer.status, answer.code) == (405, "MethodNotAllowed")
    answer = raw.ask("DELETE", "/")
    assert (answer.status, answer.headers["allow"]) == (405, "GET")


def test_preflights_are_refused_without_rules(raw: RawClient, bucket: str) -> None:
    headers: dict[str, str | bytes] = {
        "origin": "https://example.com",
        "access-control-request-method": "PUT",
    }
    answer = raw.ask("OPTIONS", f"/{bucket}/k", headers, signed=False)
    assert (answer.status, answer.code) == (403, "AccessForbidden")
    answer = raw.ask("OPTIONS", f"/{bucket}/k", {}, signed=False)
    assert (answer.status, answer.code) == (400, "BadRequest")


def test_unknown_parameters_are_ignored(raw: RawClient, bucket: str) -> None:
    assert raw.ask("PUT", f"/{bucket}/k?x-id=PutObject&colour=red", body=b"x").status == 200
    assert raw.ask("GET", f"/{bucket}/k?x-id=GetObject").body == b"x"


def test_an_html_form_is_refused(raw: RawClient, bucket: str) -> None:
    headers: dict[str, str | bytes] = {"content-type": "multipart/form-data; boundary=x"}
    answer = raw.ask("POST", f"/{bucket}", headers, b"--x--")
    assert (answer.status, answer.code) == (501, "NotImplemented")


def test_every_answer_has_its_request_id(raw: RawClient, bucket: str) -> None:
    good = raw.ask("GET", f"/{bucket}")
    bad = raw.ask("GET", f"/{bucket}/none")
    assert bad.document.findtext("RequestId") == bad.headers["x-amz-request-id"]
    assert bad.document.findtext("HostId") == bad.headers["x-amz-id-2"]
    assert bad.document.findtext("Resource") == f"/{bucket}/none"
    assert good.headers["x-amz-request-id"] != bad.headers["x-amz-request-id"]
