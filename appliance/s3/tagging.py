"""Tags of objects: GetObjectTagging, PutObjectTagging, DeleteObjectTagging, ``x-amz-tagging``.

Owns the document. Refuses what is not one, and a key given twice; the limits on tags are the object
layer's.
"""

from __future__ import annotations

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
    pieces = (
        f"<Tag>{element('Key', name)}{element('Value', value)}</Tag>"
        for name, value in sorted(tags.items())
    )
    content = document("Tagging", "<TagSet>", *pieces, "</TagSet>")
    await reply_document(request, content, xml_headers(version_header(info)))


async def put_object_tagging(context: Context, request: Request) -> None:
    """PutObjectTagging: replaces the whole set."""
    tags = _tags_of(await request.read_body(TAGGING_BYTES_MAX))
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


def _tags_of(body: bytes) -> dict[str, str]:
    sets = parse(body, "Tagging").all("TagSet")
    if len(sets) != 1:
        raise S3Error("MalformedXML")
    return check_tags((tag.exact("Key"), tag.exact("Value")) for tag in sets[0].all("Tag"))
