"""Who may do what to a bucket and the objects in it: one pure decision over access lists.

Owns the words (actions, permissions, groups, grants, canned lists, object ownership, the block of
public access) and what they mean together. Pure. Invariant: to a bucket of another contract an
account is nobody in particular (whatever it may do there, anonymous requests may do), and no grant
takes anything from an owner.

An access list says who has which permission besides the owner. On a bucket, READ lists it and
WRITE creates, replaces and deletes objects in it; on an object, READ reads it and WRITE means
nothing; READ_ACP and WRITE_ACP are about the list itself. Everything else is the bucket owner's.

Reference: AWS S3 User Guide, "Access control list (ACL) overview", "Controlling ownership of
objects", "Blocking public access".
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, TypeAlias

from appliance.core.ports import Owner


class Identity(Protocol):
    """What is known of an authenticated account; an anonymous request has none."""

    @property
    def user_id(self) -> str: ...

    @property
    def contract(self) -> str: ...


class Action(enum.Enum):
    """What a request does, by the name AWS gives the permission for it."""

    LIST_BUCKET = "s3:ListBucket"
    LIST_VERSIONS = "s3:ListBucketVersions"
    LIST_UPLOADS = "s3:ListBucketMultipartUploads"
    DELETE_BUCKET = "s3:DeleteBucket"
    GET_BUCKET_ACL = "s3:GetBucketAcl"
    PUT_BUCKET_ACL = "s3:PutBucketAcl"
    GET_OBJECT = "s3:GetObject"
    GET_OBJECT_VERSION = "s3:GetObjectVersion"
    PUT_OBJECT = "s3:PutObject"
    DELETE_OBJECT = "s3:DeleteObject"
    DELETE_OBJECT_VERSION = "s3:DeleteObjectVersion"
    GET_OBJECT_ACL = "s3:GetObjectAcl"
    PUT_OBJECT_ACL = "s3:PutObjectAcl"
    GET_OBJECT_TAGGING = "s3:GetObjectTagging"
    PUT_OBJECT_TAGGING = "s3:PutObjectTagging"
    DELETE_OBJECT_TAGGING = "s3:DeleteObjectTagging"
    ABORT_UPLOAD = "s3:AbortMultipartUpload"
    LIST_PARTS = "s3:ListMultipartUploadParts"
    GET_ACCELERATE = "s3:GetAccelerateConfiguration"
    GET_CORS = "s3:GetBucketCORS"
    PUT_CORS = "s3:PutBucketCORS"
    GET_ENCRYPTION = "s3:GetEncryptionConfiguration"
    PUT_ENCRYPTION = "s3:PutEncryptionConfiguration"
    GET_LIFECYCLE = "s3:GetLifecycleConfiguration"
    PUT_LIFECYCLE = "s3:PutLifecycleConfiguration"
    GET_LOCATION = "s3:GetBucketLocation"
    GET_LOGGING = "s3:GetBucketLogging"
    GET_NOTIFICATION = "s3:GetBucketNotification"
    GET_OBJECT_LOCK = "s3:GetBucketObjectLockConfiguration"
    PUT_OBJECT_LOCK = "s3:PutBucketObjectLockConfiguration"
    GET_OWNERSHIP = "s3:GetBucketOwnershipControls"
    PUT_OWNERSHIP = "s3:PutBucketOwnershipControls"
    GET_POLICY = "s3:GetBucketPolicy"
    DELETE_POLICY = "s3:DeleteBucketPolicy"
    GET_POLICY_STATUS = "s3:GetBucketPolicyStatus"
    GET_PUBLIC_BLOCK = "s3:GetBucketPublicAccessBlock"
    PUT_PUBLIC_BLOCK = "s3:PutBucketPublicAccessBlock"
    GET_REPLICATION = "s3:GetReplicationConfiguration"
    PUT_REPLICATION = "s3:PutReplicationConfiguration"
    GET_REQUEST_PAYMENT = "s3:GetBucketRequestPayment"
    GET_BUCKET_TAGGING = "s3:GetBucketTagging"
    PUT_BUCKET_TAGGING = "s3:PutBucketTagging"
    GET_VERSIONING = "s3:GetBucketVersioning"
    GET_WEBSITE = "s3:GetBucketWebsite"
    DELETE_WEBSITE = "s3:DeleteBucketWebsite"


class Permission(enum.Enum):
    """What a grant gives."""

    READ = "READ"
    WRITE = "WRITE"
    READ_ACP = "READ_ACP"
    WRITE_ACP = "WRITE_ACP"
    FULL_CONTROL = "FULL_CONTROL"


class Group(enum.Enum):
    """Whom a grant may name besides single accounts."""

    ALL_USERS = "http://acs.amazonaws.com/groups/global/AllUsers"
    AUTHENTICATED_USERS = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"


Grantee: TypeAlias = Owner | Group


class Grant(NamedTuple):
    """One line of an access list."""

    grantee: Grantee
    permission: Permission


@dataclass(frozen=True, slots=True)
class Acl:
    """An access list. Where a list may be absent, the owner alone has FULL_CONTROL."""

    grants: tuple[Grant, ...] = ()

    @property
    def is_public(self) -> bool:
        """Whether it grants anything to a group."""
        return any(isinstance(grant.grantee, Group) for grant in self.grants)


class CannedAcl(enum.Enum):
    """Access lists by name."""

    PRIVATE = "private"
    PUBLIC_READ = "public-read"
    PUBLIC_READ_WRITE = "public-read-write"
    AUTHENTICATED_READ = "authenticated-read"
    BUCKET_OWNER_READ = "bucket-owner-read"
    BUCKET_OWNER_FULL_CONTROL = "bucket-owner-full-control"


@dataclass(frozen=True, slots=True)
class AclRequest:
    """The access list a client asks for: by name, by grants, or (neither) the default.

    The grantees' display names are not known yet. ``owner_id`` is whom a document names as owner.
    """

    canned: CannedAcl | None = None
    grants: tuple[Grant, ...] | None = None
    owner_id: str | None = None


DEFAULT_ACL: Final = AclRequest()


class Ownership(enum.Enum):
    """Whose the objects are that others write; with BUCKET_OWNER_ENFORCED lists mean nothing."""

    OBJECT_WRITER = "ObjectWriter"
    BUCKET_OWNER_PREFERRED = "BucketOwnerPreferred"
    BUCKET_OWNER_ENFORCED = "BucketOwnerEnforced"


class PublicBlock(enum.Flag):
    """What is blocked of public access: setting public lists, heeding them, and both for policies.
    Stored numbers; never renumber."""

    NOTHING = 0
    BLOCK_ACLS = 1
    IGNORE_ACLS = 2
    BLOCK_POLICY = 4
    RESTRICT_BUCKETS = 8
    EVERYTHING = 15


@dataclass(frozen=True, slots=True)
class BucketRules:
    """A bucket as decisions see it. ``ownership`` None is OBJECT_WRITER that nobody chose."""

    contract: str
    owner: Owner
    acl: Acl | None = None
    ownership: Ownership | None = None
    block: PublicBlock = PublicBlock.NOTHING

    @property
    def lists_count(self) -> bool:
        """Whether access lists mean anything."""
        return self.ownership is not Ownership.BUCKET_OWNER_ENFORCED

    def is_insider(self, caller: Identity | None) -> bool:
        """Whether the caller is an account of the bucket's contract."""
        return caller is not None and caller.contract == self.contract

    def owner_of(self, stored: Owner | None) -> Owner:
        """Whose an object is that is stored as this owner's (None: the bucket owner's)."""
        return stored if stored is not None and self.lists_count else self.owner


@dataclass(frozen=True, slots=True)
class Item:
    """An object, or an unfinished upload by whoever began it, as decisions see it."""

    owner: Owner
    acl: Acl | None = None


class _Rule(NamedTuple):
    """Which permission an action needs, on the bucket's list or the item's, and which owners need
    none."""

    permission: Permission | None = None
    by_item_list: bool = False
    bucket_owner: bool = True
    item_owner: bool = False


_BUCKET_OWNERS: Final = _Rule()
_EITHER_OWNER: Final = _Rule(item_owner=True)
_RULES: Final[Mapping[Action, _Rule]] = {
    Action.LIST_BUCKET: _Rule(Permission.READ),
    Action.LIST_VERSIONS: _Rule(Permission.READ),
    Action.LIST_UPLOADS: _Rule(Permission.READ),
    Action.PUT_OBJECT: _Rule(Permission.WRITE),
    Action.DELETE_OBJECT: _Rule(Permission.WRITE),
    Action.GET_BUCKET_ACL: _Rule(Permission.READ_ACP),
    Action.PUT_BUCKET_ACL: _Rule(Permission.WRITE_ACP),
    Action.GET_OBJECT: _Rule(Permission.READ, True, False, True),
    Action.GET_OBJECT_VERSION: _Rule(Permission.READ, True, False, True),
    Action.GET_OBJECT_ACL: _Rule(Permission.READ_ACP, True, False, True),
    Action.PUT_OBJECT_ACL: _Rule(Permission.WRITE_ACP, True, False, True),
    Action.GET_OBJECT_TAGGING: _EITHER_OWNER,
    Action.PUT_OBJECT_TAGGING: _EITHER_OWNER,
    Action.DELETE_OBJECT_TAGGING: _EITHER_OWNER,
    Action.ABORT_UPLOAD: _EITHER_OWNER,
    Action.LIST_PARTS: _EITHER_OWNER,
}


def is_allowed(
    caller: Identity | None, action: Action, bucket: BucketRules, item: Item | None = None
) -> bool:
    """The decision. ``item`` is what the action is about inside the bucket, where there is any."""
    rule = _RULES.get(action, _BUCKET_OWNERS)
    if not bucket.is_insider(caller):
        caller = None
    if caller is not None:
        if rule.bucket_owner and caller.user_id == bucket.owner.user_id:
            return True
        if rule.item_owner and item is not None and caller.user_id == item.owner.user_id:
            return True
    if rule.permission is None or not bucket.lists_count:
        return False
    acl = bucket.acl
    if rule.by_item_list:
        acl = None if item is None else item.acl
    return acl is not None and any(
        grant.permission in (rule.permission, Permission.FULL_CONTROL)
        and _reaches(grant.grantee, caller, bucket.block)
        for grant in acl.grants
    )


def _reaches(grantee: Grantee, insider: Identity | None, block: PublicBlock) -> bool:
    """Whether a grant's grantee is, or includes, an account of the contract, or nobody."""
    if isinstance(grantee, Owner):
        return insider is not None and insider.user_id == grantee.user_id
    if PublicBlock.IGNORE_ACLS in block:
        return False
    return insider is not None or grantee is Group.ALL_USERS


def is_public(bucket: BucketRules) -> bool:
    """Whether the bucket's list opens it to more than its owner's contract or named accounts."""
    heeded = bucket.lists_count and PublicBlock.IGNORE_ACLS not in bucket.block
    return heeded and bucket.acl is not None and bucket.acl.is_public


def owner_of_new(
    bucket: BucketRules, writer: Owner | None, canned: CannedAcl | None
) -> Owner | None:
    """Whose a new object is, None for the bucket owner's. ``writer`` is None for whoever is no
    account of the contract: there is nobody it could belong to."""
    if writer is None or writer.user_id == bucket.owner.user_id or not bucket.lists_count:
        return None
    preferred = bucket.ownership is Ownership.BUCKET_OWNER_PREFERRED
    if preferred and canned is CannedAcl.BUCKET_OWNER_FULL_CONTROL:
        return None
    return writer


def full_control(owner: Owner) -> Acl:
    """The list that says what an absent one means."""
    return Acl((Grant(owner, Permission.FULL_CONTROL),))


def canned_acl(canned: CannedAcl, owner: Owner, bucket_owner: Owner | None = None) -> Acl | None:
    """The list of that name for an object of ``owner``, or (without ``bucket_owner``) a bucket."""
    if canned is CannedAcl.PUBLIC_READ:
        others = [Grant(Group.ALL_USERS, Permission.READ)]
    elif canned is CannedAcl.PUBLIC_READ_WRITE:
        others = [
            Grant(Group.ALL_USERS, Permission.READ),
            Grant(Group.ALL_USERS, Permission.WRITE),
        ]
    elif canned is CannedAcl.AUTHENTICATED_READ:
        others = [Grant(Group.AUTHENTICATED_USERS, Permission.READ)]
    elif canned is CannedAcl.PRIVATE or bucket_owner in (None, owner):
        return None
    else:
        assert bucket_owner is not None, "narrowed above"
        read = canned is CannedAcl.BUCKET_OWNER_READ
        others = [Grant(bucket_owner, Permission.READ if read else Permission.FULL_CONTROL)]
    return Acl((*others, *full_control(owner).grants))
