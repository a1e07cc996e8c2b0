"""Object ownership and the block of public access: how far access lists of a bucket reach.

Owns the documents of both, and the policy status, which tells whether a bucket is public. Refuses
documents that are none. Invariant: what is shown as blocked is what is blocked, whoever set it: the
bucket's owner or the appliance as a whole.
"""

from __future__ import annotations

from typing import Final

from appliance.core.access import Ownership, PublicBlock
from appliance.core.errors import S3Error
from appliance.s3.operation import Context, reply_document
from appliance.s3.request import Request
from appliance.s3.xml import document, element, parse

_BLOCKS: Final = {
    "BlockPublicAcls": PublicBlock.BLOCK_ACLS,
    "IgnorePublicAcls": PublicBlock.IGNORE_ACLS,
    "BlockPublicPolicy": PublicBlock.BLOCK_POLICY,
    "RestrictPublicBuckets": PublicBlock.RESTRICT_BUCKETS,
}
_DOCUMENT_BYTES_MAX: Final = 64 * 1024


def ownership_of(text: str) -> Ownership:
    """An ownership by its name; raises ``InvalidArgument``."""
    try:
        return Ownership(text)
    except ValueError as error:
        fields = {"ArgumentName": "x-amz-object-ownership", "ArgumentValue": text}
        raise S3Error("InvalidArgument", "Invalid x-amz-object-ownership", fields=fields) from error


async def get_ownership_controls(context: Context, request: Request) -> None:
    """GetBucketOwnershipControls."""
    name = request.bucket or ""
    ownership = await context.store.settings.ownership(request.caller, name)
    if ownership is None:
        raise S3Error("OwnershipControlsNotFoundError", fields={"BucketName": name})
    rule = f"<Rule>{element('ObjectOwnership', ownership.value)}</Rule>"
    await reply_document(request, document("OwnershipControls", rule))


async def put_ownership_controls(context: Context, request: Request) -> None:
    """PutBucketOwnershipControls."""
    body = await request.read_body(_DOCUMENT_BYTES_MAX)
    rules = parse(body, "OwnershipControls").all("Rule")
    if len(rules) != 1:
        raise S3Error("MalformedXML")
    try:
        ownership = Ownership(rules[0].required("ObjectOwnership"))
    except ValueError as error:
        raise S3Error("MalformedXML") from error
    await context.store.settings.put_ownership(request.caller, request.bucket or "", ownership)
    await request.reply(200)


async def delete_ownership_controls(context: Context, request: Request) -> None:
    """DeleteBucketOwnershipControls."""
    await context.store.settings.put_ownership(request.caller, request.bucket or "", None)
    await request.reply(204)


async def get_public_access_block(context: Context, request: Request) -> None:
    """GetPublicAccessBlock."""
    name = request.bucket or ""
    block = await context.store.settings.public_block(request.caller, name)
    if block is None:
        raise S3Error("NoSuchPublicAccessBlockConfiguration", fields={"BucketName": name})
    pieces = [element(name, "true" if flag in block else "false") for name, flag in _BLOCKS.items()]
    await reply_document(request, document("PublicAccessBlockConfiguration", *pieces))


async def put_public_access_block(context: Context, request: Request) -> None:
    """PutPublicAccessBlock: what is not named is not blocked."""
    body = await request.read_body(_DOCUMENT_BYTES_MAX)
    parsed = parse(body, "PublicAccessBlockConfiguration")
    block = PublicBlock.NOTHING
    for name, flag in _BLOCKS.items():
        text = (parsed.optional(name) or "false").lower()
        if text not in {"true", "false"}:
            raise S3Error("MalformedXML")
        if text == "true":
            block |= flag
    await context.store.settings.put_public_block(request.caller, request.bucket or "", block)
    await request.reply(200)


async def delete_public_access_block(context: Context, request: Request) -> None:
    """DeletePublicAccessBlock."""
    await context.store.settings.put_public_block(request.caller, request.bucket or "", None)
    await request.reply(204)


async def get_policy_status(context: Context, request: Request) -> None:
    """GetBucketPolicyStatus."""
    public = await context.store.settings.is_public(request.caller, request.bucket or "")
    content = document("PolicyStatus", element("IsPublic", "true" if public else "false"))
    await reply_document(request, content)
