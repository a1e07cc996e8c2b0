"""GetObjectAttributes: what a client asks for of an object's size, checksum and parts.

Owns the document. Refuses attributes that do not exist. Invariant: only what was asked for is told.
"""

from __future__ import annotations

from typing import Final

from appliance.core.errors import S3Error
from appliance.objects.model import ObjectInfo, Page, Part
from appliance.s3.checksum_headers import checksum_elements
from appliance.s3.dates import http_time
from appliance.s3.encryption import check_read_encryption
from appliance.s3.metadata import version_header
from appliance.s3.operation import Context, reply_document, xml_headers
from appliance.s3.parameters import KEYS_MAX, invalid_argument, version_of
from appliance.s3.request import Request
from appliance.s3.xml import document, element

_KNOWN: Final = frozenset({"ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"})


async def get_object_attributes(context: Context, request: Request) -> None:
    """GetObjectAttributes."""
    check_read_encryption(request)
    wanted = _wanted(request)
    limit = min(_count(request, "x-amz-max-parts", KEYS_MAX), KEYS_MAX)
    after = _count(request, "x-amz-part-number-marker", 0)
    bucket, key, version_id = request.bucket or "", request.key or "", version_of(request)
    parts: Page[Part] = Page(())
    if "ObjectParts" in wanted:
        info, parts = await context.store.objects.parts(
            request.caller,
            bucket,
            key,
            version_id=version_id,
            after=after,
            limit=limit,
        )
    else:
        opened = await context.store.objects.open(
            request.caller, bucket, key, version_id=version_id
        )
        info = opened.info
    pieces: list[str] = []
    if "ETag" in wanted:
        pieces.append(element("ETag", info.etag))
    if "Checksum" in wanted and info.checksum is not None:
        pieces.append(f"<Checksum>{checksum_elements(info.checksum)}</Checksum>")
    if "ObjectParts" in wanted and info.parts:
        pieces.append(_object_parts(info, parts, after, limit))
    if "StorageClass" in wanted:
        pieces.append(element("StorageClass", info.attributes.storage_class))
    if "ObjectSize" in wanted:
        pieces.append(element("ObjectSize", str(info.size_bytes)))
    headers = {"Last-Modified": http_time(info.modified_ns), **version_header(info)}
    content = document("GetObjectAttributesResponse", *pieces)
    await reply_document(request, content, xml_headers(headers))


def _wanted(request: Request) -> set[str]:
    header = request.headers.get("x-amz-object-attributes")
    wanted = {name.strip() for name in (header or "").split(",") if name.strip()}
    if not wanted:
        message = "The x-amz-object-attributes header specifying the attributes to be retrieved"
        name = "x-amz-object-attributes"
        raise invalid_argument(name, header or "", f"{message} is either missing or empty")
    if not wanted <= _KNOWN:
        message = "Invalid attribute name specified."
        raise invalid_argument("x-amz-object-attributes", header or "", message)
    return wanted


def _count(request: Request, name: str, default: int) -> int:
    text = request.headers.get(name)
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise S3Error("InvalidArgument", f"{name} must be a non-negative integer")
    return int(text)


def _object_parts(info: ObjectInfo, page: Page[Part], after: int, limit: int) -> str:
    pieces = [
        f"<PartsCount>{info.parts}</PartsCount>",
        f"<PartNumberMarker>{after}</PartNumberMarker>",
        f"<NextPartNumberMarker>{page.items[-1].number if page.items else 0}"
        "</NextPartNumberMarker>",
        f"<MaxParts>{limit}</MaxParts>",
        f"<IsTruncated>{'true' if page.truncated else 'false'}</IsTruncated>",
    ]
    pieces.extend(
        f"<Part><PartNumber>{part.number}</PartNumber><Size>{part.size_bytes}</Size>"
        f"{checksum_elements(part.checksum, with_kind=False)}</Part>"
        for part in page.items
    )
    return f"<ObjectParts>{''.join(pieces)}</ObjectParts>"
