"""DeleteObjects: up to a thousand keys in one request.

Owns the document and the outcome of each key. Refuses a body without a checksum (a damaged list
would delete something else) and a list that is empty or too long. Invariant: every key of the
request has an outcome; only ``Quiet`` hides successes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from appliance.core.conditions import UNCONDITIONAL, WriteCondition
from appliance.core.errors import S3Error
from appliance.objects.model import Deleted
from appliance.s3.checksum_headers import CHECKSUM_HEADERS
from appliance.s3.dates import parse_http_time
from appliance.s3.errors import message_of
from appliance.s3.operation import Context, reply_document
from appliance.s3.request import Request
from appliance.s3.xml import DOCUMENT_BYTES_MAX, Document, document, element, parse

KEYS_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class _Wanted:
    key: str
    version_id: str | None
    condition: WriteCondition


async def delete_objects(context: Context, request: Request) -> None:
    """DeleteObjects."""
    headers = request.headers
    if (
        "content-md5" not in headers
        and request.body.checksum_algorithm is None
        and not any(name in headers for name in CHECKSUM_HEADERS)
    ):
        message = "Missing required header for this request: Content-MD5 OR x-amz-checksum-*"
        raise S3Error("InvalidRequest", message)
    parsed = parse(await request.read_body(DOCUMENT_BYTES_MAX), "Delete")
    wanted = [_wanted(found) for found in parsed.all("Object")]
    if not 1 <= len(wanted) <= KEYS_MAX:
        raise S3Error("MalformedXML")
    quiet = (parsed.optional("Quiet") or "").lower() == "true"
    outcomes = await _outcomes(context, request, wanted)
    pieces = [
        _piece(item, outcome)
        for item, outcome in zip(wanted, outcomes, strict=True)
        if not (quiet and isinstance(outcome, Deleted))
    ]
    await reply_document(request, document("DeleteResult", *pieces))


def _wanted(found: Document) -> _Wanted:
    key = found.exact("Key")
    if not key:
        raise S3Error("MalformedXML")
    modified = found.optional("LastModifiedTime")
    size = found.optional("Size")
    modified_ns = parse_http_time(modified)
    if (modified and modified_ns is None) or (size and not (size.isascii() and size.isdigit())):
        raise S3Error("MalformedXML")
    condition = WriteCondition(
        if_match=found.optional("ETag") or None,
        if_match_modified_ns=modified_ns,
        if_match_size_bytes=int(size[:19]) if size else None,
    )
    return _Wanted(key, found.optional("VersionId") or None, condition)


async def _outcomes(
    context: Context, request: Request, wanted: Sequence[_Wanted]
) -> list[Deleted | S3Error]:
    """Keys without a condition go together, the others one by one."""
    plain = [item for item in wanted if item.condition == UNCONDITIONAL]
    together = iter(
        await context.store.objects.delete_many(
            request.caller, request.bucket or "", [(item.key, item.version_id) for item in plain]
        )
    )
    return [
        next(together)
        if item.condition == UNCONDITIONAL
        else await _delete_matching(context, request, item)
        for item in wanted
    ]


async def _delete_matching(context: Context, request: Request, item: _Wanted) -> Deleted | S3Error:
    try:
        return await context.store.objects.delete(
            request.caller,
            request.bucket or "",
            item.key,
            version_id=item.version_id,
            condition=item.condition,
        )
    except S3Error as error:
        return error


def _piece(item: _Wanted, outcome: Deleted | S3Error) -> str:
    key = element("Key", item.key)
    version = "" if item.version_id is None else element("VersionId", item.version_id)
    if isinstance(outcome, S3Error):
        code = element("Code", outcome.code)
        return f"<Error>{key}{version}{code}{element('Message', message_of(outcome))}</Error>"
    marker = ""
    if outcome.is_delete_marker:
        marker = "<DeleteMarker>true</DeleteMarker>"
        if outcome.version_id is not None:
            marker += element("DeleteMarkerVersionId", outcome.version_id)
    return f"<Deleted>{key}{version}{marker}</Deleted>"
