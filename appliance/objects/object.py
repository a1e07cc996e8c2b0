"""Objects: put, opened, deleted, copied.

Owns the operations on single objects in a bucket's null slot. Refuses bad keys, sizes, tags and
conditions before a body is read. Invariant: an object's record, its content and its charges appear
and go in one commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace as changed
from typing import Final

from appliance.core.access import DEFAULT_ACL, AclRequest, Action, is_allowed
from appliance.core.checksums import ChecksumAlgorithm, ChecksumKind
from appliance.core.conditions import UNCONDITIONAL, WriteCondition
from appliance.core.errors import Conflict, S3Error
from appliance.core.names import check_key
from appliance.core.recordkeys import NULL_ORDER, object_key, parts_mark_key, parts_range
from appliance.engine.interface import Delete, Expect, Operation, Presence, Put
from appliance.objects.acl import new_object_access
from appliance.objects.attributes import charges, check_attributes, limited_tags
from appliance.objects.content import OpenObject
from appliance.objects.context import BucketView, Context
from appliance.objects.copying import CopyBody, check_source
from appliance.objects.intake import Intake, check_size
from appliance.objects.model import (
    NO_ATTRIBUTES,
    Attributes,
    Body,
    Caller,
    CopySource,
    Deleted,
    ObjectInfo,
    Page,
    Part,
)
from appliance.objects.reading import (
    list_object_parts,
    open_object,
    order_by_id,
    show,
)
from appliance.objects.records import (
    Kind,
    ObjectRecord,
    StoredChecksum,
    object_size_bytes,
)
from appliance.objects.replace import (
    PARTS_SCAN,
    TRIES_MAX,
    Change,
    check_condition,
    delete_slot,
    replace,
)

DEFAULT_CHECKSUM: Final = ChecksumAlgorithm.CRC64NVME


class Objects:
    """Operations on single objects."""

    def __init__(self, context: Context) -> None:
        self._context: Final = context

    async def put(
        self,
        caller: Caller | None,
        bucket: str,
        key: str,
        body: Body,
        attributes: Attributes = NO_ATTRIBUTES,
        *,
        acl: AclRequest = DEFAULT_ACL,
        condition: WriteCondition = UNCONDITIONAL,
    ) -> ObjectInfo:
        """Store an object. Durable on return; visible only then, and only whole.

        Raises ``S3Error`` (NoSuchBucket, AccessDenied, KeyTooLongError, MetadataTooLarge,
        InvalidTag, EntityTooLarge, QuotaExceeded, PreconditionFailed, NoSuchKey for an If-Match on
        nothing, BadDigest, whatever the body raises, as ``acl.resolve``) and engine errors;
        ``MembershipChanged`` means that the body has to be sent again.
        """
        return await self._store(
            caller,
            bucket,
            key,
            body,
            check_attributes(attributes, self._context.limits),
            acl=acl,
            condition=condition,
            size_bytes_max=self._context.limits.single_part_max_bytes,
        )

    async def _store(
        self,
        caller: Caller | None,
        bucket: str,
        key: str,
        body: Body,
        attributes: Attributes,
        *,
        acl: AclRequest,
        condition: WriteCondition,
        size_bytes_max: int,
        algorithm: ChecksumAlgorithm | None = None,
    ) -> ObjectInfo:
        context = self._context
        check_key(key, size_bytes_max=context.limits.key_bytes)
        view = await self._admit(caller, bucket, key, body, acl, condition, size_bytes_max)
        owner, access_list = await new_object_access(context, view.rules, caller, acl)
        contract_key = await context.contract_key(view.contract)
        algorithm = algorithm or body.checksum_algorithm or DEFAULT_CHECKSUM
        taken = await Intake(context, contract_key, (algorithm,), size_bytes_max).take(body)
        [(_, digest)] = taken.digests
        declared = body.declared().checksum is not None
        record = ObjectRecord(
            kind=Kind.PLAIN,
            size_bytes=taken.size_bytes,
            modified_ns=context.clock.now_ns(),
            md5=taken.md5,
            write_id=taken.write_id,
            owner=owner,
            checksum=StoredChecksum(algorithm, ChecksumKind.FULL_OBJECT, digest, declared),
            attributes=attributes,
            acl=access_list,
        )
        slot = Put(
            object_key(bucket, key),
            record.encode(),
            taken.blob,
            charges(bucket, size_bytes=taken.size_bytes, objects=1),
        )
        quota = await context.quota(view)
        change = Change(slot, quota=quota)
        await replace(context, caller, Action.PUT_OBJECT, view, key, change, condition)
        return show(view, key, record)

    async def _admit(
        self,
        caller: Caller | None,
        bucket: str,
        key: str,
        body: Body,
        acl: AclRequest,
        condition: WriteCondition,
        size_bytes_max: int,
    ) -> BucketView:
        """Everything that can be refused before the body is. An access list is judged by the bucket
        as it is now, because nothing judges it again at the commit."""
        if condition == UNCONDITIONAL and acl is DEFAULT_ACL:
            view = await self._context.bucket_for_write(caller, bucket, Action.PUT_OBJECT)
        else:
            slot_key = object_key(bucket, key)
            view, [slot] = await self._context.bucket(caller, bucket, Action.PUT_OBJECT, [slot_key])
            check_condition(condition, key, slot)
        check_size(body.size_bytes, size_bytes_max)
        await self._context.admit(
            view, body.size_bytes or 0, object_key(bucket, key), object_size_bytes
        )
        return view

    async def open(
        self,
        caller: Caller | None,
        bucket: str,
        key: str,
        *,
        version_id: str | None = None,
        part_number: int | None = None,
    ) -> OpenObject:
        """The current version, or the one named, or a part of it. No content is touched yet.

        Raises ``S3Error`` NoSuchBucket, AccessDenied, NoSuchKey, NoSuchVersion, MethodNotAllowed (a
        delete marker by its id), InvalidArgument (no version id), InvalidPart (no such part).
        """
        return await open_object(
            self._context, caller, bucket, key, version_id=version_id, part_number=part_number
        )

    async def head(
        self,
        caller: Caller | None,
        bucket: str,
        key: str,
        *,
        version_id: str | None = None,
        part_number: int | None = None,
    ) -> OpenObject:
        """The same as ``open``: opening touches no content."""
        return await self.open(caller, bucket, key, version_id=version_id, part_number=part_number)

    async def parts(
        self,
        caller: Caller | None,
        bucket: str,
        key: str,
        *,
        version_id: str | None = None,
        after: int = 0,
        limit: int = 1000,
    ) -> tuple[ObjectInfo, Page[Part]]:
        """The parts an object was uploaded in, behind number ``after``; none for a plain one."""
        return await list_object_parts(
            self._context, caller, bucket, key, version_id=version_id, after=after, limit=limit
        )

    async def delete(
        self,
        caller: Caller | None,
        bucket: str,
        key: str,
        *,
        version_id: str | None = None,
        condition: WriteCondition | None = None,
    ) -> Deleted:
        """Remove an object or one version of it. Removing what is not there is a success.

        Raises ``S3Error`` NoSuchBucket, AccessDenied, InvalidArgument, PreconditionFailed.
        """
        check_key(key, size_bytes_max=self._context.limits.key_bytes)
        order = order_by_id(version_id)
        action = _deleting(version_id)
        view = await self._context.bucket_for_write(caller, bucket, action)
        condition = condition or UNCONDITIONAL
        if order == NULL_ORDER:
            change = delete_slot(bucket, key)
            await replace(self._context, caller, action, view, key, change, condition)
        else:
            await self._delete_version(caller, bucket, key, order, condition)
        return Deleted(key, version_id)

    async def _delete_version(
        self, caller: Caller | None, bucket: str, key: str, order: bytes, condition: WriteCondition
    ) -> None:
        record_key = object_key(bucket, key, order)
        for _ in range(TRIES_MAX):
            view, [stored] = await self._context.bucket(
                caller, bucket, Action.DELETE_OBJECT_VERSION, [record_key]
            )
            if stored is None:
                return
            check_condition(condition, key, stored, deleting=True)
            record = ObjectRecord.decode(stored.value)
            operations: list[Operation] = [Delete(record_key)]
            if record.kind is Kind.IN_PARTS:
                start, end = parts_range(bucket, record.write_id)
                found = await self._context.engine.scan(view.partition, start, end, PARTS_SCAN)
                operations += [Delete(part.key) for part in found]
            expectations = [view.unchanged(), Expect(record_key, stored.version)]
            try:
                await self._context.commit(view.partition, operations, expectations)
            except Conflict:
                continue
            return
        raise S3Error("OperationAborted", "Too many conflicting writes to this key. Try again.")

    async def delete_many(
        self, caller: Caller | None, bucket: str, keys: Sequence[tuple[str, str | None]]
    ) -> list[Deleted | S3Error]:
        """Remove up to 1,000 objects; an outcome for each, in order. Raises ``S3Error`` only for
        the request as a whole (NoSuchBucket, AccessDenied, MalformedXML for too many)."""
        if len(keys) > self._context.limits.delete_keys:
            raise S3Error("MalformedXML", "A request may delete 1,000 keys at most.")
        outcomes: dict[int, Deleted | S3Error] = {}
        together: dict[str, list[int]] = {}
        for index, (key, version_id) in enumerate(keys):
            try:
                check_key(key, size_bytes_max=self._context.limits.key_bytes)
                if order_by_id(version_id) == NULL_ORDER:
                    together.setdefault(key, []).append(index)
            except S3Error as error:
                outcomes[index] = error
        versions_named = any(version_id is not None for _, version_id in keys)
        done = await self._delete_together(
            caller, bucket, list(together), versions_named=versions_named
        )
        for key in done:
            for index in together[key]:
                outcomes[index] = Deleted(key, keys[index][1])
        for index, (key, version_id) in enumerate(keys):
            if index not in outcomes:
                try:
                    outcomes[index] = await self.delete(caller, bucket, key, version_id=version_id)
                except S3Error as error:
                    outcomes[index] = error
        return [outcomes[index] for index in range(len(keys))]

    async def _delete_together(
        self, caller: Caller | None, bucket: str, keys: Sequence[str], *, versions_named: bool
    ) -> Sequence[str]:
        """Remove in one commit those keys whose version is plain; says which. All or none."""
        marks = [parts_mark_key(bucket, key) for key in keys]
        view, found = await self._context.bucket(caller, bucket, Action.DELETE_OBJECT, marks)
        if versions_named and not is_allowed(caller, Action.DELETE_OBJECT_VERSION, view.rules):
            return ()
        plain = [
            (key, mark_key)
            for key, mark_key, mark in zip(keys, marks, found, strict=True)
            if mark is None
        ]
        if not plain:
            return ()
        expectations = [view.unchanged()]
        expectations += [Expect(mark_key, Presence.ABSENT) for _, mark_key in plain]
        operations = [Delete(object_key(bucket, key)) for key, _ in plain]
        try:
            await self._context.commit(view.partition, operations, expectations)
        except Conflict:
            # Something crossed: one by one, each with its own second look.
            return ()
        return [key for key, _ in plain]

    async def copy(
        self,
        caller: Caller | None,
        source: CopySource,
        bucket: str,
        key: str,
        *,
        attributes: Attributes | None = None,
        tags: Mapping[str, str] | None = None,
        storage_class: str | None = None,
        checksum_algorithm: ChecksumAlgorithm | None = None,
        acl: AclRequest = DEFAULT_ACL,
        condition: WriteCondition = UNCONDITIONAL,
    ) -> ObjectInfo:
        """Store a copy under a write id of its own. None for ``attributes`` or ``tags`` means the
        source's; the tags of ``attributes`` do not count.

        Raises ``S3Error`` as ``open`` and ``put`` do, PreconditionFailed for the source's
        conditions, InvalidRequest for a copy onto itself that changes nothing or a source too
        large.
        """
        context = self._context
        opened = await self.open(caller, source.bucket, source.key, version_id=source.version_id)
        info = opened.info
        check_source(source, info)
        itself = (source.bucket, source.key) == (bucket, key) and source.version_id is None
        if itself and attributes is None and storage_class in (None, info.attributes.storage_class):
            raise S3Error(
                "InvalidRequest",
                "This copy request is illegal because it is trying to copy an object to itself"
                " without changing the object's metadata, storage class, website redirect location"
                " or encryption attributes.",
            )
        if info.size_bytes > context.limits.copy_source_max_bytes:
            raise S3Error(
                "InvalidRequest",
                "The specified copy source is larger than the maximum allowable size for a copy"
                f" source: {context.limits.copy_source_max_bytes}",
            )
        kept = info.attributes if attributes is None else attributes
        kept = changed(
            kept,
            tags=info.attributes.tags if tags is None else limited_tags(tags, context.limits),
            storage_class=storage_class or kept.storage_class,
        )
        algorithm = checksum_algorithm or (info.checksum.algorithm if info.checksum else None)
        return await self._store(
            caller,
            bucket,
            key,
            CopyBody(opened.read(), info.size_bytes),
            check_attributes(kept, context.limits),
            acl=acl,
            condition=condition,
            size_bytes_max=context.limits.copy_source_max_bytes,
            algorithm=algorithm,
        )


def _deleting(version_id: str | None) -> Action:
    return Action.DELETE_OBJECT if version_id is None else Action.DELETE_OBJECT_VERSION
