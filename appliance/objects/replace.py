"""Changing what a key's null version is: one commit, whatever was there before.

Owns the *parts mark*. The null version has a fixed slot, so that a plain write is one blind atomic
replacement: nothing is read first. But when the version there is in parts, the parts are records
of their own and must go with it. Therefore a completed upload leaves a mark beside the slot, and

- a write that knows of no mark expects there is none;
- when that expectation fails, the mark is read and the next try deletes mark and parts, expecting
  the mark as read.

Mark, slot and parts always change in the same commit, so no part can be left behind and no reader
can meet half. Refuses what the write conditions forbid, judged on the record the commit expects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from appliance.core.access import Action
from appliance.core.conditions import Verdict, WriteCondition, evaluate_delete, evaluate_write
from appliance.core.errors import Conflict, S3Error
from appliance.core.recordkeys import bucket_key, object_key, parts_mark_key, parts_range
from appliance.engine.interface import (
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
from appliance.objects.context import BucketView, Context
from appliance.objects.model import Caller
from appliance.objects.records import Kind, ObjectRecord

TRIES_MAX: Final = 64
PARTS_SCAN: Final = 10_000


@dataclass(frozen=True, slots=True)
class Change:
    """What a commit does to a key: the slot's operation, what goes with it, the mark to leave."""

    slot: Operation
    others: Sequence[Operation] = ()
    expectations: Sequence[Expect | ExpectEmpty] = ()
    mark: bytes | None = None
    quota: Sequence[Limit] = ()


async def replace(
    context: Context,
    caller: Caller | None,
    action: Action,
    view: BucketView,
    key: str,
    change: Change,
    condition: WriteCondition,
) -> None:
    """Commit ``change``, which is ``action`` by ``caller``.

    Raises ``S3Error`` (PreconditionFailed, NoSuchKey for If-Match on nothing, NoSuchBucket,
    AccessDenied), ``Conflict`` when one of the change's own expectations fails, engine errors.
    """
    slot_key, mark_key = keys = change.slot.key, parts_mark_key(view.name, key)
    conditional = condition != WriteCondition()
    slot: Record | None = None
    mark: Record | None = None
    if conditional:
        view, [slot, mark] = await context.bucket(caller, view.name, action, keys)
    for _ in range(TRIES_MAX):
        expectations: list[Expect | ExpectEmpty] = [view.unchanged(), *change.expectations]
        if conditional:
            check_condition(condition, key, slot, deleting=isinstance(change.slot, Delete))
            expectations.append(as_read(slot_key, slot))
        expectations.append(as_read(mark_key, mark))
        old = await _old_parts(context, view.partition, view.name, mark)
        operations: list[Operation] = [change.slot, *change.others, *old]
        if change.mark is not None:
            operations.append(Put(mark_key, change.mark))
        elif mark is not None:
            operations.append(Delete(mark_key))
        try:
            await context.commit(view.partition, operations, expectations, change.quota)
        except Conflict as conflict:
            if conflict.key not in (slot_key, mark_key, bucket_key(view.name)):
                raise
            context.forget(view.name)
            view, [slot, mark] = await context.bucket(caller, view.name, action, keys)
        else:
            return
    raise S3Error("OperationAborted", "Too many conflicting writes to this key. Try again.")


def as_read(key: bytes, record: Record | None) -> Expect:
    """The expectation that a record is still what a read found."""
    return Expect(key, Presence.ABSENT if record is None else record.version)


def check_condition(
    condition: WriteCondition, key: str, slot: Record | None, *, deleting: bool = False
) -> None:
    """Raises ``S3Error`` when the write's conditions do not hold on the record found."""
    current = None if slot is None else ObjectRecord.decode(slot.value)
    if current is not None and current.kind is Kind.DELETE_MARKER:
        current = None
    if deleting:
        if current is None:
            return
        verdict = evaluate_delete(condition, current.etag, current.modified_ns, current.size_bytes)
    else:
        if current is None and condition.if_match is not None:
            raise S3Error("NoSuchKey", fields={"Key": key})
        verdict = evaluate_write(condition, None if current is None else current.etag)
    if verdict is not Verdict.OK:
        name = "If-None-Match" if condition.if_none_match is not None else "If-Match"
        raise S3Error("PreconditionFailed", fields={"Condition": name})


async def _old_parts(
    context: Context, partition: Partition, bucket: str, mark: Record | None
) -> list[Operation]:
    """The deletions of the parts a mark stands for: no new part can appear among them, because
    their upload's record is gone."""
    if mark is None:
        return []
    start, end = parts_range(bucket, mark.value)
    records = await context.engine.scan(partition, start, end, PARTS_SCAN)
    return [Delete(record.key) for record in records]


def delete_slot(bucket: str, key: str) -> Change:
    """The change that removes the null version."""
    return Change(Delete(object_key(bucket, key)))
