"""Tags of objects and buckets: Get, Put and Delete of both, and ``x-amz-tagging``.

Owns the document. Refuses what is not one, and a key given twice; the limits on tags are the object
layer's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from appliance.core.errors import S3Error
from appliance.core.tagging import check_tags, parse_tagging
from appliance.s3.metadata import version_header
from appliance.s3.operation import Context, reply_document, xml_headers
from appliance.s3.parameters import version_of
from appliance.s3.request import Request
from appliance.s3.xml import document, element, parse

TAGGING_BYTES_MAX: Final = 64 * 1024


def header_tags(request: Request) -> dict[str, str]:
    """The tags of ``x-amz-tagging``, none where it is absent. Raises ``InvalidTag``."""
    text = request.headers.get("x-amz-tagging")
    return check_tags(parse_tagging(text)) if text else {}


async def get_object_tagging(context: Context, request: Request) -> None:
    """GetObjectTagging."""
    info, tags = await context.store.tags.get(
        request.caller, request.bucket or "", request.key or "", version_id=version_of(request)
    )
    await reply_document(request, _tagging(tags), xml_headers(version_header(info)))


async def put_object_tagging(context: Context, request: Request) -> None:
    """PutObjectTagging: replaces the whole set."""
    tags = _tags_of(await request.read_body(TAGGING_BYTES_MAX), context.store.limits.tags)
    info = await context.store.tags.put(
        request.caller,
        request.bucket or "",
        request.key or "",
        tags,
        version_id=version_of(request),
    )
    await request.reply(200, version_header(info))


async def delete_object_tagging(context: Context, request: Request) -> None:
    """DeleteObjectTagging."""
    info = await context.store.tags.delete(
        request.caller, request.bucket or "", request.key or "", version_id=version_of(request)
    )
    await request.reply(204, version_header(info))


async def get_bucket_tagging(context: Context, request: Request) -> None:
    """GetBucketTagging."""
    name = request.bucket or ""
    tags = await context.store.settings.tags(request.caller, name)
    if not tags:
        raise S3Error("NoSuchTagSet", fields={"BucketName": name})
    await reply_document(request, _tagging(tags))


async def put_bucket_tagging(context: Context, request: Request) -> None:
    """PutBucketTagging: replaces the whole set."""
    limit = context.store.limits.bucket_tags
    tags = _tags_of(await request.read_body(TAGGING_BYTES_MAX), limit)
    await context.store.settings.put_tags(request.caller, request.bucket or "", tags)
    await request.reply(204)


async def delete_bucket_tagging(context: Context, request: Request) -> None:
    """DeleteBucketTagging."""
    await context.store.settings.put_tags(request.caller, request.bucket or "", {})
    await request.reply(204)


def _tagging(tags: Mapping[str, str]) -> bytes:
    pieces = (
        f"<Tag>{element('Key', name)}{element('Value', value)}</Tag>"
        for name, value in sorted(tags.items())
    )
    return document("Tagging", "<TagSet>", *pieces, "</TagSet>")


def _tags_of(body: bytes, count_max: int) -> dict[str, str]:
    sets = parse(body, "Tagging").all("TagSet")
    if len(sets) != 1:
        raise S3Error("MalformedXML")
    pairs = ((tag.exact("Key"), tag.exact("Value")) for tag in sets[0].all("Tag"))
    return check_tags(pairs, count_max=count_max)
