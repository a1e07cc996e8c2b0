"""Uploads in parts: create, upload a part, complete, abort.

Owns the documents of these four. Refuses part lists that are empty, unreadable or out of order
before the object layer sees them. Invariant: CompleteMultipartUpload answers with a plain status as
long as it can, and with white space and an ``Error`` document inside a 200 only after that.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from appliance.core.checksums import ChecksumKind
from appliance.core.errors import S3Error
from appliance.objects.model import CompletedPart
from appliance.s3.acl import acl_of_headers
from appliance.s3.body import RequestBody
from appliance.s3.checksum_headers import (
    checksum_elements,
    checksum_response,
    declared_checksum,
    part_checksum,
    requested_checksum,
    requested_kind,
)
from appliance.s3.conditions import write_condition
from appliance.s3.encryption import ENCRYPTION_HEADERS, check_encryption
from appliance.s3.metadata import (
    check_write_headers,
    request_attributes,
    version_header,
)
from appliance.s3.operation import (
    Context,
    Finished,
    reply_document,
    reply_when_done,
    xml_headers,
)
from appliance.s3.parameters import PART_NUMBER_MAX, invalid_argument, required_part_number
from appliance.s3.request import Request
from appliance.s3.tagging import header_tags
from appliance.s3.xml import DOCUMENT_BYTES_MAX, Document, document, element, parse

_SIZE_DIGITS_MAX: Final = 18


async def create_multipart_upload(context: Context, request: Request) -> None:
    """CreateMultipartUpload."""
    check_write_headers(request)
    wanted = requested_checksum(request)
    bucket, key = request.bucket or "", request.key or ""
    upload = await context.store.uploads.create(
        request.caller,
        bucket,
        key,
        request_attributes(request, header_tags(request)),
        checksum=wanted,
        acl=acl_of_headers(request),
    )
    headers = dict(ENCRYPTION_HEADERS)
    if wanted is not None:
        algorithm, kind = wanted
        headers["x-amz-checksum-algorithm"] = algorithm.value
        headers["x-amz-checksum-type"] = kind.value
    content = document(
        "InitiateMultipartUploadResult",
        element("Bucket", bucket),
        element("Key", key),
        element("UploadId", upload.upload_id),
    )
    await reply_document(request, content, xml_headers(headers))


async def upload_part(context: Context, request: Request) -> None:
    """UploadPart."""
    check_encryption(request)
    number = required_part_number(request)
    part = await context.store.uploads.put_part(
        request.caller,
        request.bucket or "",
        request.key or "",
        request.query.get("uploadId", ""),
        number,
        request.body,
    )
    headers = {"ETag": f'"{part.etag}"', **ENCRYPTION_HEADERS}
    if part.checksum is not None:
        headers[part.checksum.algorithm.header] = part.checksum.value
    await request.reply(200, headers)


async def complete_multipart_upload(context: Context, request: Request) -> None:
    """CompleteMultipartUpload; repeated, it answers as the first time."""
    if isinstance(request.body, RequestBody):
        request.body.disclaim_checksum()
    body = await request.read_body(DOCUMENT_BYTES_MAX)
    parts = _parts(parse(body, "CompleteMultipartUpload"))
    kind = requested_kind(request)
    size_bytes = _declared_size(request)
    await reply_when_done(context, request, _completed(context, request, parts, kind, size_bytes))


async def _completed(
    context: Context,
    request: Request,
    parts: list[CompletedPart],
    kind: ChecksumKind | None,
    size_bytes: int | None,
) -> Finished:
    bucket, key = request.bucket or "", request.key or ""
    info = await context.store.uploads.complete(
        request.caller,
        bucket,
        key,
        request.query.get("uploadId", ""),
        parts,
        condition=write_condition(request),
        checksum=declared_checksum(request),
        checksum_kind=kind,
        size_bytes=size_bytes,
    )
    content = document(
        "CompleteMultipartUploadResult",
        element("Location", request.origin + request.raw_path),
        element("Bucket", bucket),
        element("Key", key),
        element("ETag", f'"{info.etag}"'),
        checksum_elements(info.checksum),
    )
    headers = {**ENCRYPTION_HEADERS, **version_header(info), **checksum_response(info.checksum)}
    return Finished(content, headers)


def _parts(parsed: Document) -> list[CompletedPart]:
    parts = [_part(found.texts()) for found in parsed.all("Part")]
    if not 1 <= len(parts) <= PART_NUMBER_MAX:
        raise S3Error("MalformedXML")
    if any(earlier.number > later.number for earlier, later in pairwise(parts)):
        raise S3Error("InvalidPartOrder")
    # A client that sent a part twice may name it twice: the last one stands.
    return list({part.number: part for part in parts}.values())


def _part(texts: dict[str, str]) -> CompletedPart:
    number, etag = texts.get("PartNumber", ""), texts.get("ETag", "")
    if not etag or not (number.isascii() and number.isdigit()):
        raise S3Error("MalformedXML")
    if not 1 <= int(number[:9]) <= PART_NUMBER_MAX:
        message = f"PartNumber must be an integer between 1 and {PART_NUMBER_MAX}, inclusive"
        raise invalid_argument("partNumber", number, message)
    return CompletedPart(int(number), etag.strip('"'), part_checksum(texts))


def _declared_size(request: Request) -> int | None:
    text = request.headers.get("x-amz-mp-object-size")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > _SIZE_DIGITS_MAX:
        message = "Value for x-amz-mp-object-size header is invalid."
        raise S3Error("InvalidRequest", message)
    return int(text)


async def abort_multipart_upload(context: Context, request: Request) -> None:
    """AbortMultipartUpload."""
    await context.store.uploads.abort(
        request.caller,
        request.bucket or "",
        request.key or "",
        request.query.get("uploadId", ""),
    )
    await request.reply(204)
