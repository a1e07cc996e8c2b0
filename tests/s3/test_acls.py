"""Access lists, object ownership and blocked public access, as SDKs and bare requests see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config

from tests.s3.endpoint import Endpoint, running_endpoint
from tests.s3.raw import RawClient
from tests.s3.refusals import refused

ALL_USERS = "http://acs.amazonaws.com/groups/global/AllUsers"
AUTHENTICATED = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"


@pytest.fixture
def alt(client_of: Callable[..., Any]) -> Any:
    """Another account of the same contract."""
    return client_of("alt")


@pytest.fixture
def anybody(endpoint: Endpoint) -> Iterator[Any]:
    """boto3 without credentials."""
    client = anonymous_client(endpoint)
    yield client
    client.close()


def anonymous_client(endpoint: Endpoint) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint.endpoint,
        region_name=endpoint.region,
        verify=str(endpoint.authority),
        config=Config(
            signature_version=UNSIGNED,
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
        ),
    )


def lines(acl: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(kind, who, permission) of each grant."""
    return [
        (
            grant["Grantee"]["Type"],
            grant["Grantee"].get("ID") or grant["Grantee"]["URI"],
            grant["Permission"],
        )
        for grant in acl["Grants"]
    ]


def test_the_owner_holds_everything(endpoint: Endpoint, s3: Any, bucket: str) -> None:
    owner = endpoint.accounts["main"]
    s3.put_object(Bucket=bucket, Key="k")
    for acl in (s3.get_bucket_acl(Bucket=bucket), s3.get_object_acl(Bucket=bucket, Key="k")):
        assert acl["Owner"]["ID"] == owner.user_id
        assert lines(acl) == [("CanonicalUser", owner.user_id, "FULL_CONTROL")]


@pytest.mark.parametrize(
    ("canned", "granted"),
    [
        ("private", []),
        ("public-read", [(ALL_USERS, "READ")]),
        ("public-read-write", [(ALL_USERS, "READ"), (ALL_USERS, "WRITE")]),
        ("authenticated-read", [(AUTHENTICATED, "READ")]),
    ],
)
def test_canned_lists(
    endpoint: Endpoint,
    s3: Any,
    bucket_name: str,
    canned: str,
    granted: list[tuple[str, str]],
) -> None:
    own = ("CanonicalUser", endpoint.accounts["main"].user_id, "FULL_CONTROL")
    expected = [*(("Group", *line) for line in granted), own]
    s3.create_bucket(Bucket=bucket_name, ACL=canned)
    s3.put_object(Bucket=bucket_name, Key="put", Body=b"x", ACL=canned)
    source = {"Bucket": bucket_name, "Key": "put"}
    s3.copy_object(Bucket=bucket_name, Key="copied", CopySource=source, ACL=canned)
    s3.put_object(Bucket=bucket_name, Key="changed")
    s3.put_object_acl(Bucket=bucket_name, Key="changed", ACL=canned)
    begun = s3.create_multipart_upload(Bucket=bucket_name, Key="parts", ACL=canned)["UploadId"]
    part = s3.upload_part(Bucket=bucket_name, Key="parts", UploadId=begun, PartNumber=1, Body=b"x")
    s3.complete_multipart_upload(
        Bucket=bucket_name,
        Key="parts",
        UploadId=begun,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    assert lines(s3.get_bucket_acl(Bucket=bucket_name)) == expected
    for key in ("put", "copied", "changed", "parts"):
        assert lines(s3.get_object_acl(Bucket=bucket_name, Key=key)) == expected, key
    status = s3.get_bucket_policy_status(Bucket=bucket_name)["PolicyStatus"]
    assert status["IsPublic"] == (canned != "private")


def test_grant_headers_and_documents(endpoint: Endpoint, s3: Any, alt: Any, bucket: str) -> None:
    friend = endpoint.accounts["alt"]
    grantee = f'id="{friend.user_id}", uri={ALL_USERS}'
    s3.put_bucket_acl(Bucket=bucket, GrantRead=grantee, GrantFullControl=f"id={friend.user_id}")
    acl = s3.get_bucket_acl(Bucket=bucket)
    assert lines(acl) == [
        ("Group", ALL_USERS, "READ"),
        ("CanonicalUser", friend.user_id, "READ"),
        ("CanonicalUser", friend.user_id, "FULL_CONTROL"),
    ]
    assert acl["Grants"][1]["Grantee"]["DisplayName"] == friend.display_name
    alt.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert alt.get_object_acl(Bucket=bucket, Key="k")["Owner"]["ID"] == friend.user_id
    policy = {"Owner": acl["Owner"], "Grants": acl["Grants"][1:]}
    s3.put_bucket_acl(Bucket=bucket, AccessControlPolicy=policy)
    assert lines(s3.get_bucket_acl(Bucket=bucket)) == lines(policy)
    alt.put_object(Bucket=bucket, Key="k", GrantReadACP=f"id={policy['Owner']['ID']}")
    assert s3.get_object_acl(Bucket=bucket, Key="k")["Owner"]["ID"] == friend.user_id
    assert refused(s3.get_object, Bucket=bucket, Key="k") == (403, "AccessDenied")


@pytest.mark.parametrize(
    ("headers", "body", "answer"),
    [
        ({"x-amz-acl": "no-such"}, b"", (400, "InvalidArgument")),
        ({"x-amz-acl": "aws-exec-read"}, b"", (501, "NotImplemented")),
        ({"x-amz-grant-read": "bob"}, b"", (400, "InvalidArgument")),
        ({"x-amz-grant-read": "id=nobody"}, b"", (400, "InvalidArgument")),
        ({"x-amz-grant-read": 'id="1" id="2"'}, b"", (400, "InvalidArgument")),
        ({"x-amz-grant-read": "uri=http://x/"}, b"", (400, "InvalidArgument")),
        (
            {"x-amz-grant-read": 'emailAddress="a@example.com"'},
            b"",
            (400, "UnresolvableGrantByEmailAddress"),
        ),
        (
            {"x-amz-acl": "private", "x-amz-grant-read": "id=1"},
            b"",
            (400, "InvalidRequest"),
        ),
        ({}, b"", (400, "MissingSecurityHeader")),
        ({}, b"<x", (400, "MalformedXML")),
        ({}, b"<AccessControlPolicy/>", (400, "MalformedACLError")),
    ],
)
def test_requests_that_are_no_list(
    raw: RawClient,
    bucket: str,
    headers: dict[str, str | bytes],
    body: bytes,
    answer: tuple[int, str],
) -> None:
    assert raw.ask("PUT", f"/{bucket}/k", body=b"x").status == 200
    for target in (f"/{bucket}?acl", f"/{bucket}/k?acl"):
        found = raw.ask("PUT", target, headers, body)
        assert (found.status, found.code) == answer


@pytest.mark.parametrize(
    ("grant", "code"),
    [
        ("", "MalformedACLError"),
        ("<Grantee><ID>x</ID></Grantee>", "MalformedACLError"),
        ("<Grantee><ID>x</ID></Grantee><Permission>ALL</Permission>", "MalformedACLError"),
        ("<Grantee/><Permission>READ</Permission>", "MalformedACLError"),
        ("<Grantee><ID>x</ID></Grantee><Permission>READ</Permission>", "InvalidArgument"),
        ("<Grantee><URI>x</URI></Grantee><Permission>READ</Permission>", "InvalidArgument"),
        (
            "<Grantee><EmailAddress>a@example.com</EmailAddress></Grantee>"
            "<Permission>READ</Permission>",
            "UnresolvableGrantByEmailAddress",
        ),
    ],
)
def test_grants_that_are_none(raw: RawClient, bucket: str, grant: str, code: str) -> None:
    body = (
        f"<AccessControlPolicy><AccessControlList><Grant>{grant}</Grant></AccessControlList>"
        "</AccessControlPolicy>"
    ).encode()
    answer = raw.ask("PUT", f"/{bucket}?acl", {}, body)
    assert (answer.status, answer.code) == (400, code)


def test_grants_end_at_the_contract(
    endpoint: Endpoint, s3: Any, stranger: Any, bucket: str
) -> None:
    foreign = endpoint.accounts["other"].user_id
    answer = refused(s3.put_bucket_acl, Bucket=bucket, GrantRead=f"id={foreign}")
    assert answer == (400, "InvalidArgument")
    s3.put_bucket_acl(Bucket=bucket, ACL="authenticated-read")
    assert refused(stranger.list_objects_v2, Bucket=bucket) == (403, "AccessDenied")
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
    assert stranger.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_anybody_reads_what_is_public(s3: Any, anybody: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="open", Body=b"open", ACL="public-read")
    s3.put_object(Bucket=bucket, Key="closed", Body=b"closed")
    assert anybody.get_object(Bucket=bucket, Key="open")["Body"].read() == b"open"
    assert anybody.head_object(Bucket=bucket, Key="open")["ContentLength"] == 4
    assert refused(anybody.get_object, Bucket=bucket, Key="closed") == (403, "AccessDenied")
    assert refused(anybody.get_object, Bucket=bucket, Key="none") == (403, "AccessDenied")
    assert refused(anybody.head_object, Bucket=bucket, Key="none")[0] == 403
    assert refused(anybody.list_objects_v2, Bucket=bucket) == (403, "AccessDenied")
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
    found = anybody.list_objects_v2(Bucket=bucket)["Contents"]
    assert [entry["Key"] for entry in found] == ["closed", "open"]
    assert refused(anybody.get_object, Bucket=bucket, Key="none") == (404, "NoSuchKey")
    assert refused(anybody.head_object, Bucket=bucket, Key="none")[0] == 404
    assert refused(anybody.get_object, Bucket=bucket, Key="closed") == (403, "AccessDenied")
    assert refused(anybody.put_object, Bucket=bucket, Key="k") == (403, "AccessDenied")


def test_anybody_writes_where_that_is_allowed(
    endpoint: Endpoint, s3: Any, anybody: Any, bucket: str
) -> None:
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    anybody.put_object(Bucket=bucket, Key="k", Body=b"from nobody")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"from nobody"
    acl = s3.get_object_acl(Bucket=bucket, Key="k")
    assert acl["Owner"]["ID"] == endpoint.accounts["main"].user_id
    answer = refused(anybody.create_multipart_upload, Bucket=bucket, Key="k")
    assert answer == (403, "AccessDenied")
    assert refused(anybody.delete_bucket, Bucket=bucket) == (403, "AccessDenied")
    deleted = anybody.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k"}]})
    assert [found["Key"] for found in deleted["Deleted"]] == ["k"]


def test_ownership_controls(s3: Any, alt: Any, bucket: str) -> None:
    def choose(ownership: str) -> None:
        rules = {"Rules": [{"ObjectOwnership": ownership}]}
        s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=rules)
        chosen = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]
        assert chosen == rules

    s3.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    choose("BucketOwnerPreferred")
    alt.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="bucket-owner-full-control")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    choose("ObjectWriter")
    alt.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="bucket-owner-read")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    assert refused(s3.get_object_acl, Bucket=bucket, Key="k") == (403, "AccessDenied")
    with pytest.raises(Exception, match="InvalidBucketAclWithObjectOwnership"):
        choose("BucketOwnerEnforced")
    s3.put_bucket_acl(Bucket=bucket, ACL="private")
    choose("BucketOwnerEnforced")
    answer = refused(s3.put_bucket_acl, Bucket=bucket, ACL="public-read")
    assert answer == (400, "AccessControlListNotSupported")
    assert refused(alt.get_object, Bucket=bucket, Key="k") == (403, "AccessDenied")
    s3.delete_bucket_ownership_controls(Bucket=bucket)
    assert alt.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


@pytest.mark.parametrize("subresource", ["ownershipControls", "publicAccessBlock", "tagging"])
def test_documents_of_settings_that_are_none(raw: RawClient, bucket: str, subresource: str) -> None:
    for body in (b"", b"<x/>", b"<OwnershipControls/>", b"<Tagging/>", b"<Tag"):
        answer = raw.ask("PUT", f"/{bucket}?{subresource}", {}, body)
        assert (answer.status, answer.code) == (400, "MalformedXML"), body


def test_a_block_of_public_access(s3: Any, anybody: Any, bucket: str) -> None:
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
    block = {
        "BlockPublicAcls": True,
        "IgnorePublicAcls": False,
        "BlockPublicPolicy": True,
        "RestrictPublicBuckets": False,
    }
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=block)
    found = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert found == block
    assert refused(s3.put_bucket_acl, Bucket=bucket, ACL="public-read") == (403, "AccessDenied")
    answer = refused(s3.put_object, Bucket=bucket, Key="k", ACL="authenticated-read")
    assert answer == (403, "AccessDenied")
    anybody.list_objects_v2(Bucket=bucket)
    s3.put_public_access_block(
        Bucket=bucket, PublicAccessBlockConfiguration={"IgnorePublicAcls": True}
    )
    assert refused(anybody.list_objects_v2, Bucket=bucket) == (403, "AccessDenied")
    s3.delete_public_access_block(Bucket=bucket)
    anybody.list_objects_v2(Bucket=bucket)


def test_bucket_tagging(s3: Any, bucket: str) -> None:
    tags = {"TagSet": [{"Key": "cost centre", "Value": "7"}, {"Key": "empty", "Value": ""}]}
    s3.put_bucket_tagging(Bucket=bucket, Tagging=tags)
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == tags["TagSet"]
    too_many = {"TagSet": [{"Key": f"k{number}", "Value": ""} for number in range(51)]}
    answer = refused(s3.put_bucket_tagging, Bucket=bucket, Tagging=too_many)
    assert answer == (400, "InvalidTag")
    s3.delete_bucket_tagging(Bucket=bucket)
    assert refused(s3.get_bucket_tagging, Bucket=bucket) == (404, "NoSuchTagSet")


def test_expected_owners(endpoint: Endpoint, s3: Any, anybody: Any, bucket: str) -> None:
    own, foreign = endpoint.accounts["main"].user_id, endpoint.accounts["other"].user_id
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    s3.put_object(Bucket=bucket, Key="k")
    anybody.put_object(Bucket=bucket, Key="k", ExpectedBucketOwner=own)
    answer = refused(anybody.put_object, Bucket=bucket, Key="k", ExpectedBucketOwner=foreign)
    assert answer == (403, "AccessDenied")
    source = {"Bucket": bucket, "Key": "k"}
    answer = refused(
        s3.copy_object,
        Bucket=bucket,
        Key="c",
        CopySource=source,
        ExpectedSourceBucketOwner=foreign,
    )
    assert answer == (403, "AccessDenied")
    s3.copy_object(Bucket=bucket, Key="c", CopySource=source, ExpectedSourceBucketOwner=own)


def test_asking_for_a_bucket_with_another_list_again(s3: Any, bucket: str) -> None:
    s3.create_bucket(Bucket=bucket)
    answer = refused(s3.create_bucket, Bucket=bucket, ACL="public-read")
    assert answer == (409, "BucketAlreadyExists")
    assert len(s3.get_bucket_acl(Bucket=bucket)["Grants"]) == 1


def test_the_location_as_it_was_given(endpoint: Endpoint, s3: Any, bucket_name: str) -> None:
    s3.create_bucket(
        Bucket=bucket_name,
        CreateBucketConfiguration={"LocationConstraint": endpoint.region},
    )
    assert s3.get_bucket_location(Bucket=bucket_name)["LocationConstraint"] == endpoint.region


def test_where_public_access_is_blocked(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("blocked")
    with running_endpoint(folder, public_access=False) as endpoint:
        account = endpoint.accounts["main"]
        s3 = boto3.client(
            "s3",
            endpoint_url=endpoint.endpoint,
            region_name=endpoint.region,
            aws_access_key_id=account.access_key,
            aws_secret_access_key=account.secret_key,
            verify=str(endpoint.authority),
        )
        anybody = anonymous_client(endpoint)
        answer = refused(s3.create_bucket, Bucket="bucket", ACL="public-read")
        assert answer == (403, "AccessDenied")
        s3.create_bucket(Bucket="bucket")
        s3.put_object(Bucket="bucket", Key="k")
        for call in (s3.put_object_acl, s3.put_object):
            answer = refused(call, Bucket="bucket", Key="k", ACL="public-read")
            assert answer == (403, "AccessDenied")
        s3.delete_public_access_block(Bucket="bucket")
        block = s3.get_public_access_block(Bucket="bucket")["PublicAccessBlockConfiguration"]
        assert len(block) == 4
        assert all(block.values())
        assert refused(anybody.get_object, Bucket="bucket", Key="k") == (403, "AccessDenied")
        s3.close()
        anybody.close()
