"""Access lists where they matter: every operation of the object layer by another account."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from appliance.core.access import (
    AclRequest,
    CannedAcl,
    Permission,
    PublicBlock,
)
from appliance.core.ports import Owner
from appliance.objects.model import Caller, CompletedPart, CopySource
from tests.unit.objects.sharing import PUBLIC_READ, READ_WRITE, granting, put, run
from tests.unit.objects.world import (
    ALICE,
    BOB,
    BUCKET,
    CAROL,
    BytesBody,
    World,
    code_of,
    read_all,
    world,
)

Deed = Callable[[World, Caller | None], Awaitable[object]]


async def upload(here: World, caller: Caller | None) -> object:
    begun = await here.store.uploads.create(caller, BUCKET, "big")
    part = await here.store.uploads.put_part(
        caller, BUCKET, "big", begun.upload_id, 1, BytesBody(b"x")
    )
    await here.store.uploads.abort(caller, BUCKET, "big", begun.upload_id)
    return part


DEEDS: dict[Permission, dict[str, Deed]] = {
    Permission.READ: {
        "head": lambda here, caller: here.store.buckets.head(caller, BUCKET),
        "list": lambda here, caller: here.store.listing.objects(caller, BUCKET),
        "versions": lambda here, caller: here.store.listing.versions(caller, BUCKET),
        "uploads": lambda here, caller: here.store.uploads.list(caller, BUCKET),
    },
    Permission.WRITE: {
        "put": put,
        "delete": lambda here, caller: here.store.objects.delete(caller, BUCKET, "gone"),
        "delete many": lambda here, caller: here.store.objects.delete_many(
            caller, BUCKET, [("gone", None)]
        ),
        "upload": upload,
    },
    Permission.READ_ACP: {
        "get list": lambda here, caller: here.store.acls.get_bucket(caller, BUCKET),
    },
    Permission.WRITE_ACP: {
        "put list": lambda here, caller: here.store.acls.put_bucket(
            caller, BUCKET, granting(BOB, Permission.WRITE_ACP)
        ),
    },
}


@pytest.mark.parametrize("permission", list(DEEDS))
def test_a_grant_on_a_bucket_allows_what_it_says(permission: Permission) -> None:
    async def scenario(here: World) -> None:
        await here.store.acls.put_bucket(ALICE, BUCKET, granting(BOB, permission))
        for kind, deeds in DEEDS.items():
            for name, deed in deeds.items():
                if kind is permission:
                    await deed(here, BOB)
                else:
                    assert await code_of(deed(here, BOB)) == "AccessDenied", name
                assert await code_of(deed(here, CAROL)) == "AccessDenied", name
                assert await code_of(deed(here, None)) == "AccessDenied", name

    run(scenario)


def test_settings_and_removal_stay_the_owners() -> None:
    async def scenario(here: World) -> None:
        await here.store.acls.put_bucket(ALICE, BUCKET, granting(BOB, Permission.FULL_CONTROL))
        settings = here.store.settings
        for deed in (
            here.store.buckets.delete(BOB, BUCKET),
            settings.put_tags(BOB, BUCKET, {}),
            settings.tags(BOB, BUCKET),
            settings.put_ownership(BOB, BUCKET, None),
            settings.put_public_block(BOB, BUCKET, None),
            settings.is_public(BOB, BUCKET),
            here.store.objects.delete(BOB, BUCKET, "k", version_id="null"),
        ):
            assert await code_of(deed) == "AccessDenied"
        [outcome] = await here.store.objects.delete_many(BOB, BUCKET, [("k", "null")])
        assert getattr(outcome, "code", "") == "AccessDenied"
        assert await here.get("k") == b"data"

    run(scenario)


def test_an_object_opened_to_others() -> None:
    async def scenario(here: World) -> None:
        objects, acls = here.store.objects, here.store.acls
        before = (await objects.open(ALICE, BUCKET, "k")).info
        for reader in (BOB, CAROL, None):
            assert await code_of(objects.open(reader, BUCKET, "k")) == "AccessDenied"
        await acls.put_object(ALICE, BUCKET, "k", PUBLIC_READ)
        for reader in (BOB, CAROL, None):
            assert await read_all(await objects.open(reader, BUCKET, "k")) == b"data"
            assert await code_of(acls.get_object(reader, BUCKET, "k")) == "AccessDenied"
            assert await code_of(here.store.tags.get(reader, BUCKET, "k")) == "AccessDenied"
            assert await code_of(put(here, reader, "k")) == "AccessDenied"
        after, acl = await acls.get_object(ALICE, BUCKET, "k")
        assert after == before, "date and tag stay"
        assert acl.is_public
        await acls.put_object(ALICE, BUCKET, "k", AclRequest(CannedAcl.PRIVATE))
        assert await code_of(objects.open(None, BUCKET, "k")) == "AccessDenied"
        assert await here.counters() == {
            b"bytes": 4,
            b"bytes/bucket-one": 4,
            b"objects": 1,
            b"objects/bucket-one": 1,
        }

    run(scenario)


def test_what_is_missing_is_told_to_who_may_list() -> None:
    async def scenario(here: World) -> None:
        objects, uploads = here.store.objects, here.store.uploads
        assert await code_of(objects.open(BOB, BUCKET, "none")) == "AccessDenied"
        assert await code_of(objects.open(BOB, BUCKET, "k", version_id="0" * 16)) == "AccessDenied"
        assert await code_of(uploads.list_parts(BOB, BUCKET, "k", "none")) == "AccessDenied"
        await here.store.acls.put_bucket(ALICE, BUCKET, PUBLIC_READ)
        for reader in (BOB, CAROL, None):
            assert await code_of(objects.open(reader, BUCKET, "none")) == "NoSuchKey"
            assert await code_of(objects.open(reader, BUCKET, "k")) == "AccessDenied"
        await here.store.acls.put_bucket(ALICE, BUCKET, READ_WRITE)
        assert await code_of(uploads.list_parts(BOB, BUCKET, "k", "none")) == "NoSuchUpload"

    run(scenario)


def test_objects_belong_to_who_writes_them() -> None:
    async def scenario(here: World) -> None:
        objects = here.store.objects
        await here.store.acls.put_bucket(ALICE, BUCKET, READ_WRITE)
        await put(here, BOB, "bobs")
        await put(here, None, "nobodys")
        await put(here, CAROL, "carols")
        listed = await here.store.listing.objects(ALICE, BUCKET)
        owners = {entry.key: entry.owner.user_id for entry in listed.entries}
        assert owners.pop("bobs") == "bob-id"
        assert set(owners.values()) == {"alice-id"}
        assert await code_of(objects.open(CAROL, BUCKET, "carols")) == "AccessDenied"
        assert await code_of(objects.open(ALICE, BUCKET, "bobs")) == "AccessDenied"
        assert (await objects.open(BOB, BUCKET, "bobs")).info.owner.user_id == "bob-id"
        assert await code_of(objects.open(None, BUCKET, "nobodys")) == "AccessDenied"
        request = AclRequest(CannedAcl.BUCKET_OWNER_READ)
        await here.store.acls.put_object(BOB, BUCKET, "bobs", request)
        assert await read_all(await objects.open(ALICE, BUCKET, "bobs")) == b"x"
        await objects.delete(ALICE, BUCKET, "bobs")
        for outsider in (CAROL, None):
            attempt = objects.put(outsider, BUCKET, "n", BytesBody(b""), acl=PUBLIC_READ)
            assert await code_of(attempt) == "AccessDenied"
        private = AclRequest(CannedAcl.PRIVATE)
        await objects.put(None, BUCKET, "n", BytesBody(b""), acl=private)

    run(scenario)


def test_an_upload_belongs_to_who_began_it() -> None:
    async def scenario(here: World) -> None:
        uploads = here.store.uploads
        await here.store.acls.put_bucket(ALICE, BUCKET, READ_WRITE)
        for outsider in (CAROL, None):
            assert await code_of(uploads.create(outsider, BUCKET, "big")) == "AccessDenied"
        begun = await uploads.create(BOB, BUCKET, "big", acl=PUBLIC_READ)
        assert begun.owner == begun.initiator == Owner("bob-id", "Bob")
        part = await uploads.put_part(BOB, BUCKET, "big", begun.upload_id, 1, BytesBody(b"part"))
        for other in (CAROL, None):
            attempt = uploads.list_parts(other, BUCKET, "big", begun.upload_id)
            assert await code_of(attempt) == "AccessDenied"
            given_up = uploads.abort(other, BUCKET, "big", begun.upload_id)
            assert await code_of(given_up) == "AccessDenied"
        listed = await uploads.list_parts(ALICE, BUCKET, "big", begun.upload_id)
        assert [each.etag for each in listed.parts] == [part.etag]
        done = [CompletedPart(1, part.etag)]
        made = await uploads.complete(BOB, BUCKET, "big", begun.upload_id, done)
        assert made.owner == Owner("bob-id", "Bob")
        assert await read_all(await here.store.objects.open(None, BUCKET, "big")) == b"part"

    run(scenario)


def test_a_copy_needs_both_sides_and_takes_no_list_along() -> None:
    async def scenario(here: World) -> None:
        objects = here.store.objects
        await here.store.buckets.create(CAROL, "bucket-two")
        source = CopySource(BUCKET, "k")
        assert await code_of(objects.copy(CAROL, source, "bucket-two", "c")) == "AccessDenied"
        await here.store.acls.put_object(ALICE, BUCKET, "k", PUBLIC_READ)
        assert await code_of(objects.copy(CAROL, source, BUCKET, "c")) == "AccessDenied"
        made = await objects.copy(CAROL, source, "bucket-two", "c")
        assert made.owner.user_id == "carol-id"
        assert await here.get("k") == b"data"
        assert await code_of(objects.open(None, "bucket-two", "c")) == "AccessDenied"
        await objects.copy(CAROL, source, "bucket-two", "d", acl=PUBLIC_READ)
        assert await read_all(await objects.open(None, "bucket-two", "d")) == b"data"

    run(scenario)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (granting(CAROL, Permission.READ), "InvalidArgument"),
        (granting(Caller("nobody", "", "c1"), Permission.READ), "InvalidArgument"),
        (AclRequest(grants=(), owner_id="bob-id"), "AccessDenied"),
        (granting(BOB, *[Permission.READ] * 101), "MalformedACLError"),
    ],
)
def test_lists_that_cannot_be(request_: AclRequest, code: str) -> None:
    async def scenario(here: World) -> None:
        acls = here.store.acls
        assert await code_of(acls.put_bucket(ALICE, BUCKET, request_)) == code
        assert await code_of(acls.put_object(ALICE, BUCKET, "k", request_)) == code
        assert await code_of(here.store.buckets.create(ALICE, "bucket-x", acl=request_)) == code
        assert await code_of(here.store.buckets.head(ALICE, "bucket-x")) == "NoSuchBucket"

    run(scenario)


def test_what_another_gateway_changed_counts_at_once() -> None:
    """The remembered bucket neither refuses nor allows what it no longer would."""

    async def scenario(here: World) -> None:
        with world(engine=here.engine, public_access=True) as there:
            theirs, objects = there.store, here.store.objects
            assert await code_of(put(here, BOB)) == "AccessDenied"
            await theirs.acls.put_bucket(ALICE, BUCKET, READ_WRITE)
            await put(here, BOB)
            await theirs.acls.put_bucket(ALICE, BUCKET, PUBLIC_READ)
            assert await code_of(put(here, BOB)) == "AccessDenied"
            await here.put("k")
            await theirs.settings.put_public_block(ALICE, BUCKET, PublicBlock.BLOCK_ACLS)
            attempt = objects.put(ALICE, BUCKET, "k", BytesBody(b""), acl=PUBLIC_READ)
            assert await code_of(attempt) == "AccessDenied"
            begun = here.store.uploads.create(ALICE, BUCKET, "k", acl=PUBLIC_READ)
            assert await code_of(begun) == "AccessDenied"
            for key in ("k", "new"):
                await theirs.objects.delete(ALICE, BUCKET, key)
            await theirs.buckets.delete(ALICE, BUCKET)
            assert await code_of(objects.delete(BOB, BUCKET, "k")) == "NoSuchBucket"
            assert await code_of(put(here, BOB)) == "NoSuchBucket"

    run(scenario)


def test_an_empty_list_takes_nothing_from_the_owner() -> None:
    async def scenario(here: World) -> None:
        await here.store.acls.put_bucket(ALICE, BUCKET, AclRequest(grants=()))
        _, acl = await here.store.acls.get_bucket(ALICE, BUCKET)
        assert acl.grants == ()
        await here.put("other")
        await here.store.acls.put_bucket(ALICE, BUCKET, AclRequest(CannedAcl.PRIVATE))

    run(scenario)


def test_blocked_public_access() -> None:
    """The default: public lists are refused, and those that are there give nothing."""

    async def scenario(here: World) -> None:
        store = here.store
        for canned in (CannedAcl.PUBLIC_READ, CannedAcl.AUTHENTICATED_READ):
            request = AclRequest(canned)
            for attempt in (
                store.acls.put_bucket(ALICE, BUCKET, request),
                store.acls.put_object(ALICE, BUCKET, "k", request),
                store.buckets.create(ALICE, "bucket-x", acl=request),
                store.objects.put(ALICE, BUCKET, "n", BytesBody(b""), acl=request),
                store.uploads.create(ALICE, BUCKET, "n", acl=request),
                store.objects.copy(ALICE, CopySource(BUCKET, "k"), BUCKET, "n", acl=request),
            ):
                assert await code_of(attempt) == "AccessDenied"
        assert await store.settings.public_block(ALICE, BUCKET) is PublicBlock.EVERYTHING
        await store.acls.put_bucket(ALICE, BUCKET, granting(BOB, Permission.READ))
        await store.listing.objects(BOB, BUCKET)

    run(scenario, public_access=False)


def test_public_lists_from_an_open_time_give_nothing_once_it_is_blocked() -> None:
    async def scenario(here: World) -> None:
        await here.store.acls.put_bucket(ALICE, BUCKET, READ_WRITE)
        await here.store.acls.put_object(ALICE, BUCKET, "k", PUBLIC_READ)
        await here.store.objects.open(None, BUCKET, "k")
        with world(engine=here.engine) as blocked:
            for stranger in (CAROL, None):
                attempt = blocked.store.objects.open(stranger, BUCKET, "k")
                assert await code_of(attempt) == "AccessDenied"
                assert await code_of(put(blocked, stranger)) == "AccessDenied"
            assert not await blocked.store.settings.is_public(ALICE, BUCKET)

    run(scenario)
