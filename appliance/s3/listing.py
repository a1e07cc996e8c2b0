"""Listing the keys of a bucket: ListObjects, ListObjectsV2, ListObjectVersions.

Owns the pages' exact form. Refuses malformed parameters. Invariant: following the markers or tokens
of a listing shows every key that is there throughout exactly once, in UTF-8 byte order.

A page of a thousand keys is built in a few milliseconds: one format per entry, escapes only where
a character needs one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from appliance.core.checksums import ChecksumAlgorithm, ChecksumKind
from appliance.core.ports import Owner
from appliance.objects.model import ListedObject, Listing
from appliance.s3.dates import iso_time
from appliance.s3.operation import Context, reply_document
from appliance.s3.parameters import (
    KEYS_MAX,
    integer,
    invalid_argument,
    key_encoding,
    position_of,
    token_of,
)
from appliance.s3.request import Request
from appliance.s3.xml import document, element, escape, owner_element

Encode = Callable[[str], str]

_EMPTY: Final = Listing((), ())


async def list_objects(context: Context, request: Request) -> None:
    """ListObjects (version 1): pages by marker, which may be a key or a common prefix."""
    encode, encoding = key_encoding(request)
    limit = integer(request, "max-keys", KEYS_MAX, KEYS_MAX)
    marker = request.query.get("marker", "")
    page = await _page(context, request, marker, limit)
    pieces = [
        _head(request, encode, limit, page.truncated),
        f"<Marker>{encode(marker)}</Marker>{encoding}",
    ]
    if page.truncated and page.next_after and request.query.get("delimiter"):
        pieces.append(f"<NextMarker>{encode(page.next_after)}</NextMarker>")
    pieces.append(_contents(page.entries, encode, with_owner=True))
    pieces.append(_prefixes(page.common_prefixes, encode))
    await reply_document(request, document("ListBucketResult", *pieces))


async def list_objects_v2(context: Context, request: Request) -> None:
    """ListObjectsV2: pages by opaque token; a token outweighs ``start-after``."""
    encode, encoding = key_encoding(request)
    limit = integer(request, "max-keys", KEYS_MAX, KEYS_MAX)
    token = request.query.get("continuation-token")
    start_after = request.query.get("start-after")
    after = position_of(token) if token else start_after or ""
    page = await _page(context, request, after, limit)
    pieces = [
        _head(request, encode, limit, page.truncated),
        element("KeyCount", str(len(page.entries) + len(page.common_prefixes))),
        encoding,
    ]
    if token is not None:
        pieces.append(element("ContinuationToken", token))
    if page.truncated and page.next_after:
        pieces.append(element("NextContinuationToken", token_of(page.next_after)))
    if start_after is not None:
        pieces.append(f"<StartAfter>{encode(start_after)}</StartAfter>")
    with_owner = request.query.get("fetch-owner", "").lower() == "true"
    pieces.append(_contents(page.entries, encode, with_owner=with_owner))
    pieces.append(_prefixes(page.common_prefixes, encode))
    await reply_document(request, document("ListBucketResult", *pieces))


async def list_object_versions(context: Context, request: Request) -> None:
    """ListObjectVersions: pages by key and version; a bucket that never had versions shows each
    object as its ``null`` version."""
    encode, encoding = key_encoding(request)
    limit = integer(request, "max-keys", KEYS_MAX, KEYS_MAX)
    key_marker = request.query.get("key-marker", "")
    version_marker = request.query.get("version-id-marker")
    if version_marker is not None and not key_marker:
        message = "A version-id marker cannot be specified without a key marker."
        raise invalid_argument("version-id-marker", version_marker, message)
    page = await context.store.listing.versions(
        request.caller,
        request.bucket or "",
        prefix=request.query.get("prefix", ""),
        delimiter=request.query.get("delimiter", ""),
        key_marker=key_marker,
        version_marker=version_marker or "",
        limit=limit,
    )
    pieces = [
        _head(request, encode, limit, page.truncated),
        f"<KeyMarker>{encode(key_marker)}</KeyMarker>",
        element("VersionIdMarker", version_marker or ""),
        encoding,
    ]
    if page.truncated:
        pieces.append(f"<NextKeyMarker>{encode(page.next_key_marker or '')}</NextKeyMarker>")
        if page.next_version_marker:
            pieces.append(element("NextVersionIdMarker", page.next_version_marker))
    pieces.append(_versions(page.entries, encode))
    pieces.append(_prefixes(page.common_prefixes, encode))
    await reply_document(request, document("ListVersionsResult", *pieces))


async def _page(context: Context, request: Request, after: str, limit: int) -> Listing:
    bucket = request.bucket or ""
    if request.query.get("allow-unordered") == "true" and request.query.get("delimiter"):
        # An extension that big-data connectors use: any order is allowed, ours included.
        message = "allow-unordered cannot be combined with a delimiter"
        raise invalid_argument("allow-unordered", "true", message)
    if limit == 0:
        await context.store.buckets.head(request.caller, bucket)
        return _EMPTY
    return await context.store.listing.objects(
        request.caller,
        bucket,
        prefix=request.query.get("prefix", ""),
        delimiter=request.query.get("delimiter", ""),
        after=after,
        limit=limit,
    )


def _head(request: Request, encode: Encode, limit: int, truncated: bool) -> str:
    delimiter = request.query.get("delimiter")
    return (
        f"<Name>{escape(request.bucket or '')}</Name>"
        f"<Prefix>{encode(request.query.get('prefix', ''))}</Prefix>"
        f"{f'<Delimiter>{encode(delimiter)}</Delimiter>' if delimiter else ''}"
        f"<MaxKeys>{limit}</MaxKeys>"
        f"<IsTruncated>{'true' if truncated else 'false'}</IsTruncated>"
    )


class _Owners:
    """Each owner's element once for a page: pages have a thousand entries and one owner."""

    def __init__(self) -> None:
        self._elements: dict[Owner, str] = {}
        self._last: tuple[Owner, str] | None = None

    def element(self, owner: Owner) -> str:
        if self._last is not None and self._last[0] is owner:
            return self._last[1]  # hashing an owner costs more than all else of an entry
        self._last = owner, self._found(owner)
        return self._last[1]

    def _found(self, owner: Owner) -> str:
        known = self._elements.get(owner)
        if known is None:
            known = owner_element("Owner", owner.user_id, owner.display_name)
            self._elements[owner] = known
        return known


@lru_cache(maxsize=64)
def _checksum(algorithm: ChecksumAlgorithm | None, kind: ChecksumKind | None) -> str:
    if algorithm is None or kind is None:
        return ""
    return (
        f"<ChecksumAlgorithm>{algorithm.value}</ChecksumAlgorithm>"
        f"<ChecksumType>{kind.value}</ChecksumType>"
    )


def _contents(entries: Sequence[ListedObject], encode: Encode, *, with_owner: bool) -> str:
    owners = _Owners()
    return "".join(
        [
            f"<Contents><Key>{encode(key)}</Key>"
            f"<LastModified>{iso_time(modified_ns)}</LastModified>"
            f"<ETag>&quot;{etag}&quot;</ETag>{_checksum(algorithm, kind)}"
            f"<Size>{size_bytes}</Size>"
            f"{owners.element(owner) if with_owner else ''}"
            f"<StorageClass>{storage_class}</StorageClass></Contents>"
            for (
                key, size_bytes, etag, modified_ns, owner, storage_class, algorithm, kind, *_,
            ) in entries
        ]
    )  # fmt: skip


def _versions(entries: Sequence[ListedObject], encode: Encode) -> str:
    owners = _Owners()
    pieces: list[str] = []
    for entry in entries:
        head = (
            f"<Key>{encode(entry.key)}</Key><VersionId>{entry.version_id}</VersionId>"
            f"<IsLatest>{'true' if entry.is_latest else 'false'}</IsLatest>"
            f"<LastModified>{iso_time(entry.modified_ns)}</LastModified>"
        )
        owner = owners.element(entry.owner)
        if entry.is_delete_marker:
            pieces.append(f"<DeleteMarker>{head}{owner}</DeleteMarker>")
            continue
        pieces.append(
            f"<Version>{head}<ETag>&quot;{entry.etag}&quot;</ETag>"
            f"{_checksum(entry.checksum_algorithm, entry.checksum_kind)}"
            f"<Size>{entry.size_bytes}</Size>{owner}"
            f"<StorageClass>{entry.storage_class}</StorageClass></Version>"
        )
    return "".join(pieces)


def _prefixes(prefixes: Sequence[str], encode: Encode) -> str:
    return "".join(
        [f"<CommonPrefixes><Prefix>{encode(p)}</Prefix></CommonPrefixes>" for p in prefixes]
    )
