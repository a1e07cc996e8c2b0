"""Settings of buckets: ownership, blocks of public access, tags, and their records."""

from __future__ import annotations

import asyncio

from appliance.core.access import (
    Acl,
    AclRequest,
    CannedAcl,
    Grant,
    Group,
    Ownership,
    Permission,
    PublicBlock,
)
from appliance.core.checksums import ChecksumAlgorithm, ChecksumKind
from appliance.core.ports import Owner
from appliance.objects.model import NO_ATTRIBUTES
from appliance.objects.records import BucketRecord, Kind, ObjectRecord, UploadRecord
from tests.unit.objects.sharing import PUBLIC_READ, READ_WRITE, granting, put, run
from tests.unit.objects.world import ALICE, BOB, BUCKET, BytesBody, World, code_of

ALL = Acl(tuple(Grant(group, permission) for group in Group for permission in Permission))


def test_the_buckets_own_block() -> None:
    async def scenario(here: World) -> None:
        settings, acls = here.store.settings, here.store.acls
        assert await settings.public_block(ALICE, BUCKET) is None
        await acls.put_bucket(ALICE, BUCKET, PUBLIC_READ)
        assert await settings.is_public(ALICE, BUCKET)
        await settings.put_public_block(ALICE, BUCKET, PublicBlock.BLOCK_ACLS)
        assert await code_of(acls.put_bucket(ALICE, BUCKET, PUBLIC_READ)) == "AccessDenied"
        await here.store.listing.objects(None, BUCKET)
        await settings.put_public_block(ALICE, BUCKET, PublicBlock.IGNORE_ACLS)
        assert await code_of(here.store.listing.objects(None, BUCKET)) == "AccessDenied"
        await acls.put_bucket(ALICE, BUCKET, PUBLIC_READ)
        assert not await settings.is_public(ALICE, BUCKET)
        await settings.put_public_block(ALICE, BUCKET, None)
        await here.store.listing.objects(None, BUCKET)

    run(scenario)


def test_owner_enforcement() -> None:
    async def scenario(here: World) -> None:
        settings, acls, objects = here.store.settings, here.store.acls, here.store.objects
        enforced = Ownership.BUCKET_OWNER_ENFORCED
        await acls.put_bucket(ALICE, BUCKET, READ_WRITE)
        await put(here, BOB, "bobs")
        attempt = settings.put_ownership(ALICE, BUCKET, enforced)
        assert await code_of(attempt) == "InvalidBucketAclWithObjectOwnership"
        await acls.put_bucket(ALICE, BUCKET, AclRequest(CannedAcl.PRIVATE))
        await settings.put_ownership(ALICE, BUCKET, enforced)
        assert (await objects.open(ALICE, BUCKET, "bobs")).info.owner.user_id == "alice-id"
        assert await code_of(objects.open(BOB, BUCKET, "bobs")) == "AccessDenied"
        for request in (PUBLIC_READ, AclRequest(CannedAcl.PRIVATE), granting(BOB, Permission.READ)):
            code = "AccessControlListNotSupported"
            assert await code_of(acls.put_bucket(ALICE, BUCKET, request)) == code
            written = objects.put(ALICE, BUCKET, "n", BytesBody(b""), acl=request)
            assert await code_of(written) == code
        harmless = AclRequest(CannedAcl.BUCKET_OWNER_FULL_CONTROL)
        await objects.put(ALICE, BUCKET, "n", BytesBody(b""), acl=harmless)
        await acls.put_object(ALICE, BUCKET, "n", granting(ALICE, Permission.FULL_CONTROL))
        await settings.put_ownership(ALICE, BUCKET, None)
        assert (await objects.open(BOB, BUCKET, "bobs")).info.owner.user_id == "bob-id"

    run(scenario)


def test_a_bucket_asked_for_again_must_be_what_is_there() -> None:
    async def scenario(here: World) -> None:
        buckets = here.store.buckets
        assert not (await buckets.create(ALICE, BUCKET))[1]
        attempt = buckets.create(ALICE, BUCKET, acl=PUBLIC_READ)
        assert await code_of(attempt) == "BucketAlreadyExists"
        attempt = buckets.create(ALICE, BUCKET, ownership=Ownership.OBJECT_WRITER)
        assert await code_of(attempt) == "BucketAlreadyExists"
        assert (await here.store.acls.get_bucket(ALICE, BUCKET))[1].is_public is False
        enforced = Ownership.BUCKET_OWNER_ENFORCED
        attempt = buckets.create(ALICE, "bucket-x", acl=PUBLIC_READ, ownership=enforced)
        assert await code_of(attempt) == "InvalidBucketAclWithObjectOwnership"

    run(scenario)


def test_bucket_tags() -> None:
    async def scenario(here: World) -> None:
        settings = here.store.settings
        assert await settings.tags(ALICE, BUCKET) == {}
        many = {f"key-{number}": "value" for number in range(50)}
        await settings.put_tags(ALICE, BUCKET, many)
        assert await settings.tags(ALICE, BUCKET) == many
        assert await code_of(settings.put_tags(ALICE, BUCKET, {**many, "one": ""})) == "InvalidTag"
        assert await settings.tags(ALICE, BUCKET) == many
        await settings.put_tags(ALICE, BUCKET, {})
        assert await settings.tags(ALICE, BUCKET) == {}
        assert await here.counters() != {}

    run(scenario)


def test_changes_at_the_same_time_all_count() -> None:
    async def scenario(here: World) -> None:
        settings, acls = here.store.settings, here.store.acls
        await asyncio.gather(
            settings.put_tags(ALICE, BUCKET, {"a": "b"}),
            acls.put_bucket(ALICE, BUCKET, PUBLIC_READ),
            settings.put_ownership(ALICE, BUCKET, Ownership.OBJECT_WRITER),
            settings.put_public_block(ALICE, BUCKET, PublicBlock.BLOCK_POLICY),
        )
        assert await settings.tags(ALICE, BUCKET) == {"a": "b"}
        assert await settings.is_public(ALICE, BUCKET)
        assert await settings.ownership(ALICE, BUCKET) is Ownership.OBJECT_WRITER
        assert await settings.public_block(ALICE, BUCKET) is PublicBlock.BLOCK_POLICY

    run(scenario)


def test_records_keep_lists() -> None:
    owner = Owner("u", "U")
    bucket = BucketRecord(
        owner,
        1,
        acl=ALL,
        ownership=Ownership.BUCKET_OWNER_PREFERRED,
        block=PublicBlock.BLOCK_ACLS,
        tags={"a": "b"},
    )
    assert BucketRecord.decode(bucket.encode()) == bucket
    item = ObjectRecord(Kind.PLAIN, 1, 2, b"m", b"w", owner=owner, acl=Acl())
    assert ObjectRecord.decode(item.encode()) == item
    checksum = (ChecksumAlgorithm.CRC32, ChecksumKind.COMPOSITE)
    begun = UploadRecord(1, owner, NO_ATTRIBUTES, checksum, owner, ALL)
    assert UploadRecord.decode(begun.encode()) == begun
