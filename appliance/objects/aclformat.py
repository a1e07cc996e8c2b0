"""How access lists look inside records: arrays of (permission, group or account).

Owns the stored numbers. An absent list is None. Invariant: what is unpacked packs to the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from appliance.core.access import Acl, Grant, Group, Ownership, Permission
from appliance.core.ports import Owner

# Numbers stored on the drives; never renumber.
_PERMISSION_NUMBERS: Final = {
    Permission.READ: 1,
    Permission.WRITE: 2,
    Permission.READ_ACP: 3,
    Permission.WRITE_ACP: 4,
    Permission.FULL_CONTROL: 5,
}
_GROUP_NUMBERS: Final = {Group.ALL_USERS: 1, Group.AUTHENTICATED_USERS: 2}
_OWNERSHIP_NUMBERS: Final = {
    Ownership.OBJECT_WRITER: 1,
    Ownership.BUCKET_OWNER_PREFERRED: 2,
    Ownership.BUCKET_OWNER_ENFORCED: 3,
}
_PERMISSIONS: Final = {number: permission for permission, number in _PERMISSION_NUMBERS.items()}
_GROUPS: Final = {number: group for group, number in _GROUP_NUMBERS.items()}
_OWNERSHIPS: Final = {number: ownership for ownership, number in _OWNERSHIP_NUMBERS.items()}


def pack_owner(owner: Owner | None) -> list[str] | None:
    """An account as it stands in a value."""
    return None if owner is None else [owner.user_id, owner.display_name]


def unpack_owner(packed: Sequence[str] | None) -> Owner | None:
    """From a value."""
    return None if packed is None else Owner(*packed)


def pack_acl(acl: Acl | None) -> list[Any] | None:
    """A list as it stands in a value."""
    if acl is None:
        return None
    return [
        [
            _PERMISSION_NUMBERS[permission],
            pack_owner(grantee) if isinstance(grantee, Owner) else _GROUP_NUMBERS[grantee],
        ]
        for grantee, permission in acl.grants
    ]


def unpack_acl(packed: Sequence[Any] | None) -> Acl | None:
    """From a value."""
    if packed is None:
        return None
    return Acl(
        tuple(
            Grant(
                _GROUPS[grantee] if isinstance(grantee, int) else Owner(*grantee),
                _PERMISSIONS[permission],
            )
            for permission, grantee in packed
        )
    )


def pack_ownership(ownership: Ownership | None) -> int:
    """The ownership as it stands in a value; 0 where nobody chose one."""
    return 0 if ownership is None else _OWNERSHIP_NUMBERS[ownership]


def unpack_ownership(packed: int) -> Ownership | None:
    """From a value."""
    return _OWNERSHIPS[packed] if packed else None
