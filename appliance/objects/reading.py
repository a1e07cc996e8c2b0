"""Finding a version of an object and opening it.

Owns which record answers a key: the current version, a named one, or one part of either. Refuses
with the S3 codes of what is not there; behind a delete marker the refusal says so.
"""

from __future__ import annotations

from appliance.core.access import Action
from appliance.core.errors import S3Error
from appliance.core.names import check_key
from appliance.core.partlayout import part_span
from appliance.core.recordkeys import (
    NULL_ORDER,
    object_key,
    order_of_version,
    part_key,
    part_number,
    parts_range,
    versions_range,
)
from appliance.engine.interface import Record
from appliance.objects.content import OpenObject, part_runs
from appliance.objects.context import BucketView, Context
from appliance.objects.model import Caller, Checksum, ObjectInfo, Page, Part
from appliance.objects.records import (
    Kind,
    ObjectRecord,
    PartRecord,
    StoredChecksum,
    Versioning,
)


async def find(
    context: Context,
    caller: Caller | None,
    bucket: str,
    key: str,
    version_id: str | None,
    action: Action,
) -> tuple[BucketView, Record, ObjectRecord]:
    """The record of the current version, or of the one named; never a delete marker.

    Only who may list the bucket learns that something is not there.

    Raises ``S3Error`` NoSuchBucket, AccessDenied, NoSuchKey, NoSuchVersion, MethodNotAllowed.
    """
    check_key(key, size_bytes_max=context.limits.key_bytes)
    order = order_by_id(version_id)
    view, [stored] = await context.look(bucket, [object_key(bucket, key, order)])
    if version_id is None and view.record.versioning is not Versioning.NEVER:
        start, end = versions_range(bucket, key)
        newest = await context.engine.scan(view.partition, start, end, 1)
        stored = newest[0] if newest else None
    if stored is None:
        view.check(caller, Action.LIST_BUCKET)
        if version_id is None:
            raise S3Error("NoSuchKey", fields={"Key": key})
        raise S3Error("NoSuchVersion", fields={"Key": key, "VersionId": version_id})
    record = ObjectRecord.decode(stored.value)
    if record.kind is Kind.DELETE_MARKER:
        view.check(caller, Action.LIST_BUCKET)
        raise _marker_refusal(key, record, named=version_id is not None)
    view.check(caller, action, view.item(record.owner, record.acl))
    return view, stored, record


def order_by_id(version_id: str | None) -> bytes:
    """The order a version id names, the null version's without one. Raises ``S3Error``."""
    if version_id is None:
        return NULL_ORDER
    order = order_of_version(version_id)
    if order is None:
        raise S3Error(
            "InvalidArgument",
            "Invalid version id specified",
            fields={"ArgumentName": "versionId", "ArgumentValue": version_id},
        )
    return order


def _marker_refusal(key: str, record: ObjectRecord, *, named: bool) -> S3Error:
    headers = {"x-amz-delete-marker": "true", "x-amz-version-id": record.version_id or "null"}
    if named:
        fields = {"Method": "GET", "ResourceType": "DeleteMarker"}
        return S3Error("MethodNotAllowed", fields=fields, headers={**headers, "Allow": "DELETE"})
    return S3Error("NoSuchKey", fields={"Key": key}, headers=headers)


def show(view: BucketView, key: str, record: ObjectRecord) -> ObjectInfo:
    """The version as callers see it."""
    versioned = view.record.versioning is not Versioning.NEVER
    return record.show(key, view.rules.owner_of(record.owner), is_versioned=versioned)


def reading_of(version_id: str | None) -> Action:
    """What reading that version is."""
    return Action.GET_OBJECT if version_id is None else Action.GET_OBJECT_VERSION


async def open_object(
    context: Context,
    caller: Caller | None,
    bucket: str,
    key: str,
    *,
    version_id: str | None = None,
    part_number: int | None = None,
) -> OpenObject:
    """See ``Objects.open``."""
    action = reading_of(version_id)
    view, stored, record = await find(context, caller, bucket, key, version_id, action)
    info = show(view, key, record)
    if part_number is None or (record.kind is not Kind.IN_PARTS and part_number == 1):
        return OpenObject(context, view, record, stored, info)
    runs = await part_runs(context, view, record)
    span = part_span(runs, part_number)
    if span is None:
        raise S3Error("InvalidPart", "The requested partnumber is not satisfiable")
    [part] = await context.engine.read(
        view.partition, [part_key(bucket, record.write_id, part_number)]
    )
    checksum = None
    if part is not None and record.checksum is not None:
        checksum = _part_checksum(PartRecord.decode(part.value), record.checksum)
    return OpenObject(
        context,
        view,
        record,
        stored,
        info,
        runs=runs,
        part=(part_number, *span),
        checksum=checksum,
    )


async def list_object_parts(
    context: Context,
    caller: Caller | None,
    bucket: str,
    key: str,
    *,
    version_id: str | None,
    after: int,
    limit: int,
) -> tuple[ObjectInfo, Page[Part]]:
    """See ``Objects.parts``."""
    action = reading_of(version_id)
    view, _, record = await find(context, caller, bucket, key, version_id, action)
    info = show(view, key, record)
    if record.kind is not Kind.IN_PARTS:
        return info, Page(())
    limit = min(limit, context.limits.list_parts)
    start, end = parts_range(bucket, record.write_id, min(after, 0xFFFE) + 1)
    found = await context.engine.scan(view.partition, start, end, limit + 1)
    parts = [show_part(stored, record.checksum) for stored in found[:limit]]
    truncated = len(found) > limit
    return info, Page(parts, truncated, str(parts[-1].number) if truncated and parts else None)


def show_part(stored: Record, checksum: StoredChecksum | None) -> Part:
    """A part as callers see it, with the checksum that its object or upload asks for."""
    record = PartRecord.decode(stored.value)
    return Part(
        number=part_number(stored.key),
        size_bytes=record.size_bytes,
        etag=record.md5.hex(),
        modified_ns=record.modified_ns,
        checksum=_part_checksum(record, checksum) if checksum else None,
    )


def _part_checksum(part: PartRecord, whole: StoredChecksum) -> Checksum | None:
    digest = part.digest(whole.algorithm)
    return None if digest is None else whole._replace(digest=digest).show()
