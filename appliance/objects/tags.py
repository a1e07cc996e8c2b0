"""Tags of stored objects: read, replaced, removed, without touching the content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace as changed
from typing import Final

from appliance.core.access import Action
from appliance.objects.attributes import limited_tags
from appliance.objects.context import BucketView, Context
from appliance.objects.model import Caller, ObjectInfo
from appliance.objects.reading import find, show
from appliance.objects.records import ObjectRecord
from appliance.objects.revision import revise


class Tags:
    """Operations on the tags of one object."""

    def __init__(self, context: Context) -> None:
        self._context: Final = context

    async def get(
        self, caller: Caller | None, bucket: str, key: str, *, version_id: str | None = None
    ) -> tuple[ObjectInfo, Mapping[str, str]]:
        """The version and its tags. Raises as ``Objects.open`` does."""
        view, _, record = await find(
            self._context, caller, bucket, key, version_id, Action.GET_OBJECT_TAGGING
        )
        return show(view, key, record), record.attributes.tags

    async def put(
        self,
        caller: Caller | None,
        bucket: str,
        key: str,
        tags: Mapping[str, str],
        *,
        version_id: str | None = None,
    ) -> ObjectInfo:
        """Replace all tags. Raises ``S3Error`` InvalidTag and as ``Objects.open`` does."""
        checked = limited_tags(tags, self._context.limits)
        return await self._set(caller, bucket, key, version_id, Action.PUT_OBJECT_TAGGING, checked)

    async def delete(
        self, caller: Caller | None, bucket: str, key: str, *, version_id: str | None = None
    ) -> ObjectInfo:
        """Remove all tags. Raises as ``Objects.open`` does."""
        return await self._set(caller, bucket, key, version_id, Action.DELETE_OBJECT_TAGGING, {})

    async def _set(
        self,
        caller: Caller | None,
        bucket: str,
        key: str,
        version_id: str | None,
        action: Action,
        tags: Mapping[str, str],
    ) -> ObjectInfo:
        async def with_tags(_: BucketView, record: ObjectRecord) -> ObjectRecord:
            return record._replace(attributes=changed(record.attributes, tags=tags))

        return await revise(self._context, caller, bucket, key, version_id, action, with_tags)
