"""CopyObject and UploadPartCopy.

Owns the reading of ``x-amz-copy-source`` and the two directives. Refuses sources that are no bucket
and key, and a copy onto itself that changes nothing. Invariant: what is not replaced by a directive
is the source's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import unquote_to_bytes

from appliance.core.errors import S3Error
from appliance.objects.model import Attributes, CopySource
from appliance.s3.checksum_headers import checksum_elements, requested_algorithm
from appliance.s3.conditions import read_condition, write_condition
from appliance.s3.dates import iso_time
from appliance.s3.metadata import (
    ENCRYPTION_HEADERS,
    check_write_headers,
    content_headers,
    request_attributes,
    storage_class,
    version_header,
)
from appliance.s3.operation import Context, Finished, reply_when_done
from appliance.s3.parameters import invalid_argument, required_part_number
from appliance.s3.request import Request
from appliance.s3.tagging import header_tags
from appliance.s3.xml import document, element

_VERSION: Final = re.compile(r"\?versionId=([^?&]*)\Z")
_REDIRECT: Final = "x-amz-website-redirect-location"


def copy_source(request: Request) -> CopySource:
    """The source named by ``x-amz-copy-source``: ``[/]bucket/key[?versionId=id]``, percent-encoded
    or not. Raises ``InvalidArgument``."""
    header = request.headers.get("x-amz-copy-source", "")
    version_id = None
    if found := _VERSION.search(header):
        version_id = found.group(1)
        header = header[: found.start()]
        if not version_id:
            message = "Version id cannot be the empty string"
            raise invalid_argument("x-amz-copy-source", header, message)
    try:
        path = unquote_to_bytes(header.encode("latin-1", "replace")).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _bad_source(header) from error
    bucket, _, key = path.removeprefix("/").partition("/")
    if not bucket or not key:
        raise _bad_source(header)
    if bucket.startswith("arn:"):
        raise S3Error("NotImplemented", "Copying from access points is not available.")
    condition = read_condition(request, "x-amz-copy-source-")
    return CopySource(bucket, key, version_id, condition)


def _bad_source(header: str) -> S3Error:
    message = "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
    return invalid_argument("x-amz-copy-source", header, message)


async def copy_object(context: Context, request: Request) -> None:
    """CopyObject. A long copy keeps its connection alive."""
    check_write_headers(request)
    source = copy_source(request)
    replaces_metadata = _replaces(request, "x-amz-metadata-directive", "metadata")
    replaces_tags = _replaces(request, "x-amz-tagging-directive", "tagging")
    if not replaces_metadata:
        _check_changes(request, source)
    attributes = await _attributes(context, request, source, replaces_metadata=replaces_metadata)
    tags = header_tags(request) if replaces_tags else None
    await reply_when_done(context, request, _copied(context, request, source, attributes, tags))


async def _copied(
    context: Context,
    request: Request,
    source: CopySource,
    attributes: Attributes | None,
    tags: Mapping[str, str] | None,
) -> Finished:
    info = await context.store.objects.copy(
        request.caller,
        source,
        request.bucket or "",
        request.key or "",
        attributes=attributes,
        tags=tags,
        storage_class=storage_class(request),
        checksum_algorithm=requested_algorithm(request),
        condition=write_condition(request),
    )
    headers = {**ENCRYPTION_HEADERS, **version_header(info)}
    if source.version_id is not None:
        headers["x-amz-copy-source-version-id"] = source.version_id
    content = document(
        "CopyObjectResult",
        element("LastModified", iso_time(info.modified_ns)),
        element("ETag", f'"{info.etag}"'),
        checksum_elements(info.checksum),
    )
    return Finished(content, headers)


def _replaces(request: Request, header: str, noun: str) -> bool:
    directive = request.headers.get(header)
    if directive is None or directive.upper() == "COPY":
        return False
    if directive.upper() == "REPLACE":
        return True
    raise invalid_argument(header, directive, f"Unknown {noun} directive.")


def _check_changes(request: Request, source: CopySource) -> None:
    if source.version_id is not None or (source.bucket, source.key) != (
        request.bucket,
        request.key,
    ):
        return
    changing = ("x-amz-storage-class", _REDIRECT, "x-amz-server-side-encryption")
    if not any(name in request.headers for name in changing):
        message = (
            "This copy request is illegal because it is trying to copy an object to itself without"
            " changing the object's metadata, storage class, website redirect location or"
            " encryption attributes."
        )
        raise S3Error("InvalidRequest", message)


async def _attributes(
    context: Context, request: Request, source: CopySource, *, replaces_metadata: bool
) -> Attributes | None:
    """None to copy them. A redirect is never copied, and may be set on its own."""
    if replaces_metadata:
        return request_attributes(request, {})
    if _REDIRECT not in request.headers:
        return None
    opened = await context.store.objects.head(
        request.caller, source.bucket, source.key, version_id=source.version_id
    )
    headers = dict(opened.info.attributes.headers)
    headers[_REDIRECT] = content_headers(request)[_REDIRECT]
    return replace(opened.info.attributes, headers=headers)


async def upload_part_copy(context: Context, request: Request) -> None:
    """UploadPartCopy: a part from a range of another object."""
    check_write_headers(request)
    source = copy_source(request)
    number = required_part_number(request)
    await reply_when_done(context, request, _part_copied(context, request, source, number))


async def _part_copied(
    context: Context, request: Request, source: CopySource, number: int
) -> Finished:
    part = await context.store.uploads.copy_part(
        request.caller,
        source,
        request.headers.get("x-amz-copy-source-range"),
        request.bucket or "",
        request.key or "",
        request.query.get("uploadId", ""),
        number,
    )
    headers = dict(ENCRYPTION_HEADERS)
    if source.version_id is not None:
        headers["x-amz-copy-source-version-id"] = source.version_id
    content = document(
        "CopyPartResult",
        element("LastModified", iso_time(part.modified_ns)),
        element("ETag", f'"{part.etag}"'),
        checksum_elements(part.checksum, with_kind=False),
    )
    return Finished(content, headers)
