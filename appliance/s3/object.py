"""Operations on one object's bytes: put, get, head, delete.

Owns ranges, parts and conditions of reads, and the headers around them. Refuses by headers before a
body is read. Invariant: a read's first bytes are in hand before its status goes out, so that lost
data is an error the client sees; from then on an error can only cut the connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from appliance.core.conditions import Verdict, evaluate_read, matches
from appliance.core.errors import S3Error
from appliance.core.ranges import ByteRange, Unsatisfiable, parse_range
from appliance.objects.model import ObjectInfo
from appliance.objects.object import OpenObject
from appliance.s3.checksum_headers import checksum_response, wants_checksum
from appliance.s3.conditions import delete_condition, read_condition, write_condition
from appliance.s3.dates import http_time, parse_http_time
from appliance.s3.metadata import (
    check_encryption,
    check_write_headers,
    object_headers,
    request_attributes,
    response_overrides,
    version_header,
    written_headers,
)
from appliance.s3.operation import Context
from appliance.s3.parameters import part_number, version_of
from appliance.s3.request import Request
from appliance.s3.tagging import header_tags


async def put_object(context: Context, request: Request) -> None:
    """PutObject."""
    check_write_headers(request)
    info = await context.store.objects.put(
        request.caller,
        request.bucket or "",
        request.key or "",
        request.body,
        request_attributes(request, header_tags(request)),
        condition=write_condition(request),
    )
    await request.reply(200, {**written_headers(info), **checksum_response(info.checksum)})


async def get_object(context: Context, request: Request) -> None:
    """GetObject: whole, a range, or a part; conditional."""
    opened, status, headers, part = await _prepared(context, request)
    if status == 304:
        await request.reply(304, headers)
        return
    if part.length == 0:
        await request.reply(status, headers)
        return
    pieces = opened.read(part.start, part.length)
    first = await anext(pieces, b"")
    if len(first) == part.length:
        await request.reply(status, headers, first)
        return
    await request.start(status, headers, part.length)
    await _stream(request, first, pieces)


async def _stream(request: Request, first: bytes, pieces: AsyncIterator[bytes]) -> None:
    await request.write(first)
    async for piece in pieces:
        await request.write(piece)


async def head_object(context: Context, request: Request) -> None:
    """HeadObject: GetObject's headers and no body."""
    _, status, headers, part = await _prepared(context, request)
    if status != 304:
        headers["Content-Length"] = str(part.length)
    await request.reply(status, headers)


async def _prepared(
    context: Context, request: Request
) -> tuple[OpenObject, int, dict[str, str], ByteRange]:
    """The object, the status, the headers, and which of its bytes (relative to the part if one was
    asked for)."""
    check_encryption(request)
    overrides = response_overrides(request)
    number = part_number(request)
    if number is not None and "range" in request.headers:
        message = "Cannot specify both Range header and partNumber query parameter"
        raise S3Error("InvalidRequest", message)
    opening = context.store.objects.head if request.method == "HEAD" else context.store.objects.open
    opened = await opening(
        request.caller,
        request.bucket or "",
        request.key or "",
        version_id=version_of(request),
        part_number=number,
    )
    info = opened.info
    headers = {**object_headers(info), **version_header(info), **overrides}
    if _not_modified(request, info):
        for name in ("Content-Type", "Accept-Ranges"):
            headers.pop(name, None)
        return opened, 304, headers, ByteRange(0, 0)
    if number is not None:
        if info.parts:
            headers["x-amz-mp-parts-count"] = str(info.parts)
        if opened.size:
            whole = ByteRange(opened.offset, opened.size)
            headers["Content-Range"] = whole.content_range(info.size_bytes)
        return opened, 206, headers, ByteRange(0, opened.size)
    part = _range(request, info)
    if part is not None:
        headers["Content-Range"] = part.content_range(info.size_bytes)
        return opened, 206, headers, part
    if wants_checksum(request):
        headers.update(checksum_response(info.checksum))
    return opened, 200, headers, ByteRange(0, info.size_bytes)


def _not_modified(request: Request, info: ObjectInfo) -> bool:
    verdict = evaluate_read(read_condition(request), info.etag, info.modified_ns)
    if verdict is Verdict.PRECONDITION_FAILED:
        failed = "If-Match" if "if-match" in request.headers else "If-Unmodified-Since"
        raise S3Error("PreconditionFailed", fields={"Condition": failed})
    return verdict is Verdict.NOT_MODIFIED


def _range(request: Request, info: ObjectInfo) -> ByteRange | None:
    header = request.headers.get("range")
    if header is None or not _range_still_valid(request, info):
        return None
    try:
        return parse_range(header, info.size_bytes)
    except Unsatisfiable as error:
        raise S3Error(
            "InvalidRange",
            fields={"RangeRequested": header, "ActualObjectSize": str(info.size_bytes)},
            headers={"Content-Range": f"bytes */{info.size_bytes}"},
        ) from error


def _range_still_valid(request: Request, info: ObjectInfo) -> bool:
    """If-Range: a client that resumes must not get the rest of another version."""
    header = request.headers.get("if-range")
    if header is None:
        return True
    since_ns = parse_http_time(header)
    if since_ns is not None:
        return http_time(since_ns) == http_time(info.modified_ns)
    return matches(header, info.etag)


async def delete_object(context: Context, request: Request) -> None:
    """DeleteObject: a missing key is a success."""
    deleted = await context.store.objects.delete(
        request.caller,
        request.bucket or "",
        request.key or "",
        version_id=version_of(request),
        condition=delete_condition(request),
    )
    headers: dict[str, str] = {}
    if deleted.version_id is not None:
        headers["x-amz-version-id"] = deleted.version_id
    if deleted.is_delete_marker:
        headers["x-amz-delete-marker"] = "true"
    await request.reply(204, headers)
