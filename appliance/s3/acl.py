"""Access control lists, as far as this appliance has them: the owner holds everything.

Owns which ACL headers and documents are harmless (they say what is true anyway) and which ask for
a grant that would silently not exist. Refuses the latter with ``AccessControlListNotSupported``,
as AWS does for buckets with owner enforcement.
"""

from __future__ import annotations

from typing import Final

from appliance.core.errors import S3Error
from appliance.core.ports import Owner
from appliance.s3.operation import Context, reply_document
from appliance.s3.request import Request
from appliance.s3.xml import INSTANCE_NAMESPACE, Document, document, element, owner_element, parse

_HARMLESS: Final = frozenset({"", "private", "bucket-owner-full-control", "bucket-owner-read"})
_KNOWN: Final = _HARMLESS | {
    "authenticated-read",
    "aws-exec-read",
    "log-delivery-write",
    "public-read",
    "public-read-write",
}
_DOCUMENT_BYTES_MAX: Final = 64 * 1024


def check_acl_headers(request: Request) -> None:
    """Accept ``x-amz-acl`` where it grants nothing new.

    Raises ``InvalidArgument`` for an unknown canned ACL, ``AccessControlListNotSupported`` for one
    that would grant something.
    """
    canned = request.headers.get("x-amz-acl")
    if canned is not None and canned not in _HARMLESS:
        if canned not in _KNOWN:
            raise _invalid_canned(canned)
        raise S3Error("AccessControlListNotSupported")
    if any(name.startswith("x-amz-grant-") for name in request.headers.by_lower_name):
        raise S3Error("AccessControlListNotSupported")


def _invalid_canned(canned: str) -> S3Error:
    fields = {"ArgumentName": "x-amz-acl", "ArgumentValue": canned}
    return S3Error("InvalidArgument", fields=fields)


def control_policy(owner: Owner) -> bytes:
    """The one ACL there is: FULL_CONTROL for the owner."""
    grantee = (
        f'<Grantee xmlns:xsi="{INSTANCE_NAMESPACE}" xsi:type="CanonicalUser">'
        f"{element('ID', owner.user_id)}{element('DisplayName', owner.display_name)}</Grantee>"
    )
    return document(
        "AccessControlPolicy",
        owner_element("Owner", owner.user_id, owner.display_name),
        f"<AccessControlList><Grant>{grantee}{element('Permission', 'FULL_CONTROL')}</Grant>"
        "</AccessControlList>",
    )


async def put_bucket_acl(context: Context, request: Request) -> None:
    """PutBucketAcl: accepted where it says what is so already."""
    bucket = await context.store.buckets.head(request.caller, request.bucket or "")
    await _accept_acl(request, bucket.owner)


async def get_object_acl(context: Context, request: Request) -> None:
    """GetObjectAcl: the owner's FULL_CONTROL."""
    owner = await _object_owner(context, request)
    await reply_document(request, control_policy(owner))


async def put_object_acl(context: Context, request: Request) -> None:
    """PutObjectAcl: accepted where it says what is so already."""
    await _accept_acl(request, await _object_owner(context, request))


async def _object_owner(context: Context, request: Request) -> Owner:
    opened = await context.store.objects.open(
        request.caller,
        request.bucket or "",
        request.key or "",
        version_id=request.query.get("versionId"),
    )
    return opened.info.owner


async def _accept_acl(request: Request, owner: Owner) -> None:
    body = await request.read_body(_DOCUMENT_BYTES_MAX)
    check_acl_headers(request)
    if "x-amz-acl" not in request.headers:
        if not body:
            raise S3Error("MissingSecurityHeader")
        _check_document(parse(body, "AccessControlPolicy"), owner)
    await request.reply(200)


def _check_document(policy: Document, owner: Owner) -> None:
    lists = policy.all("AccessControlList")
    if len(lists) != 1:
        raise S3Error("MalformedACLError")
    for grant in lists[0].all("Grant"):
        grantees = grant.all("Grantee")
        if len(grantees) != 1 or grant.optional("Permission") is None:
            raise S3Error("MalformedACLError")
        if grantees[0].optional("ID") != owner.user_id:
            raise S3Error("AccessControlListNotSupported")
