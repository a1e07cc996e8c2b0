"""Object attributes in request and response headers.

Owns the way from headers to what is stored with an object and back: content headers, user
metadata, storage class. Refuses lock headers and storage classes that do not exist. Invariant: user
metadata comes back with the bytes it came with, except that non-ASCII UTF-8 is written as RFC 2047
encoded words, as AWS does.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Final

from appliance.core.errors import S3Error
from appliance.objects.model import Attributes, ObjectInfo
from appliance.s3.dates import http_time
from appliance.s3.encryption import ENCRYPTION_HEADERS, check_encryption
from appliance.s3.request import NO_QUERY, Request

DEFAULT_CONTENT_TYPE: Final = "binary/octet-stream"
METADATA_PREFIX: Final = "x-amz-meta-"

_STORED_HEADERS: Final = (
    "cache-control",
    "content-disposition",
    "content-language",
    "expires",
    "x-amz-website-redirect-location",
)
_RESPONSE_NAMES: Final = {
    "cache-control": "Cache-Control",
    "content-disposition": "Content-Disposition",
    "content-encoding": "Content-Encoding",
    "content-language": "Content-Language",
    "expires": "Expires",
}
_IMMEDIATE_CLASSES: Final = frozenset(
    {
        "STANDARD",
        "REDUCED_REDUNDANCY",
        "STANDARD_IA",
        "ONEZONE_IA",
        "INTELLIGENT_TIERING",
        "GLACIER_IR",
    }
)
"""Stored as given: a client may read any of them at once. An archive class would make it wait for
a restore that never comes, so those are refused."""
NO_LOCK: Final = "Bucket is missing Object Lock Configuration"
"""What AWS says of retention in a bucket that was made without it."""

_LOCK_HEADERS: Final = (
    "x-amz-object-lock-mode",
    "x-amz-object-lock-retain-until-date",
    "x-amz-object-lock-legal-hold",
)
_OVERRIDES: Final = {
    "response-cache-control": "Cache-Control",
    "response-content-disposition": "Content-Disposition",
    "response-content-encoding": "Content-Encoding",
    "response-content-language": "Content-Language",
    "response-content-type": "Content-Type",
    "response-expires": "Expires",
}


def user_metadata(request: Request) -> dict[str, str]:
    """The ``x-amz-meta-*`` headers: lower-case names without the prefix."""
    skip = len(METADATA_PREFIX)
    return {
        name[skip:]: value
        for name, value in request.headers.by_lower_name.items()
        if name.startswith(METADATA_PREFIX)
    }


def content_headers(request: Request) -> dict[str, str]:
    """The headers that are stored and given back, ``aws-chunked`` taken off the encoding."""
    headers = {name: request.headers[name] for name in _STORED_HEADERS if name in request.headers}
    encoding = request.headers.get("content-encoding")
    if encoding is not None:
        kept = _without_transfer(encoding)
        if kept:
            headers["content-encoding"] = kept
    redirect = headers.get("x-amz-website-redirect-location", "/")
    if not redirect.startswith(("/", "http://", "https://")):
        message = "The website redirect location must start with '/', 'http://' or 'https://'."
        raise S3Error("InvalidRedirectLocation", message)
    return headers


def _without_transfer(encoding: str) -> str:
    if "aws-chunked" not in encoding.lower():
        return encoding
    codings = [coding.strip() for coding in encoding.split(",")]
    return ", ".join(coding for coding in codings if coding.lower() not in ("", "aws-chunked"))


def storage_class(request: Request) -> str:
    """The class to store under; raises ``InvalidStorageClass``."""
    name = request.headers.get("x-amz-storage-class") or "STANDARD"
    if name not in _IMMEDIATE_CLASSES:
        raise S3Error("InvalidStorageClass", fields={"StorageClassRequested": name})
    return name


def request_attributes(request: Request, tags: dict[str, str]) -> Attributes:
    """Everything of the headers that is stored with an object."""
    return Attributes(
        content_type=request.headers.get("content-type") or None,
        headers=content_headers(request),
        metadata=user_metadata(request),
        tags=tags,
        storage_class=storage_class(request),
    )


def check_lock(request: Request) -> None:
    """Refuse retention and legal hold: silently ignoring them would lose protection."""
    if any(name in request.headers for name in _LOCK_HEADERS):
        raise S3Error("InvalidRequest", NO_LOCK)


def check_write_headers(request: Request) -> None:
    """Every refusal a write earns by its headers alone, before its body is read."""
    check_encryption(request)
    check_lock(request)


def wire_value(value: str) -> str:
    """A stored header value as it goes out: RFC 2047 where it is UTF-8 beyond ASCII.

    ``value`` holds the bytes as they came, one character each.
    """
    if value.isascii():
        return value
    raw = value.encode("latin-1", "replace")
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return value
    return f"=?UTF-8?B?{b64encode(raw).decode()}?="


def object_headers(info: ObjectInfo) -> dict[str, str]:
    """What GET and HEAD say of an object, without length and range."""
    attributes = info.attributes
    headers = {
        "ETag": f'"{info.etag}"',
        "Last-Modified": http_time(info.modified_ns),
        "Accept-Ranges": "bytes",
        "Content-Type": attributes.content_type or DEFAULT_CONTENT_TYPE,
        **ENCRYPTION_HEADERS,
    }
    for name, value in attributes.headers.items():
        headers[_RESPONSE_NAMES.get(name, name)] = value
    for name, value in attributes.metadata.items():
        headers[METADATA_PREFIX + name] = wire_value(value)
    if attributes.tags:
        headers["x-amz-tagging-count"] = str(len(attributes.tags))
    if attributes.storage_class not in ("", "STANDARD"):
        headers["x-amz-storage-class"] = attributes.storage_class
    return headers


def response_overrides(request: Request) -> dict[str, str]:
    """The ``response-*`` parameters of a signed read; raises ``InvalidRequest`` for anonymous."""
    if request.query is NO_QUERY:
        return {}
    found = {
        header: request.query[name] for name, header in _OVERRIDES.items() if name in request.query
    }
    if found and request.caller is None:
        message = "Request specific response headers cannot be used for anonymous GET requests."
        raise S3Error("InvalidRequest", message)
    for value in found.values():
        if any(ord(character) < 0x20 or ord(character) == 0x7F for character in value):
            raise S3Error("InvalidArgument", "A response header must not hold control characters.")
    # Parameters are decoded text; on the wire their bytes are UTF-8, one character each.
    return {name: value.encode().decode("latin-1") for name, value in found.items()}


def version_header(info: ObjectInfo) -> dict[str, str]:
    """``x-amz-version-id``, in buckets that have or had versions."""
    return {"x-amz-version-id": info.version_id} if info.is_versioned else {}


def written_headers(info: ObjectInfo) -> dict[str, str]:
    """What a write answers of the object it made."""
    return {"ETag": f'"{info.etag}"', **ENCRYPTION_HEADERS, **version_header(info)}
