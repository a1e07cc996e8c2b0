"""Changing what is said of a stored version, without touching its bytes.

Owns the loop: find, change, commit expecting what was found. Invariant: content, date and charges
stay as they are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from appliance.core.access import Action
from appliance.core.errors import Conflict, S3Error
from appliance.engine.interface import Expect, Put
from appliance.objects.attributes import charges
from appliance.objects.context import BucketView, Context
from appliance.objects.model import Caller, ObjectInfo
from appliance.objects.reading import find, show
from appliance.objects.records import Kind, ObjectRecord
from appliance.objects.replace import TRIES_MAX

Change = Callable[[BucketView, ObjectRecord], Awaitable[ObjectRecord]]


async def revise(
    context: Context,
    caller: Caller | None,
    bucket: str,
    key: str,
    version_id: str | None,
    action: Action,
    change: Change,
) -> ObjectInfo:
    """Replace a version's record by what ``change`` makes of it. Raises ``S3Error`` as
    ``Objects.open`` does, and what ``change`` raises."""
    for _ in range(TRIES_MAX):
        view, stored, record = await find(context, caller, bucket, key, version_id, action)
        revised = await change(view, record)
        if revised == record:
            return show(view, key, record)
        in_blob = 0 if record.kind is Kind.IN_PARTS else record.size_bytes
        operation = Put(
            stored.key,
            revised.encode(),
            charges=charges(bucket, size_bytes=in_blob, objects=1),
            keep_blob_of=stored.key if stored.blob is not None else None,
        )
        expectations = [view.unchanged(), Expect(stored.key, stored.version)]
        try:
            await context.commit(view.partition, [operation], expectations)
        except Conflict:
            continue
        return show(view, key, revised)
    raise S3Error("OperationAborted", "Too many conflicting writes to this key. Try again.")
