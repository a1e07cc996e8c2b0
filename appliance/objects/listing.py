"""ListObjects (both versions) and ListObjectVersions.

Owns what a page shows and where the next one goes on. Bytewise key order; the limit counts keys and
common prefixes together; a limit of zero is an empty, complete page.
"""

from __future__ import annotations

from typing import Final

from appliance.core.access import Action
from appliance.core.recordkeys import object_root
from appliance.engine.interface import Record
from appliance.objects.context import BucketView, Context
from appliance.objects.model import Caller, ListedObject, Listing, VersionListing
from appliance.objects.reading import order_by_id
from appliance.objects.records import Kind, list_entries
from appliance.objects.walk import Walk

# Where a value has its kind: behind the array's header and the one-byte format number.
_KIND_AT: Final = 2


class Lists:
    """The listings of a bucket's objects."""

    def __init__(self, context: Context) -> None:
        self._context: Final = context

    async def objects(
        self,
        caller: Caller | None,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str = "",
        after: str = "",
        limit: int = 1000,
    ) -> Listing:
        """Current objects behind ``after``, which is a key or a common prefix.

        Raises ``S3Error`` NoSuchBucket, AccessDenied, InvalidArgument.
        """
        view, walk = await self._walk(caller, bucket, Action.LIST_BUCKET, prefix, delimiter)
        if after:
            walk.resume_behind(after)
        limit = min(limit, self._context.limits.list_keys)
        walked = await walk.page(limit, _no_marker, first_of_key=True)
        root_bytes = len(object_root(bucket))
        entries = list_entries(walked.records, root_bytes, view.rules, is_latest=True)
        next_after = None
        if walked.truncated:
            next_after = walked.last_prefix or entries[-1].key
        return Listing(entries, walked.prefixes, walked.truncated, next_after)

    async def versions(
        self,
        caller: Caller | None,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str = "",
        key_marker: str = "",
        version_marker: str = "",
        limit: int = 1000,
    ) -> VersionListing:
        """All versions and delete markers, newest first within a key, behind the markers.

        Raises ``S3Error`` NoSuchBucket, AccessDenied, InvalidArgument.
        """
        order = order_by_id(version_marker) if version_marker else None
        view, walk = await self._walk(caller, bucket, Action.LIST_VERSIONS, prefix, delimiter)
        if key_marker:
            walk.resume_behind(key_marker, order)
        limit = min(limit, self._context.limits.list_keys)
        walked = await walk.page(limit, _any, first_of_key=False)
        root_bytes = len(object_root(bucket))
        entries: list[ListedObject] = []
        before = key_marker if order is not None else None
        for entry in list_entries(walked.records, root_bytes, view.rules, is_latest=False):
            entries.append(entry._replace(is_latest=entry.key != before))
            before = entry.key
        if not walked.truncated:
            return VersionListing(entries, walked.prefixes)
        if walked.last_prefix is not None:
            return VersionListing(entries, walked.prefixes, True, walked.last_prefix)
        last = entries[-1]
        return VersionListing(entries, walked.prefixes, True, last.key, last.version_id)

    async def _walk(
        self, caller: Caller | None, bucket: str, action: Action, prefix: str, delimiter: str
    ) -> tuple[BucketView, Walk]:
        view, _ = await self._context.bucket(caller, bucket, action)
        self._context.must_have_all()
        root = object_root(bucket)
        return view, Walk(self._context.engine, view.partition, root, prefix, delimiter)


def _no_marker(record: Record) -> bool:
    return record.value[_KIND_AT] != Kind.DELETE_MARKER


def _any(_: Record) -> bool:
    return True
