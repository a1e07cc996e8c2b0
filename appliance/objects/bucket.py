"""Buckets: made, found, listed, removed.

Owns the order in which the two records of a bucket change. Its name is claimed in the system
partition first and given back last, so that a name never leads to two contracts:

- create: claim (registry) → bucket record. A crash between leaves a claim that the same contract
  can use again.
- delete: bucket record (with the proof that it is empty) → claim. A crash between leaves the same.

Refuses illegal names, names of others, and the removal of a bucket that holds an object. Unfinished
uploads go with their bucket.
"""

from __future__ import annotations

from typing import Final

import msgpack

from appliance.core.errors import Conflict, LimitExceeded, S3Error
from appliance.core.names import check_bucket_name
from appliance.core.ports import Owner
from appliance.core.recordkeys import (
    after_prefix,
    bucket_key,
    object_root,
    part_root,
    registry_key,
    upload_root,
)
from appliance.engine.interface import (
    BATCH_OPERATIONS_MAX,
    SYSTEM,
    Charge,
    Delete,
    Expect,
    ExpectEmpty,
    Limit,
    Partition,
    Presence,
    Put,
    Record,
)
from appliance.objects.context import BucketView, Context
from appliance.objects.model import Bucket, Caller, Page
from appliance.objects.records import BucketRecord
from appliance.objects.replace import TRIES_MAX, as_read

CLAIM_FORMAT: Final = 1
SWEEP: Final = BATCH_OPERATIONS_MAX // 4
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
        """The bucket. Raises ``S3Error`` NoSuchBucket, AccessDenied."""
        view, _ = await self._context.bucket(caller, name)
        return view.record.show(name)

    async def create(
        self, caller: Caller | None, name: str, *, region: str = ""
    ) -> tuple[Bucket, bool]:
        """The bucket, and whether it is new; False when the caller had it already.

        Raises ``S3Error`` AccessDenied, InvalidBucketName, BucketAlreadyExists, TooManyBuckets.
        """
        if caller is None:
            raise S3Error("AccessDenied", "Access Denied")
        check_bucket_name(
            name,
            prefix=caller.bucket_prefix,
            dots_allowed=self._context.limits.bucket_dots_allowed,
        )
        partition = Partition(caller.contract)
        owner = Owner(caller.user_id, caller.display_name)
        record = BucketRecord(owner, self._context.clock.now_ns(), region)
        for _ in range(TRIES_MAX):
            [existing] = await self._context.engine.read(partition, [bucket_key(name)])
            [claim] = await self._context.engine.read(SYSTEM, [registry_key(name)])
            if claim is not None and _claimed_by(claim) != caller.contract:
                raise _already_exists(name)
            if existing is not None and claim is not None:
                return _existing(caller, name, existing)
            try:
                await self._claim(caller, name, claim)
                if existing is None:
                    await self._put_record(partition, name, record)
            except Conflict:
                continue
            # A delete that crossed may have taken the claim back after the record was made: the
            # next round sees both, or makes the claim again.
            [claim] = await self._context.engine.read(SYSTEM, [registry_key(name)])
            if claim is not None and _claimed_by(claim) == caller.contract and existing is None:
                self._context.forget(name)
                return record.show(name), True
        raise S3Error("OperationAborted", "The bucket is being changed. Try again.")

    async def _claim(self, caller: Caller, name: str, claim: Record | None) -> None:
        """Take the name, or renew the claim, which makes a crossing delete leave it alone."""
        value = msgpack.packb([CLAIM_FORMAT, caller.contract])
        await self._context.commit(
            SYSTEM, [Put(registry_key(name), value)], [as_read(registry_key(name), claim)]
        )

    async def _put_record(self, partition: Partition, name: str, record: BucketRecord) -> None:
        counter = b"buckets/" + record.owner.user_id.encode("utf-8")
        limit = self._context.limits.buckets_per_account
        try:
            await self._context.commit(
                partition,
                [Put(bucket_key(name), record.encode(), charges=[Charge(counter, 1)])],
                [Expect(bucket_key(name), Presence.ABSENT)],
                [Limit(counter, limit)],
            )
        except LimitExceeded as error:
            raise S3Error(
                "TooManyBuckets", f"You have {limit} buckets, the most an account may have."
            ) from error

    async def delete(self, caller: Caller | None, name: str) -> None:
        """Remove an empty bucket and its unfinished uploads.

        Raises ``S3Error`` NoSuchBucket, AccessDenied, BucketNotEmpty.
        """
        context = self._context
        for _ in range(TRIES_MAX):
            view, _records = await context.bucket(caller, name)
            [claim] = await context.engine.read(SYSTEM, [registry_key(name)])
            try:
                await self._delete_record(view)
            except Conflict:
                context.forget(name)
                continue
            context.forget(name)
            if claim is not None:
                await self._give_back(name, claim)
            return
        raise S3Error("OperationAborted", "The bucket is being changed. Try again.")

    async def _delete_record(self, view: BucketView) -> None:
        engine, partition = self._context.engine, view.partition
        roots = (upload_root(view.name), part_root(view.name))
        objects = object_root(view.name)
        while True:
            if await engine.scan(partition, objects, after_prefix(objects), 1):
                raise S3Error(
                    "BucketNotEmpty",
                    "The bucket you tried to delete is not empty",
                    fields={"BucketName": view.name},
                )
            left: list[Record] = []
            for root in roots:
                left += await engine.scan(partition, root, after_prefix(root), SWEEP)
            sweep = [Delete(record.key) for record in left]
            if len(sweep) < SWEEP:
                break
            # Not without the proof: an upload finished meanwhile makes its parts an object's.
            no_objects = ExpectEmpty(objects, after_prefix(objects))
            await self._context.commit(partition, sweep, [view.unchanged(), no_objects])
        empty = [ExpectEmpty(root, after_prefix(root)) for root in (objects, *roots)]
        await self._context.commit(
            partition, [Delete(bucket_key(view.name)), *sweep], [view.unchanged(), *empty]
        )

    async def _give_back(self, name: str, claim: Record) -> None:
        key = registry_key(name)
        try:
            await self._context.commit(SYSTEM, [Delete(key)], [Expect(key, claim.version)])
        except Conflict:
            # Renewed by a create that crossed: the name is in use again.
            return


def _claimed_by(claim: Record) -> str:
    contract: str = msgpack.unpackb(claim.value)[1]
    return contract


def _already_exists(name: str) -> S3Error:
    return S3Error(
        "BucketAlreadyExists",
        "The requested bucket name is not available.",
        fields={"BucketName": name},
    )


def _existing(caller: Caller, name: str, existing: Record) -> tuple[Bucket, bool]:
    bucket = BucketRecord.decode(existing.value).show(name)
    if bucket.owner.user_id != caller.user_id:
        raise _already_exists(name)
    return bucket, False
