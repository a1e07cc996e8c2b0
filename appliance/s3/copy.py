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

from appliance.core.access import AclRequest
from appliance.core.errors import S3Error
from appliance.objects.model import Attributes, CopySource
from appliance.s3.acl import acl_of_headers
from appliance.s3.checksum_headers import checksum_elements, requested_algorithm
from appliance.s3.conditions import read_condition, write_condition
from appliance.s3.dates import iso_time
from appliance.s3.encryption import ENCRYPTION_HEADERS
from appliance.s3.metadata import (
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
_CHANGES: Final = ("x-amz-storage-class", _REDIRECT, "x-amz-server-side-encryption")


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


async def _check_source_owner(context: Context, request: Request, source: CopySource) -> None:
    """Raises ``AccessDenied`` when the source bucket is not whose the client thinks it is."""
    expected = request.headers.get("x-amz-source-expected-bucket-owner")
    if expected and (await context.store.buckets.owner(source.bucket)).user_id != expected:
        raise S3Error("AccessDenied")


async def copy_object(context: Context, request: Request) -> None:
    """CopyObject. A long copy keeps its connection alive."""
    check_write_headers(request)
    source = copy_source(request)
    acl = acl_of_headers(request)
    await _check_source_owner(context, request, source)
    if _replaces(request, "x-amz-metadata-directive", "metadata"):
        attributes: Attributes | None = request_attributes(request, {})
    else:
        attributes = await _kept_attributes(context, request, source)
    tags = None
    if _replaces(request, "x-amz-tagging-directive", "tagging"):
        tags = header_tags(request)
    work = _copied(context, request, source, attributes, tags, acl)
    await reply_when_done(context, request, work)


async def _copied(
    context: Context,
    request: Request,
    source: CopySource,
    attributes: Attributes | None,
    tags: Mapping[str, str] | None,
    acl: AclRequest,
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
        acl=acl,
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


async def _kept_attributes(
    context: Context, request: Request, source: CopySource
) -> Attributes | None:
    """The source's attributes where something beside them changes; None to just copy them.

    Raises ``InvalidRequest`` for a copy onto itself that asks for no change.
    """
    itself = source.version_id is None and (source.bucket, source.key) == (
        request.bucket,
        request.key,
    )
    changes = any(name in request.headers for name in _CHANGES)
    if itself and not changes:
        message = (
            "This copy request is illegal because it is trying to copy an object to itself without"
            " changing the object's metadata, storage class, website redirect location or"
            " encryption attributes."
        )
        raise S3Error("InvalidRequest", message)
    if not (itself or _REDIRECT in request.headers):
        return None
    opened = await context.store.objects.open(
        request.caller, source.bucket, source.key, version_id=source.version_id
    )
    headers = dict(opened.info.attributes.headers)
    headers.pop(_REDIRECT, None)
    if _REDIRECT in request.headers:
        headers[_REDIRECT] = content_headers(request)[_REDIRECT]
    return replace(opened.info.attributes, headers=headers)


async def upload_part_copy(context: Context, request: Request) -> None:
    """UploadPartCopy: a part from a range of another object."""
    check_write_headers(request)
    source = copy_source(request)
    await _check_source_owner(context, request, source)
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
