"""Which operation a request is."""

from __future__ import annotations

from typing import Any, cast

import pytest

from appliance.core.errors import S3Error
from appliance.s3.operation import Settings
from appliance.s3.router import Router
from tests.unit.s3.asking import ask

ROUTER = Router(cast(Any, None), Settings())


@pytest.mark.parametrize(
    ("method", "target", "name"),
    [
        ("GET", "/", "ListBuckets"),
        ("GET", "/?x-id=ListBuckets", "ListBuckets"),
        ("GET", "/b", "ListObjects"),
        ("GET", "/b/", "ListObjects"),
        ("GET", "/b?list-type=2", "ListObjectsV2"),
        ("GET", "/b?versions", "ListObjectVersions"),
        ("GET", "/b?uploads", "ListMultipartUploads"),
        ("GET", "/b?location=", "GetBucketLocation"),
        ("GET", "/b?policyStatus", "GetBucketPolicyStatus"),
        ("GET", "/b?accelerate", "GetBucketAccelerateConfiguration"),
        ("DELETE", "/b?policy", "DeleteBucketPolicy"),
        ("PUT", "/b", "CreateBucket"),
        ("HEAD", "/b", "HeadBucket"),
        ("DELETE", "/b", "DeleteBucket"),
        ("POST", "/b?delete", "DeleteObjects"),
        ("PUT", "/b/k", "PutObject"),
        ("GET", "/b/k", "GetObject"),
        ("GET", "/b/k?partNumber=1", "GetObject"),
        ("GET", "/b/k?versionId=null&response-expires=x", "GetObject"),
        ("HEAD", "/b/k", "HeadObject"),
        ("DELETE", "/b/k", "DeleteObject"),
        ("GET", "/b/k?attributes", "GetObjectAttributes"),
        ("GET", "/b/k?tagging&versionId=null", "GetObjectTagging"),
        ("POST", "/b/k?uploads", "CreateMultipartUpload"),
        ("PUT", "/b/k?uploadId=u&partNumber=1", "UploadPart"),
        ("GET", "/b/k?uploadId=u", "ListParts"),
        ("POST", "/b/k?uploadId=u", "CompleteMultipartUpload"),
        ("DELETE", "/b/k?uploadId=u", "AbortMultipartUpload"),
        ("GET", "//k", "GetObject"),
        ("OPTIONS", "/b/k", "PreflightRequest"),
    ],
)
def test_operations(method: str, target: str, name: str) -> None:
    assert ROUTER.route(ask(method, target)[0]).name == name


def test_copies_are_puts_with_a_source() -> None:
    source = {"x-amz-copy-source": "b/k"}
    assert ROUTER.route(ask("PUT", "/b/k", source)[0]).name == "CopyObject"
    part, _ = ask("PUT", "/b/k?uploadId=u&partNumber=1", source)
    assert ROUTER.route(part).name == "UploadPartCopy"


@pytest.mark.parametrize(
    ("method", "target", "code"),
    [
        ("POST", "/", "MethodNotAllowed"),
        ("TRACE", "/b", "MethodNotAllowed"),
        ("POST", "/b/k", "MethodNotAllowed"),
        ("PUT", "/b?versioning", "NotImplemented"),
        ("GET", "/b?metrics", "NotImplemented"),
        ("PUT", "/b/k?torrent", "NotImplemented"),
        ("POST", "/b", "NotImplemented"),
        ("GET", "/b?acl&policy", "InvalidArgument"),
        ("GET", "/b?list-type=1", "InvalidArgument"),
        ("PUT", "/b/k?partNumber=1", "InvalidArgument"),
    ],
)
def test_refusals(method: str, target: str, code: str) -> None:
    with pytest.raises(S3Error) as raised:
        ROUTER.route(ask(method, target)[0])
    assert raised.value.code == code
