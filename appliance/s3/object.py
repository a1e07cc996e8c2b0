"""Operations on one object's bytes: put, get, head, delete.

Owns ranges, parts and conditions of reads, and the headers around them. Refuses by headers before a
body is read. Invariant: a read's first bytes are in hand before its status goes out, so that lost
data is an error the client sees; from then on an error can only cut the connection.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from appliance.core.conditions import Verdict, evaluate_read, matches
from appliance.core.errors import S3Error, Unavailable
from appliance.core.ranges import ByteRange, Unsatisfiable, parse_range
from appliance.objects.content import OpenObject
from appliance.objects.model import ObjectInfo
from appliance.s3.acl import acl_of_headers
from appliance.s3.checksum_headers import checksum_response, wants_checksum
from appliance.s3.conditions import delete_condition, read_condition, write_condition
from appliance.s3.dates import http_time, parse_http_time
from appliance.s3.encryption import check_read_encryption
from appliance.s3.metadata import (
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

NOT_MODIFIED: Final = 304


async def put_object(context: Context, request: Request) -> None:
    """PutObject."""
    check_write_headers(request)
    info = await context.store.objects.put(
        request.caller,
        request.bucket or "",
        request.key or "",
        request.body,
        request_attributes(request, header_tags(request)),
        acl=acl_of_headers(request),
        condition=write_condition(request),
    )
    await request.reply(200, {**written_headers(info), **checksum_response(info.checksum)})


async def get_object(context: Context, request: Request) -> None:
    """GetObject: whole, a range, or a part; conditional."""
    answer = await _prepared(context, request)
    if answer.length == 0:
        await request.reply(answer.status, answer.headers)
        return
    try:
        first, pieces = await _begun(answer)
    except Unavailable:
        again = await _prepared(context, request)
        if again.opened.info == answer.opened.info or again.length == 0:
            raise
        # It was replaced between opening and reading: the client gets the new one.
        answer = again
        first, pieces = await _begun(answer)
    if pieces is None:
        await request.reply(answer.status, answer.headers, first)
        return
    async with aclosing(pieces):
        await request.start(answer.status, answer.headers, answer.length)
        await request.write(first)
        async for piece in pieces:
            await request.write(piece)


async def _begun(answer: _Answer) -> tuple[bytes, AsyncGenerator[bytes, None] | None]:
    """All of a small answer, or the first piece of a large one and those that follow."""
    whole = await answer.opened.read_at_once(answer.start, answer.length)
    if whole is not None:
        return whole, None
    pieces = answer.opened.read(answer.start, answer.length)
    return await anext(pieces, b""), pieces


async def head_object(context: Context, request: Request) -> None:
    """HeadObject: GetObject's headers and no body."""
    answer = await _prepared(context, request)
    if answer.status != NOT_MODIFIED:
        answer.headers["Content-Length"] = str(answer.length)
    await request.reply(answer.status, answer.headers)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a read will say; ``start`` and ``length`` lie in what was opened (object or part)."""

    opened: OpenObject
    status: int
    headers: dict[str, str]
    start: int
    length: int


async def _prepared(context: Context, request: Request) -> _Answer:
    check_read_encryption(request)
    overrides = response_overrides(request)
    number = part_number(request)
    if number is not None and "range" in request.headers:
        message = "Cannot specify both Range header and partNumber query parameter"
        raise S3Error("InvalidRequest", message)
    opened = await context.store.objects.open(
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
        return _Answer(opened, NOT_MODIFIED, headers, 0, 0)
    status, start, length = 200, 0, opened.size
    if number is not None:
        status = 206
        if info.parts:
            headers["x-amz-mp-parts-count"] = str(info.parts)
        if length:
            whole = ByteRange(opened.offset, length)
            headers["Content-Range"] = whole.content_range(info.size_bytes)
    elif part := _range(request, info):
        headers["Content-Range"] = part.content_range(info.size_bytes)
        return _Answer(opened, 206, headers, part.start, part.length)
    if wants_checksum(request):
        headers.update(checksum_response(opened.checksum))
    return _Answer(opened, status, headers, start, length)


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
