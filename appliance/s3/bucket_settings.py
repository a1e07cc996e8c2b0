"""Bucket settings that clients ask for and this appliance holds fixed.

Owns the truthful answer to each ``GET ?subresource`` probe: what is always on (encryption, owner
enforced ACLs, blocked public access) is shown as set, what does not exist is refused with the code
AWS uses for "never configured". Refuses nobody but those who may not see the bucket.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from appliance.core.errors import S3Error
from appliance.s3.acl import control_policy
from appliance.s3.bucket import CLASSIC_REGION, CONFIGURATION_BYTES_MAX
from appliance.s3.operation import Context, reply_document
from appliance.s3.request import Request
from appliance.s3.xml import document, element, parse

_BLOCKED: Final = "".join(
    element(name, "true")
    for name in (
        "BlockPublicAcls",
        "IgnorePublicAcls",
        "BlockPublicPolicy",
        "RestrictPublicBuckets",
    )
)
_ENCRYPTED: Final = (
    "<Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm>"
    "</ApplyServerSideEncryptionByDefault><BucketKeyEnabled>false</BucketKeyEnabled></Rule>"
)
_OWNERSHIP: Final = "<Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule>"

_FIXED: Final[Mapping[str, bytes]] = {
    "accelerate": document("AccelerateConfiguration"),
    "encryption": document("ServerSideEncryptionConfiguration", _ENCRYPTED),
    "logging": document("BucketLoggingStatus"),
    "notification": document("NotificationConfiguration"),
    "ownershipControls": document("OwnershipControls", _OWNERSHIP),
    "policyStatus": document("PolicyStatus", element("IsPublic", "false")),
    "publicAccessBlock": document("PublicAccessBlockConfiguration", _BLOCKED),
    "requestPayment": document("RequestPaymentConfiguration", element("Payer", "BucketOwner")),
    "versioning": document("VersioningConfiguration"),
}
"""Subresource → the one document every bucket has."""

_NEVER_SET: Final[Mapping[str, str]] = {
    "cors": "NoSuchCORSConfiguration",
    "lifecycle": "NoSuchLifecycleConfiguration",
    "object-lock": "ObjectLockConfigurationNotFoundError",
    "policy": "NoSuchBucketPolicy",
    "replication": "ReplicationConfigurationNotFoundError",
    "tagging": "NoSuchTagSet",
    "website": "NoSuchWebsiteConfiguration",
}
"""Subresource → the code that says it was never configured."""

_ALGORITHM: Final = "SSEAlgorithm"


async def get_bucket_setting(context: Context, request: Request, subresource: str) -> None:
    """GetBucket<setting> of everything that is the same for every bucket."""
    name = request.bucket or ""
    await context.store.buckets.head(request.caller, name)
    if subresource in _FIXED:
        await reply_document(request, _FIXED[subresource])
        return
    raise S3Error(_NEVER_SET[subresource], fields={"BucketName": name})


async def delete_bucket_setting(context: Context, request: Request) -> None:
    """DeleteBucket<setting> of what was never set, or is the default: done before it was asked."""
    await context.store.buckets.head(request.caller, request.bucket or "")
    await request.reply(204)


async def get_bucket_location(context: Context, request: Request) -> None:
    """GetBucketLocation: us-east-1 is written as the empty constraint."""
    bucket = await context.store.buckets.head(request.caller, request.bucket or "")
    region = bucket.region or context.settings.region
    constraint = "" if region == CLASSIC_REGION else region
    await reply_document(request, document("LocationConstraint", constraint))


async def get_bucket_acl(context: Context, request: Request) -> None:
    """GetBucketAcl: the owner holds FULL_CONTROL and nobody else anything."""
    bucket = await context.store.buckets.head(request.caller, request.bucket or "")
    await reply_document(request, control_policy(bucket.owner))


async def put_bucket_encryption(context: Context, request: Request) -> None:
    """PutBucketEncryption: AES256, which is so already; KMS keys are refused."""
    await context.store.buckets.head(request.caller, request.bucket or "")
    body = await request.read_body(CONFIGURATION_BYTES_MAX)
    rules = parse(body, "ServerSideEncryptionConfiguration").all("Rule")
    if len(rules) != 1:
        raise S3Error("MalformedXML")
    for default in rules[0].all("ApplyServerSideEncryptionByDefault"):
        algorithm = default.required(_ALGORITHM)
        if algorithm.startswith("aws:kms"):
            raise S3Error("NotImplemented", "Encryption with KMS keys is not available.")
        if algorithm != "AES256":
            raise S3Error("MalformedXML")
    await request.reply(200)


async def put_object_lock_configuration(context: Context, request: Request) -> None:
    """PutObjectLockConfiguration: only for buckets made with object lock, of which there are
    none."""
    await context.store.buckets.head(request.caller, request.bucket or "")
    message = "Object Lock configuration cannot be enabled on existing buckets"
    raise S3Error("InvalidBucketState", message)
