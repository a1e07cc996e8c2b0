"""ListBuckets, CreateBucket, HeadBucket, DeleteBucket, GetBucketLocation."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from appliance.s3.operation import Settings
from tests.s3.conftest import client_for
from tests.s3.endpoint import Endpoint, running_endpoint
from tests.s3.raw import RawClient
from tests.s3.refusals import refused


def test_a_bucket_is_there_and_gone(s3: Any, bucket_name: str) -> None:
    made = s3.create_bucket(Bucket=bucket_name)
    assert made["Location"] == f"/{bucket_name}"
    head = s3.head_bucket(Bucket=bucket_name)
    assert head["BucketRegion"]
    listed = {found["Name"]: found for found in s3.list_buckets()["Buckets"]}
    age = datetime.now(UTC) - listed[bucket_name]["CreationDate"]
    assert timedelta(minutes=-1) < age < timedelta(minutes=1)
    s3.delete_bucket(Bucket=bucket_name)
    assert refused(s3.head_bucket, Bucket=bucket_name) == (404, "404")
    assert refused(s3.delete_bucket, Bucket=bucket_name) == (404, "NoSuchBucket")


def test_the_owner_is_named(endpoint: Endpoint, s3: Any) -> None:
    owner = s3.list_buckets()["Owner"]
    assert owner["ID"] == endpoint.accounts["main"].user_id


def test_recreating_ones_own_bucket_succeeds_in_us_east_1(simulated: Endpoint, s3: Any) -> None:
    name = "twice-made-bucket"
    s3.create_bucket(Bucket=name)
    s3.create_bucket(Bucket=name)


def test_recreating_ones_own_bucket_conflicts_elsewhere(tmp_path: Path) -> None:
    settings = Settings(region="ap-northeast-1")
    with running_endpoint(tmp_path, settings=settings) as endpoint:
        client = client_for(endpoint)
        try:
            here = {"LocationConstraint": "ap-northeast-1"}
            client.create_bucket(Bucket="made", CreateBucketConfiguration=here)
            again = refused(client.create_bucket, Bucket="made", CreateBucketConfiguration=here)
            assert again == (409, "BucketAlreadyOwnedByYou")
            location = client.get_bucket_location(Bucket="made")
            assert location["LocationConstraint"] == "ap-northeast-1"
            assert client.head_bucket(Bucket="made")["BucketRegion"] == "ap-northeast-1"
        finally:
            client.close()


def test_anothers_name_is_taken(stranger: Any, bucket: str) -> None:
    assert refused(stranger.create_bucket, Bucket=bucket) == (409, "BucketAlreadyExists")
    assert refused(stranger.head_bucket, Bucket=bucket) == (403, "403")
    assert refused(stranger.list_objects_v2, Bucket=bucket) == (403, "AccessDenied")
    assert refused(stranger.delete_bucket, Bucket=bucket) == (403, "AccessDenied")
    assert bucket not in [found["Name"] for found in stranger.list_buckets()["Buckets"]]


def test_us_east_1_is_the_empty_location(s3: Any, bucket: str) -> None:
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None


@pytest.mark.parametrize(
    ("constraint", "code"),
    [
        ("eu-west-1", "IllegalLocationConstraintException"),
        ("nowhere", "InvalidLocationConstraint"),
    ],
)
def test_other_locations_are_refused(s3: Any, bucket_name: str, constraint: str, code: str) -> None:
    wanted = {"LocationConstraint": constraint}
    answer = refused(s3.create_bucket, Bucket=bucket_name, CreateBucketConfiguration=wanted)
    assert answer == (400, code)


@pytest.mark.parametrize(
    "body",
    [
        b"<CreateBucketConfiguration/>",
        b"<CreateBucketConfiguration><LocationConstraint/></CreateBucketConfiguration>",
        b"<CreateBucketConfiguration xmlns='x'><LocationConstraint>us-east-1"
        b"</LocationConstraint></CreateBucketConfiguration>",
        b"",
    ],
)
def test_locations_that_say_nothing_new(
    simulated: Endpoint, raw: RawClient, bucket_name: str, body: bytes
) -> None:
    assert raw.ask("PUT", f"/{bucket_name}", body=body).status == 200


@pytest.mark.parametrize("name", ["ab", "Upper", "under_score", "a.b.c", "-start", "x" * 64])
def test_illegal_names_are_refused(raw: RawClient, name: str) -> None:
    answer = raw.ask("PUT", f"/{name}")
    assert (answer.status, answer.code) == (400, "InvalidBucketName")


def test_a_bucket_with_objects_stays(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert refused(s3.delete_bucket, Bucket=bucket) == (409, "BucketNotEmpty")
    s3.delete_object(Bucket=bucket, Key="k")
    s3.delete_bucket(Bucket=bucket)


def test_list_buckets_in_pages(client_of: Callable[..., Any], bucket_name: str) -> None:
    client = client_of("alt")
    names = [f"{bucket_name}-{index}" for index in range(5)]
    for name in names:
        client.create_bucket(Bucket=name)
    found: list[str] = []
    parameters: dict[str, Any] = {"Prefix": bucket_name, "MaxBuckets": 2}
    while True:
        page = client.list_buckets(**parameters)
        assert len(page["Buckets"]) <= 2
        assert page["Prefix"] == bucket_name
        found += [bucket["Name"] for bucket in page["Buckets"]]
        if "ContinuationToken" not in page:
            break
        parameters["ContinuationToken"] = page["ContinuationToken"]
    assert found == names


@pytest.mark.parametrize("query", ["max-buckets=0", "max-buckets=x", "continuation-token=%21"])
def test_malformed_paging_is_refused(raw: RawClient, query: str) -> None:
    answer = raw.ask("GET", f"/?{query}")
    assert (answer.status, answer.code) == (400, "InvalidArgument")


def test_the_document_has_the_names_old_devices_know(raw: RawClient) -> None:
    answer = raw.ask("GET", "/")
    assert answer.headers["content-type"] == "application/xml"
    assert (
        b'<ListAllMyBucketsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">' in answer.body
    )
    assert [child.tag for child in answer.document][:2] == ["Owner", "Buckets"]


def test_anonymous_callers_list_nothing(raw: RawClient, bucket: str) -> None:
    assert raw.ask("GET", "/", signed=False).document.findall("Buckets/Bucket") == []
    for target in (f"/{bucket}", f"/{bucket}/key"):
        answer = raw.ask("GET", target, signed=False)
        assert (answer.status, answer.code) == (403, "AccessDenied"), target


def test_expected_owner(endpoint: Endpoint, s3: Any, bucket: str) -> None:
    own, foreign = endpoint.accounts["main"].user_id, endpoint.accounts["other"].user_id
    s3.head_bucket(Bucket=bucket, ExpectedBucketOwner=own)
    answer = refused(s3.list_objects_v2, Bucket=bucket, ExpectedBucketOwner=foreign)
    assert answer == (403, "AccessDenied")


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"ACL": "no-such"}, "InvalidArgument"),
        ({"ACL": "log-delivery-write"}, "NotImplemented"),
        ({"ObjectLockEnabledForBucket": True}, "NotImplemented"),
        ({"ObjectOwnership": "Nobody"}, "InvalidArgument"),
    ],
)
def test_features_that_would_silently_not_exist_are_refused(
    s3: Any, bucket_name: str, parameters: dict[str, Any], code: str
) -> None:
    assert refused(s3.create_bucket, Bucket=bucket_name, **parameters)[1] == code
    assert refused(s3.head_bucket, Bucket=bucket_name)[0] == 404


def test_private_is_what_buckets_are(s3: Any, bucket_name: str) -> None:
    s3.create_bucket(Bucket=bucket_name, ACL="private", ObjectOwnership="BucketOwnerEnforced")
