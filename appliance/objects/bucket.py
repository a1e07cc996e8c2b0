"""Buckets: made, found, listed, removed.

Owns the two records of a bucket, which lie in two partitions and so cannot change in one commit:
the *claim* of its name (system partition) and the bucket's record (its contract's partition). A
third, the *fence* beside the bucket's record, says up to which version claims are spent.

- create: claim the name → put the record, expecting the fence as read and the claim above it.
- delete: remove the record, with the proof that it is empty, and raise the fence to the claim, in
  one commit → give the claim back.

Invariant: where there is a bucket's record, the name is claimed by its contract. For a claim is
given back only when the fence has reached it, and behind the fence no record can be made from it.
A crash between the steps leaves a claim without a record: its contract uses it again, and once the
fence has reached it anybody clears it away.

Refuses illegal names, names of others, and the removal of a bucket that holds an object. Unfinished
uploads go with their bucket.
"""

from __future__ import annotations

from typing import Final

import msgpack

from appliance.core.access import (
    DEFAULT_ACL,
    AclRequest,
    Action,
    BucketRules,
    Ownership,
    PublicBlock,
)
from appliance.core.errors import Conflict, LimitExceeded, S3Error
from appliance.core.names import check_bucket_name
from appliance.core.ports import Owner
from appliance.core.recordkeys import (
    after_prefix,
    bucket_key,
    fence_key,
    object_root,
    part_root,
    registry_key,
    upload_root,
)
from appliance.engine.interface import (
    SYSTEM,
    Delete,
    Expect,
    ExpectEmpty,
    Limit,
    Operation,
    Partition,
    Presence,
    Put,
    Record,
)
from appliance.objects.acl import resolve
from appliance.objects.context import BucketView, Context, bucket_record, buckets_counter
from appliance.objects.model import Bucket, Caller, Page
from appliance.objects.records import BucketRecord
from appliance.objects.replace import TRIES_MAX, as_read

CLAIM_FORMAT: Final = 1
SCAN_STEP: Final = 1000


class Buckets:
    """Operations on whole buckets."""

    def __init__(self, context: Context) -> None:
        self._context: Final = context

    async def list(
        self, caller: Caller | None, *, prefix: str = "", after: str = "", limit: int = 1000
    ) -> Page[Bucket]:
        """The caller's buckets by name, behind ``after``. Raises ``S3Error`` AccessDenied."""
        if caller is None:
            raise S3Error("AccessDenied", "Access Denied")
        self._context.must_have_all()
        limit = min(limit, self._context.limits.list_buckets)
        root = b"b/" + prefix.encode("utf-8", "replace")
        position = max(root, b"b/" + after.encode("utf-8", "replace") + b"\x00")
        found: list[Bucket] = []
        while True:
            records = await self._context.engine.scan(
                Partition(caller.contract), position, after_prefix(root), SCAN_STEP
            )
            for record in records:
                bucket = BucketRecord.decode(record.value).show(record.key[2:].decode("ascii"))
                if bucket.owner.user_id != caller.user_id:
                    continue
                if len(found) == limit:
                    return Page(found, True, found[-1].name) if found else Page(found)
                found.append(bucket)
            if len(records) < SCAN_STEP:
                return Page(found)
            position = records[-1].key + b"\x00"

    async def head(self, caller: Caller | None, name: str) -> Bucket:
        """The bucket, for who may list it. Raises ``S3Error`` NoSuchBucket, AccessDenied."""
        return await self.check(caller, name, Action.LIST_BUCKET)

    async def check(self, caller: Caller | None, name: str, action: Action) -> Bucket:
        """The bucket, for who may do ``action``. Raises ``S3Error`` NoSuchBucket, AccessDenied."""
        view, _ = await self._context.bucket(caller, name, action)
        return view.record.show(name)

    async def owner(self, name: str) -> Owner:
        """Whose the bucket is, whoever asks. Raises ``S3Error`` NoSuchBucket."""
        view, _ = await self._context.look(name)
        return view.rules.owner

    async def create(
        self,
        caller: Caller | None,
        name: str,
        *,
        region: str = "",
        acl: AclRequest = DEFAULT_ACL,
        ownership: Ownership | None = None,
    ) -> tuple[Bucket, bool]:
        """The bucket, and whether it is new; False when the caller had it already.

        Raises ``S3Error`` AccessDenied, InvalidBucketName, BucketAlreadyExists (also for one's own
        with another access list or ownership), TooManyBuckets, and as ``acl.resolve`` does.
        """
        if caller is None:
            raise S3Error("AccessDenied", "Access Denied")
        check_bucket_name(
            name,
            prefix=caller.bucket_prefix,
            dots_allowed=self._context.limits.bucket_dots_allowed,
        )
        partition = Partition(caller.contract)
        record = await self._new_record(caller, region, acl, ownership)
        for _ in range(TRIES_MAX):
            try:
                claim = await self._claim(caller, name)
            except Conflict:
                continue
            existing, fence = await self._context.engine.read(
                partition, [bucket_key(name), fence_key(name)]
            )
            if existing is not None:
                return _existing(caller, name, existing, record)
            if _spent(fence) >= claim:
                await self._give_back(name, claim)
                continue
            try:
                await self._put_record(partition, name, record, fence)
            except Conflict:
                continue
            except LimitExceeded as error:
                await self._abandon(partition, name, claim)
                raise S3Error(
                    "TooManyBuckets", f"You may have {error.limit} buckets, and have them."
                ) from error
            self._context.forget(name)
            return record.show(name), True
        raise S3Error("OperationAborted", "The bucket is being changed. Try again.")

    async def _new_record(
        self, caller: Caller, region: str, request: AclRequest, ownership: Ownership | None
    ) -> BucketRecord:
        owner = Owner(caller.user_id, caller.display_name)
        open_to_all = self._context.public_access
        block = PublicBlock.NOTHING if open_to_all else PublicBlock.EVERYTHING
        rules = BucketRules(caller.contract, owner, block=block)
        acl = await resolve(self._context, rules, request, owner, on_bucket=True)
        if acl is not None and ownership is Ownership.BUCKET_OWNER_ENFORCED:
            raise S3Error("InvalidBucketAclWithObjectOwnership")
        created_ns = self._context.clock.now_ns()
        return BucketRecord(owner, created_ns, region, acl=acl, ownership=ownership)

    async def _claim(self, caller: Caller, name: str) -> int:
        """The version of the contract's claim of the name, made now if there is none.

        Raises ``S3Error`` BucketAlreadyExists, ``Conflict`` when somebody else was faster.
        """
        key = registry_key(name)
        [claim] = await self._context.engine.read(SYSTEM, [key])
        if claim is None:
            value = msgpack.packb([CLAIM_FORMAT, caller.contract])
            made = await self._context.commit(
                SYSTEM, [Put(key, value)], [Expect(key, Presence.ABSENT)]
            )
            return made.version
        holder = _claimed_by(claim)
        if holder != caller.contract:
            [fence] = await self._context.engine.read(Partition(holder), [fence_key(name)])
            if _spent(fence) < claim.version:
                raise _already_exists(name)
            await self._give_back(name, claim.version)
            raise Conflict(key)
        return claim.version

    async def _put_record(
        self, partition: Partition, name: str, record: BucketRecord, fence: Record | None
    ) -> None:
        counter = buckets_counter(record.owner.user_id)
        await self._context.commit(
            partition,
            [bucket_record(name, record)],
            [Expect(bucket_key(name), Presence.ABSENT), as_read(fence_key(name), fence)],
            [Limit(counter, self._context.limits.buckets_per_account)],
        )

    async def _abandon(self, partition: Partition, name: str, claim: int) -> None:
        """Give back a claim that came to no bucket, unless one was made from it meanwhile."""
        try:
            await self._context.commit(
                partition,
                [_raise_fence(name, claim)],
                [Expect(bucket_key(name), Presence.ABSENT)],
            )
        except Conflict:
            return
        await self._give_back(name, claim)

    async def delete(self, caller: Caller | None, name: str) -> None:
        """Remove an empty bucket and its unfinished uploads.

        Raises ``S3Error`` NoSuchBucket, AccessDenied, BucketNotEmpty.
        """
        context = self._context
        for _ in range(TRIES_MAX):
            view, _records = await context.bucket(caller, name, Action.DELETE_BUCKET)
            [claim] = await context.engine.read(SYSTEM, [registry_key(name)])
            context.forget(name)
            if claim is None:
                continue
            try:
                await self._delete_record(view, claim.version)
            except Conflict:
                continue
            await self._give_back(name, claim.version)
            return
        raise S3Error("OperationAborted", "The bucket is being changed. Try again.")

    async def _delete_record(self, view: BucketView, claim: int) -> None:
        engine, partition = self._context.engine, view.partition
        roots = (upload_root(view.name), part_root(view.name))
        objects = object_root(view.name)
        step = self._context.limits.sweep_records
        while True:
            if await engine.scan(partition, objects, after_prefix(objects), 1):
                raise S3Error(
                    "BucketNotEmpty",
                    "The bucket you tried to delete is not empty",
                    fields={"BucketName": view.name},
                )
            left: list[Record] = []
            for root in roots:
                left += await engine.scan(partition, root, after_prefix(root), step)
            sweep = [Delete(record.key) for record in left]
            if len(sweep) < step:
                break
            # Not without the proof: an upload finished meanwhile makes its parts an object's.
            no_objects = ExpectEmpty(objects, after_prefix(objects))
            await self._context.commit(partition, sweep, [view.unchanged(), no_objects])
        empty = [ExpectEmpty(root, after_prefix(root)) for root in (objects, *roots)]
        operations: list[Operation] = [
            Delete(bucket_key(view.name)),
            _raise_fence(view.name, claim),
            *sweep,
        ]
        await self._context.commit(partition, operations, [view.unchanged(), *empty])

    async def _give_back(self, name: str, claim: int) -> None:
        """Remove a claim the fence has reached."""
        key = registry_key(name)
        try:
            await self._context.commit(SYSTEM, [Delete(key)], [Expect(key, claim)])
        except Conflict:
            # Somebody who met it spent has removed it; what is there now is another claim.
            return


def _raise_fence(name: str, claim: int) -> Put:
    return Put(fence_key(name), msgpack.packb([CLAIM_FORMAT, claim]))


def _spent(fence: Record | None) -> int:
    """The version up to which claims of a name are spent."""
    spent: int = 0 if fence is None else msgpack.unpackb(fence.value)[1]
    return spent


def _claimed_by(claim: Record) -> str:
    contract: str = msgpack.unpackb(claim.value)[1]
    return contract


def _already_exists(name: str) -> S3Error:
    return S3Error(
        "BucketAlreadyExists",
        "The requested bucket name is not available.",
        fields={"BucketName": name},
    )


def _existing(
    caller: Caller, name: str, existing: Record, asked: BucketRecord
) -> tuple[Bucket, bool]:
    """One's own bucket asked for again: nothing of it is changed, so it must be what is asked."""
    record = BucketRecord.decode(existing.value)
    if record.owner.user_id != caller.user_id:
        raise _already_exists(name)
    if (record.acl, record.ownership) != (asked.acl, asked.ownership):
        raise _already_exists(name)
    return record.show(name), False
