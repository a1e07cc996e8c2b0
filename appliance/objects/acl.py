"""Access lists: what a request asks for made into what is stored, read, and replaced.

Owns the resolving of canned lists and of grantees, who must be accounts of the bucket's contract or
a group. Refuses public lists where they are blocked and any list where the bucket has none. What
lists mean is ``core.access``.
"""

from __future__ import annotations

from dataclasses import replace as changed
from typing import Final

from appliance.core.access import (
    DEFAULT_ACL,
    Acl,
    AclRequest,
    Action,
    BucketRules,
    CannedAcl,
    Grant,
    Group,
    PublicBlock,
    canned_acl,
    full_control,
    owner_of_new,
)
from appliance.core.errors import S3Error
from appliance.core.ports import Owner
from appliance.objects.configuration import change_bucket
from appliance.objects.context import BucketView, Context
from appliance.objects.model import Caller, ObjectInfo
from appliance.objects.reading import find, show
from appliance.objects.records import BucketRecord, ObjectRecord
from appliance.objects.revision import revise


class Acls:
    """Operations on the access lists of buckets and objects."""

    def __init__(self, context: Context) -> None:
        self._context: Final = context

    async def get_bucket(self, caller: Caller | None, name: str) -> tuple[Owner, Acl]:
        """The bucket's owner and list. Raises ``S3Error`` NoSuchBucket, AccessDenied."""
        view, _ = await self._context.bucket(caller, name, Action.GET_BUCKET_ACL)
        return view.rules.owner, _in_force(view, view.rules.acl, view.rules.owner)

    async def put_bucket(self, caller: Caller | None, name: str, request: AclRequest) -> None:
        """Replace the bucket's list. Raises ``S3Error`` as ``resolve`` does, and as
        ``get_bucket``."""

        async def with_list(view: BucketView) -> BucketRecord:
            owner = view.rules.owner
            acl = await resolve(self._context, view.rules, request, owner, on_bucket=True)
            return changed(view.record, acl=acl)

        await change_bucket(self._context, caller, name, Action.PUT_BUCKET_ACL, with_list)

    async def get_object(
        self, caller: Caller | None, bucket: str, key: str, *, version_id: str | None = None
    ) -> tuple[ObjectInfo, Acl]:
        """The version and its list. Raises as ``Objects.open`` does."""
        view, _, record = await find(
            self._context, caller, bucket, key, version_id, Action.GET_OBJECT_ACL
        )
        info = show(view, key, record)
        return info, _in_force(view, record.acl, info.owner)

    async def put_object(
        self,
        caller: Caller | None,
        bucket: str,
        key: str,
        request: AclRequest,
        *,
        version_id: str | None = None,
    ) -> ObjectInfo:
        """Replace the version's list. Raises ``S3Error`` as ``resolve`` and ``Objects.open``."""

        async def with_list(view: BucketView, record: ObjectRecord) -> ObjectRecord:
            owner = view.rules.owner_of(record.owner)
            return record._replace(acl=await resolve(self._context, view.rules, request, owner))

        return await revise(
            self._context, caller, bucket, key, version_id, Action.PUT_OBJECT_ACL, with_list
        )


def _in_force(view: BucketView, acl: Acl | None, owner: Owner) -> Acl:
    return acl if acl is not None and view.rules.lists_count else full_control(owner)


async def new_object_access(
    context: Context, rules: BucketRules, caller: Caller | None, request: AclRequest
) -> tuple[Owner | None, Acl | None]:
    """Owner and list of an object about to be written, both as stored. Raises as ``resolve``."""
    writer = None
    if caller is not None and rules.is_insider(caller):
        writer = Owner(caller.user_id, caller.display_name)
    owner = owner_of_new(rules, writer, request.canned)
    if request is DEFAULT_ACL:
        return owner, None
    acl = await resolve(context, rules, request, rules.owner_of(owner))
    if writer is None and acl is not None:
        # It will be the bucket owner's object, and only the owner gives it away.
        raise S3Error("AccessDenied", "Access Denied")
    return owner, acl


async def resolve(
    context: Context,
    rules: BucketRules,
    request: AclRequest,
    owner: Owner,
    *,
    on_bucket: bool = False,
) -> Acl | None:
    """The list to store, None for the owner alone.

    Raises ``S3Error`` AccessControlListNotSupported, InvalidArgument (no such account),
    AccessDenied (public, or another owner), MalformedACLError (too long).
    """
    if request == DEFAULT_ACL:
        return None
    if not rules.lists_count:
        if request.canned is CannedAcl.BUCKET_OWNER_FULL_CONTROL:
            return None
        if request.canned is not None or not _is_owners_alone(request, rules.owner):
            raise S3Error("AccessControlListNotSupported")
        return None
    if request.owner_id not in (None, owner.user_id):
        raise S3Error("AccessDenied", "The owner of a bucket or object cannot be changed.")
    acl: Acl | None
    if request.grants is not None:
        acl = await _known_grants(context, rules, request.grants, owner)
    else:
        assert request.canned is not None, "a request has grants or a name"
        acl = canned_acl(request.canned, owner, None if on_bucket else rules.owner)
    if acl == full_control(owner):
        return None
    if acl is not None and acl.is_public and PublicBlock.BLOCK_ACLS in rules.block:
        raise S3Error("AccessDenied", "Public access control lists are blocked here.")
    return acl


def _is_owners_alone(request: AclRequest, owner: Owner) -> bool:
    return request.grants is not None and all(
        isinstance(grant.grantee, Owner) and grant.grantee.user_id == owner.user_id
        for grant in request.grants
    )


async def _known_grants(
    context: Context, rules: BucketRules, grants: tuple[Grant, ...], owner: Owner
) -> Acl:
    """The grants with their grantees' names. Raises ``S3Error`` for one that nobody is."""
    if len(grants) > context.limits.acl_grants:
        raise S3Error(
            "MalformedACLError", f"An access control list has {context.limits.acl_grants} grants."
        )
    known = {owner.user_id: owner, rules.owner.user_id: rules.owner}
    found = []
    for grant in grants:
        grantee = grant.grantee
        if not isinstance(grantee, Group):
            account = known.get(grantee.user_id)
            if account is None:
                account = await context.keys.owner(rules.contract, grantee.user_id)
            if account is None:
                raise S3Error(
                    "InvalidArgument",
                    "Invalid id",
                    fields={
                        "ArgumentName": "CanonicalUser/ID",
                        "ArgumentValue": grantee.user_id,
                    },
                )
            known[account.user_id] = grantee = account
        found.append(Grant(grantee, grant.permission))
    return Acl(tuple(found))
