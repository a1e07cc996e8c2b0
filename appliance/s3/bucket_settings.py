"""Bucket settings that clients ask for and this appliance holds fixed.

Owns the truthful answer to each ``GET ?subresource`` probe: what is always on (encryption) is shown
as set, what does not exist is refused with the code AWS uses for "never configured". Refuses nobody
but those who may not see the setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from appliance.core.access import Action
from appliance.core.errors import S3Error
from appliance.s3.bucket import CLASSIC_REGION, CONFIGURATION_BYTES_MAX
from appliance.s3.operation import Context, reply_document
from appliance.s3.request import Request
from appliance.s3.xml import document, element, parse

_ENCRYPTED: Final = (
    "<Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm>"
    "</ApplyServerSideEncryptionByDefault><BucketKeyEnabled>false</BucketKeyEnabled></Rule>"
)

_FIXED: Final[Mapping[str, bytes]] = {
    "accelerate": document("AccelerateConfiguration"),
    "encryption": document("ServerSideEncryptionConfiguration", _ENCRYPTED),
    "logging": document("BucketLoggingStatus"),
    "notification": document("NotificationConfiguration"),
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
    "website": "NoSuchWebsiteConfiguration",
}
"""Subresource → the code that says it was never configured."""

_READING: Final[Mapping[str, Action]] = {
    "accelerate": Action.GET_ACCELERATE,
    "cors": Action.GET_CORS,
    "encryption": Action.GET_ENCRYPTION,
    "lifecycle": Action.GET_LIFECYCLE,
    "logging": Action.GET_LOGGING,
    "notification": Action.GET_NOTIFICATION,
    "object-lock": Action.GET_OBJECT_LOCK,
    "policy": Action.GET_POLICY,
    "replication": Action.GET_REPLICATION,
    "requestPayment": Action.GET_REQUEST_PAYMENT,
    "versioning": Action.GET_VERSIONING,
    "website": Action.GET_WEBSITE,
}
_DELETING: Final[Mapping[str, Action]] = {
    "cors": Action.PUT_CORS,
    "encryption": Action.PUT_ENCRYPTION,
    "lifecycle": Action.PUT_LIFECYCLE,
    "policy": Action.DELETE_POLICY,
    "replication": Action.PUT_REPLICATION,
    "website": Action.DELETE_WEBSITE,
}
"""Subresource → the permission it takes."""

_ALGORITHM: Final = "SSEAlgorithm"


async def get_bucket_setting(context: Context, request: Request, subresource: str) -> None:
    """GetBucket<setting> of everything that is the same for every bucket."""
    name = request.bucket or ""
    await context.store.buckets.check(request.caller, name, _READING[subresource])
    if subresource in _FIXED:
        await reply_document(request, _FIXED[subresource])
        return
    raise S3Error(_NEVER_SET[subresource], fields={"BucketName": name})


async def delete_bucket_setting(context: Context, request: Request, subresource: str) -> None:
    """DeleteBucket<setting> of what was never set, or is the default: done before it was asked."""
    action = _DELETING[subresource]
    await context.store.buckets.check(request.caller, request.bucket or "", action)
    await request.reply(204)


async def get_bucket_location(context: Context, request: Request) -> None:
    """GetBucketLocation: the constraint the bucket was made with; without one the region, of which
    us-east-1 is written as the empty constraint."""
    name, action = request.bucket or "", Action.GET_LOCATION
    bucket = await context.store.buckets.check(request.caller, name, action)
    region = context.settings.region
    constraint = bucket.region or ("" if region == CLASSIC_REGION else region)
    await reply_document(request, document("LocationConstraint", constraint))


async def put_bucket_encryption(context: Context, request: Request) -> None:
    """PutBucketEncryption: AES256, which is so already; KMS keys are refused."""
    name, action = request.bucket or "", Action.PUT_ENCRYPTION
    await context.store.buckets.check(request.caller, name, action)
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
    name, action = request.bucket or "", Action.PUT_OBJECT_LOCK
    await context.store.buckets.check(request.caller, name, action)
    message = "Object Lock configuration cannot be enabled on existing buckets"
    raise S3Error("InvalidBucketState", message)
