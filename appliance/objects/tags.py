"""Tags of stored objects: read, replaced, removed, without touching the content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace as changed
from typing import Final

from appliance.core.errors import Conflict, S3Error
from appliance.engine.interface import Expect, Put
from appliance.objects.attributes import charges, limited_tags
from appliance.objects.context import Context
from appliance.objects.model import Caller, ObjectInfo
from appliance.objects.reading import find, show
from appliance.objects.records import Kind
from appliance.objects.replace import TRIES_MAX


class Tags:
    """Operations on the tags of one object."""

    def __init__(self, context: Context) -> None:
        self._context: Final = context

    async def get(
        self, caller: Caller | None, bucket: str, key: str, *, version_id: str | None = None
    ) -> tuple[ObjectInfo, Mapping[str, str]]:
        """The version and its tags. Raises as ``Objects.open`` does."""
        view, _, record = await find(self._context, caller, bucket, key, version_id)
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
        for _ in range(TRIES_MAX):
            view, stored, record = await find(self._context, caller, bucket, key, version_id)
            record = changed(record, attributes=changed(record.attributes, tags=checked))
            in_blob = 0 if record.kind is Kind.IN_PARTS else record.size_bytes
            operation = Put(
                stored.key,
                record.encode(),
                charges=charges(bucket, size_bytes=in_blob, objects=1),
                keep_blob_of=stored.key if stored.blob is not None else None,
            )
            expectations = [view.unchanged(), Expect(stored.key, stored.version)]
            try:
                await self._context.commit(view.partition, [operation], expectations)
            except Conflict:
                continue
            return show(view, key, record)
        raise S3Error("OperationAborted", "Too many conflicting writes to this key. Try again.")

    async def delete(
        self, caller: Caller | None, bucket: str, key: str, *, version_id: str | None = None
    ) -> ObjectInfo:
        """Remove all tags. Raises as ``Objects.open`` does."""
        return await self.put(caller, bucket, key, {}, version_id=version_id)
