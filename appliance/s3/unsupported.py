"""What clients ask for and this appliance does not do, each with the answer they understand.

Owns those refusals. Invariant: a thing that protects data (retention, legal hold) is never accepted
and forgotten.
"""

from __future__ import annotations

from appliance.core.errors import S3Error
from appliance.s3.metadata import NO_LOCK
from appliance.s3.operation import Context
from appliance.s3.request import Request


async def object_lock_of_object(context: Context, request: Request) -> None:
    """Get and PutObjectRetention, Get and PutObjectLegalHold: the bucket has no object lock."""
    await context.store.objects.open(request.caller, request.bucket or "", request.key or "")
    raise S3Error("InvalidRequest", NO_LOCK)


async def restore_object(context: Context, request: Request) -> None:
    """RestoreObject: nothing here is ever archived."""
    await context.store.objects.open(request.caller, request.bucket or "", request.key or "")
    message = "Restore is not allowed for the object's current storage class"
    raise S3Error("InvalidObjectState", message)


async def preflight(context: Context, request: Request) -> None:
    """A CORS preflight: answered before who asks is known, and no bucket has rules."""
    del context
    if "origin" not in request.headers:
        message = "Insufficient information. Origin request header needed."
        raise S3Error("BadRequest", message)
    if "access-control-request-method" not in request.headers:
        raise S3Error("BadRequest", "Invalid Access-Control-Request-Method: null")
    raise S3Error("AccessForbidden", "CORSResponse: CORS is not enabled for this bucket.")


async def get_object_torrent(context: Context, request: Request) -> None:
    """GetObjectTorrent: no object has a torrent file."""
    await context.store.objects.open(request.caller, request.bucket or "", request.key or "")
    raise S3Error("NoSuchKey", "There is no torrent file of this object.")


def not_implemented(what: str) -> S3Error:
    """The refusal of a known operation, by its name."""
    return S3Error("NotImplemented", f"{what} is not implemented.", fields={"Header": what})


def method_not_allowed(method: str, allowed: tuple[str, ...]) -> S3Error:
    """405 with the methods that are allowed."""
    return S3Error(
        "MethodNotAllowed",
        fields={"Method": method, "ResourceType": "SERVICE"},
        headers={"Allow": ", ".join(allowed)},
    )
