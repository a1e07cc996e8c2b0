"""Operations on buckets: create, head, delete.

Owns the meaning of a location constraint and of re-creating one's own bucket. Refuses constraints
of other regions and bucket features that would silently not exist. Invariant: a bucket that was
answered with 200 exists on both drives.
"""

from __future__ import annotations

import re
from typing import Final

from appliance.core.errors import S3Error
from appliance.s3.acl import acl_of_headers
from appliance.s3.bucket_access import ownership_of
from appliance.s3.operation import Context
from appliance.s3.request import Request
from appliance.s3.xml import parse

CONFIGURATION_BYTES_MAX: Final = 64 * 1024
CLASSIC_REGION: Final = "us-east-1"
"""Here re-creating one's own bucket is a success; everywhere else it is a conflict."""

_REGION: Final = re.compile(r"[a-z]{2}(-[a-z]+)+-\d|EU")


async def create_bucket(context: Context, request: Request) -> None:
    """CreateBucket. A missing constraint is accepted in every region: many devices never send
    one."""
    body = await request.read_body(CONFIGURATION_BYTES_MAX)
    acl = acl_of_headers(request)
    ownership = request.headers.get("x-amz-object-ownership")
    if request.headers.get("x-amz-bucket-object-lock-enabled", "").lower() == "true":
        raise S3Error("NotImplemented", "Object lock is not available.")
    region = context.settings.region
    constraint = _constraint(body, region) if body.strip() else ""
    caller = request.caller
    if caller is None:
        raise S3Error("AccessDenied")
    name = request.bucket or ""
    _, created = await context.store.buckets.create(
        caller,
        name,
        region=constraint,
        acl=acl,
        ownership=ownership_of(ownership) if ownership else None,
    )
    if not created and region != CLASSIC_REGION:
        raise S3Error("BucketAlreadyOwnedByYou", fields={"BucketName": name})
    await request.reply(200, {"Location": f"/{name}"})


def _constraint(body: bytes, region: str) -> str:
    """The location constraint as given, empty for none."""
    configuration = parse(body, "CreateBucketConfiguration")
    for feature in ("Location", "Bucket", "Tags"):
        if any(True for found in configuration.all(feature) for _ in found):
            raise S3Error("NotImplemented", f"{feature} of a new bucket is not available.")
    constraint = configuration.optional("LocationConstraint") or ""
    if constraint in ("", region):
        return constraint
    fields = {"LocationConstraint": constraint}
    if _REGION.fullmatch(constraint) is None:
        raise S3Error("InvalidLocationConstraint", fields=fields)
    message = (
        f"The {constraint} location constraint is incompatible for the region specific endpoint"
        " this request was sent to."
    )
    raise S3Error("IllegalLocationConstraintException", message, fields=fields)


async def head_bucket(context: Context, request: Request) -> None:
    """HeadBucket: there, and whose."""
    bucket = await context.store.buckets.head(request.caller, request.bucket or "")
    headers = {
        "x-amz-bucket-region": bucket.region or context.settings.region,
        "x-amz-access-point-alias": "false",
        "Content-Type": "application/xml",
    }
    await request.reply(200, headers)


async def delete_bucket(context: Context, request: Request) -> None:
    """DeleteBucket: only an empty one."""
    await context.store.buckets.delete(request.caller, request.bucket or "")
    await request.reply(204)
