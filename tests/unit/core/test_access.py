"""Who may do what: the decision over every kind of caller, list and action."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.access import (
    Acl,
    Action,
    BucketRules,
    CannedAcl,
    Grant,
    Group,
    Item,
    Ownership,
    Permission,
    PublicBlock,
    canned_acl,
    full_control,
    is_allowed,
    is_public,
    owner_of_new,
)
from appliance.core.ports import Owner


@dataclass(frozen=True)
class Account:
    user_id: str
    contract: str


ALICE, BOB, CAROL = Owner("alice", "Alice"), Owner("bob", "Bob"), Owner("carol", "Carol")
AS_ALICE, AS_BOB, AS_CAROL = Account("alice", "c1"), Account("bob", "c1"), Account("carol", "c2")
BUCKET = BucketRules("c1", ALICE)
OTHERS = (AS_BOB, AS_CAROL, None)

ON_BUCKET = {
    Permission.READ: {Action.LIST_BUCKET, Action.LIST_VERSIONS, Action.LIST_UPLOADS},
    Permission.WRITE: {Action.PUT_OBJECT, Action.DELETE_OBJECT},
    Permission.READ_ACP: {Action.GET_BUCKET_ACL},
    Permission.WRITE_ACP: {Action.PUT_BUCKET_ACL},
}
ON_OBJECT = {
    Permission.READ: {Action.GET_OBJECT, Action.GET_OBJECT_VERSION},
    Permission.WRITE: set[Action](),
    Permission.READ_ACP: {Action.GET_OBJECT_ACL},
    Permission.WRITE_ACP: {Action.PUT_OBJECT_ACL},
}
ABOUT_OBJECTS = set[Action]().union(*ON_OBJECT.values())
ON_BUCKET[Permission.FULL_CONTROL] = set[Action]().union(*ON_BUCKET.values())
ON_OBJECT[Permission.FULL_CONTROL] = ABOUT_OBJECTS
TAGGING = {
    Action.GET_OBJECT_TAGGING,
    Action.PUT_OBJECT_TAGGING,
    Action.DELETE_OBJECT_TAGGING,
}


def granting(grantee: Owner | Group, permission: Permission) -> Acl:
    return Acl((Grant(grantee, permission),))


@pytest.mark.parametrize("action", list(Action))
def test_without_lists_only_owners_do_anything(action: Action) -> None:
    own = Item(ALICE)
    assert is_allowed(AS_ALICE, action, BUCKET, own)
    for other in OTHERS:
        assert not is_allowed(other, action, BUCKET, own)
        assert not is_allowed(other, action, BUCKET)


@pytest.mark.parametrize("action", list(Action))
def test_an_object_of_another_account(action: Action) -> None:
    """The bucket's owner removes and tags it, and does not read it; its own owner reads it."""
    item = Item(BOB)
    assert is_allowed(AS_ALICE, action, BUCKET, item) == (action not in ABOUT_OBJECTS)
    started = {Action.ABORT_UPLOAD, Action.LIST_PARTS}
    assert is_allowed(AS_BOB, action, BUCKET, item) == (action in ABOUT_OBJECTS | TAGGING | started)


@pytest.mark.parametrize("permission", list(Permission))
@pytest.mark.parametrize("action", list(Action))
def test_what_each_permission_gives(permission: Permission, action: Action) -> None:
    by_bucket = replace(BUCKET, acl=granting(BOB, permission))
    by_object = Item(ALICE, granting(BOB, permission))
    assert is_allowed(AS_BOB, action, by_bucket, Item(ALICE)) == (action in ON_BUCKET[permission])
    assert is_allowed(AS_BOB, action, BUCKET, by_object) == (action in ON_OBJECT[permission])
    assert not is_allowed(None, action, by_bucket, by_object)


@pytest.mark.parametrize(
    ("grantee", "reached"),
    [
        (BOB, {AS_BOB}),
        (CAROL, set[Account | None]()),
        (Group.AUTHENTICATED_USERS, {AS_BOB}),
        (Group.ALL_USERS, {AS_BOB, AS_CAROL, None}),
    ],
)
def test_whom_a_grant_reaches(grantee: Owner | Group, reached: set[Account | None]) -> None:
    acl = granting(grantee, Permission.READ)
    listed = replace(BUCKET, acl=acl)
    assert {each for each in OTHERS if is_allowed(each, Action.LIST_BUCKET, listed)} == reached
    item = Item(ALICE, acl)
    assert {each for each in OTHERS if is_allowed(each, Action.GET_OBJECT, BUCKET, item)} == reached


@pytest.mark.parametrize("group", list(Group))
def test_ignored_public_lists_reach_nobody(group: Group) -> None:
    acl = Acl((Grant(group, Permission.FULL_CONTROL), Grant(BOB, Permission.READ)))
    ignoring = replace(BUCKET, acl=acl, block=PublicBlock.IGNORE_ACLS)
    assert not is_allowed(None, Action.LIST_BUCKET, ignoring)
    assert not is_allowed(AS_CAROL, Action.LIST_BUCKET, ignoring)
    assert is_allowed(AS_BOB, Action.LIST_BUCKET, ignoring), "a named account is not the public"
    assert not is_allowed(AS_BOB, Action.PUT_OBJECT, ignoring)
    assert is_public(replace(ignoring, block=PublicBlock.BLOCK_ACLS))
    assert not is_public(ignoring)


@pytest.mark.parametrize("action", list(Action))
def test_with_owner_enforcement_lists_mean_nothing(action: Action) -> None:
    acl = Acl((Grant(BOB, Permission.FULL_CONTROL), Grant(Group.ALL_USERS, Permission.READ)))
    enforced = replace(BUCKET, acl=acl, ownership=Ownership.BUCKET_OWNER_ENFORCED)
    item = Item(enforced.owner_of(BOB), acl)
    assert is_allowed(AS_ALICE, action, enforced, item)
    for other in OTHERS:
        assert not is_allowed(other, action, enforced, item)
    assert not is_public(enforced)


@given(
    grants=st.lists(
        st.tuples(
            st.sampled_from([ALICE, BOB, CAROL, *Group]),
            st.sampled_from(list(Permission)),
        ),
        max_size=5,
    ),
    action=st.sampled_from(list(Action)),
    ownership=st.sampled_from([None, *Ownership]),
    block=st.integers(0, 15).map(PublicBlock),
    owner=st.sampled_from([ALICE, BOB, CAROL]),
)
def test_another_contract_is_never_more_than_anybody(
    grants: list[tuple[Owner | Group, Permission]],
    action: Action,
    ownership: Ownership | None,
    block: PublicBlock,
    owner: Owner,
) -> None:
    acl = Acl(tuple(Grant(*grant) for grant in grants))
    rules = BucketRules("c1", ALICE, acl, ownership, block)
    item = Item(owner, acl)
    foreign = is_allowed(AS_CAROL, action, rules, item)
    assert foreign == is_allowed(None, action, rules, item)
    assert not foreign or is_allowed(AS_BOB, action, rules, item)
    own = Item(ALICE, acl)
    assert is_allowed(AS_ALICE, action, rules, own)


@pytest.mark.parametrize(
    ("ownership", "canned", "expected"),
    [
        (None, None, BOB),
        (Ownership.OBJECT_WRITER, CannedAcl.BUCKET_OWNER_FULL_CONTROL, BOB),
        (Ownership.BUCKET_OWNER_PREFERRED, None, BOB),
        (Ownership.BUCKET_OWNER_PREFERRED, CannedAcl.BUCKET_OWNER_READ, BOB),
        (Ownership.BUCKET_OWNER_PREFERRED, CannedAcl.BUCKET_OWNER_FULL_CONTROL, None),
        (Ownership.BUCKET_OWNER_ENFORCED, None, None),
    ],
)
def test_whose_a_new_object_is(
    ownership: Ownership | None, canned: CannedAcl | None, expected: Owner | None
) -> None:
    rules = replace(BUCKET, ownership=ownership)
    assert owner_of_new(rules, BOB, canned) == expected
    assert owner_of_new(rules, ALICE, canned) is None
    assert owner_of_new(rules, None, canned) is None


@pytest.mark.parametrize(
    ("canned", "groups"),
    [
        (CannedAcl.PUBLIC_READ, [(Group.ALL_USERS, "READ")]),
        (CannedAcl.PUBLIC_READ_WRITE, [(Group.ALL_USERS, "READ"), (Group.ALL_USERS, "WRITE")]),
        (CannedAcl.AUTHENTICATED_READ, [(Group.AUTHENTICATED_USERS, "READ")]),
    ],
)
def test_canned_lists_for_groups(canned: CannedAcl, groups: list[tuple[Group, str]]) -> None:
    acl = canned_acl(canned, BOB, ALICE)
    assert acl is not None and acl.is_public
    *others, last = acl.grants
    assert [(grant.grantee, grant.permission.value) for grant in others] == groups
    assert (last,) == full_control(BOB).grants


def test_canned_lists_for_owners() -> None:
    assert canned_acl(CannedAcl.PRIVATE, BOB, ALICE) is None
    read = canned_acl(CannedAcl.BUCKET_OWNER_READ, BOB, ALICE)
    full = canned_acl(CannedAcl.BUCKET_OWNER_FULL_CONTROL, BOB, ALICE)
    assert read is not None and full is not None and not read.is_public
    assert Grant(ALICE, Permission.READ) in read.grants
    assert Grant(ALICE, Permission.FULL_CONTROL) in full.grants
    for canned in (CannedAcl.BUCKET_OWNER_READ, CannedAcl.BUCKET_OWNER_FULL_CONTROL):
        assert canned_acl(canned, ALICE) is None, "on a bucket it says nothing"
        assert canned_acl(canned, ALICE, ALICE) is None
