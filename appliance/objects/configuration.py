"""A bucket's settings: its tags, whose the objects in it are, what is blocked of public access.

Owns the changing of a bucket's record. Refuses tags that are none, and owner enforcement while the
bucket's list gives anything to others. Invariant: a change rests on the very record it was decided
on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace as changed
from typing import Final

from appliance.core.access import Action, Ownership, PublicBlock, is_public
from appliance.core.errors import Conflict, S3Error
from appliance.core.tagging import check_tags
from appliance.objects.context import BucketView, Context, bucket_record
from appliance.objects.model import Caller
from appliance.objects.records import BucketRecord
from appliance.objects.replace import TRIES_MAX

Change = Callable[[BucketView], Awaitable[BucketRecord]]


async def change_bucket(
    context: Context, caller: Caller | None, name: str, action: Action, change: Change
) -> None:
    """Replace a bucket's record by what ``change`` makes of it.

    Raises ``S3Error`` NoSuchBucket, AccessDenied, and what ``change`` raises.
    """
    for _ in range(TRIES_MAX):
        view, _records = await context.bucket(caller, name, action)
        record = await change(view)
        if record == view.record:
            return
        context.forget(name)
        try:
            await context.commit(view.partition, [bucket_record(name, record)], [view.unchanged()])
        except Conflict:
            continue
        return
    raise S3Error("OperationAborted", "The bucket is being changed. Try again.")


class Configuration:
    """Operations on the settings of buckets. All raise ``S3Error`` NoSuchBucket, AccessDenied."""

    def __init__(self, context: Context) -> None:
        self._context: Final = context

    async def tags(self, caller: Caller | None, name: str) -> Mapping[str, str]:
        """The bucket's tags, none if it has none."""
        view, _ = await self._context.bucket(caller, name, Action.GET_BUCKET_TAGGING)
        return view.record.tags

    async def put_tags(self, caller: Caller | None, name: str, tags: Mapping[str, str]) -> None:
        """Replace all tags; none removes them. Raises ``S3Error`` InvalidTag."""
        limits = self._context.limits
        checked = check_tags(
            tags.items(),
            count_max=limits.bucket_tags,
            key_characters_max=limits.tag_key_characters,
            value_characters_max=limits.tag_value_characters,
        )

        async def with_tags(view: BucketView) -> BucketRecord:
            return changed(view.record, tags=checked)

        await change_bucket(self._context, caller, name, Action.PUT_BUCKET_TAGGING, with_tags)

    async def ownership(self, caller: Caller | None, name: str) -> Ownership | None:
        """Whose the objects of others are; None where nobody chose."""
        view, _ = await self._context.bucket(caller, name, Action.GET_OWNERSHIP)
        return view.record.ownership

    async def put_ownership(
        self, caller: Caller | None, name: str, ownership: Ownership | None
    ) -> None:
        """Choose it, or forget the choice. Raises ``S3Error`` InvalidBucketAclWithObjectOwnership
        for enforcement over a list that would stop to count."""

        async def with_ownership(view: BucketView) -> BucketRecord:
            if ownership is Ownership.BUCKET_OWNER_ENFORCED and view.record.acl is not None:
                raise S3Error("InvalidBucketAclWithObjectOwnership")
            return changed(view.record, ownership=ownership)

        await change_bucket(self._context, caller, name, Action.PUT_OWNERSHIP, with_ownership)

    async def public_block(self, caller: Caller | None, name: str) -> PublicBlock | None:
        """What is blocked of public access, None where nothing was ever set."""
        view, _ = await self._context.bucket(caller, name, Action.GET_PUBLIC_BLOCK)
        if view.record.block is None and self._context.public_access:
            return None
        return view.rules.block

    async def put_public_block(
        self, caller: Caller | None, name: str, block: PublicBlock | None
    ) -> None:
        """Set it, or forget it. It adds to what is blocked for the whole appliance."""

        async def with_block(view: BucketView) -> BucketRecord:
            return changed(view.record, block=block)

        await change_bucket(self._context, caller, name, Action.PUT_PUBLIC_BLOCK, with_block)

    async def is_public(self, caller: Caller | None, name: str) -> bool:
        """Whether the bucket is open to more than named accounts."""
        view, _ = await self._context.bucket(caller, name, Action.GET_POLICY_STATUS)
        return is_public(view.rules)
