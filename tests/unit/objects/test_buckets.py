"""Buckets: names, owners, the registry, removal."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from dataclasses import replace

import pytest

from appliance.core.errors import EngineError, S3Error
from appliance.core.recordkeys import bucket_key, registry_key
from appliance.engine.interface import SYSTEM, Batch, Committed, Partition
from appliance.engine.sim import SimulatedEngine
from appliance.objects.limits import ObjectLimits
from appliance.objects.model import Caller
from tests.unit.objects.world import (
    ALICE,
    BOB,
    BUCKET,
    CAROL,
    SMALL_LIMITS,
    RacingEngine,
    World,
    code_of,
    with_bucket,
    world,
)


def test_create_head_list_delete() -> None:
    async def scenario(here: World) -> None:
        buckets = here.store.buckets
        made, new = await buckets.create(ALICE, BUCKET, region="jp-1")
        assert new and made.owner.user_id == "alice-id" and made.region == "jp-1"
        assert await buckets.head(ALICE, BUCKET) == made
        assert await buckets.create(ALICE, BUCKET) == (made, False)
        await buckets.create(BOB, "bucket-two")
        assert [found.name for found in (await buckets.list(ALICE)).items] == [BUCKET]
        await buckets.delete(ALICE, BUCKET)
        assert await code_of(buckets.head(ALICE, BUCKET)) == "NoSuchBucket"
        assert await code_of(buckets.delete(ALICE, BUCKET)) == "NoSuchBucket"
        assert (await buckets.create(CAROL, BUCKET))[1]

    with world() as here:
        asyncio.run(scenario(here))


def test_strangers_are_refused() -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        buckets = here.store.buckets
        for stranger in (BOB, CAROL, None):
            assert await code_of(buckets.head(stranger, BUCKET)) == "AccessDenied"
            assert await code_of(buckets.delete(stranger, BUCKET)) == "AccessDenied"
            assert await code_of(buckets.head(stranger, "bucket-none")) == "NoSuchBucket"
        assert await code_of(buckets.create(BOB, BUCKET)) == "BucketAlreadyExists"
        assert await code_of(buckets.create(CAROL, BUCKET)) == "BucketAlreadyExists"
        assert await code_of(buckets.create(None, "bucket-x")) == "AccessDenied"
        assert await code_of(buckets.list(None)) == "AccessDenied"
        assert await code_of(buckets.head(ALICE, "No/Bucket\x00é")) == "NoSuchBucket"

    with world() as here:
        asyncio.run(scenario(here))


def test_names_carry_the_contracts_prefix() -> None:
    async def scenario(here: World) -> None:
        acme = Caller("a", "A", "c9", "acme-")
        assert await code_of(here.store.buckets.create(acme, "other")) == "InvalidBucketName"
        assert (await here.store.buckets.create(acme, "acme-1"))[1]

    with world() as here:
        asyncio.run(scenario(here))


def test_buckets_page_by_name() -> None:
    async def scenario(here: World) -> None:
        names = [f"bucket-{n:02}" for n in range(7)]
        for name in reversed(names):
            await here.store.buckets.create(ALICE, name)
            await here.store.buckets.create(BOB, f"{name}-bob")
        found, after = [], ""
        while True:
            page = await here.store.buckets.list(ALICE, after=after, limit=3)
            found += [bucket.name for bucket in page.items]
            if not page.truncated:
                break
            assert page.next_after == found[-1]
            after = found[-1]
        assert found == names
        some = await here.store.buckets.list(ALICE, prefix="bucket-03")
        assert [bucket.name for bucket in some.items] == ["bucket-03"]

    with world() as here:
        asyncio.run(scenario(here))


def test_an_account_has_so_many_buckets() -> None:
    async def scenario(here: World) -> None:
        for number in range(2):
            await here.store.buckets.create(ALICE, f"bucket-{number}")
        assert await code_of(here.store.buckets.create(ALICE, "bucket-9")) == "TooManyBuckets"
        await here.store.buckets.delete(ALICE, "bucket-0")
        assert (await here.store.buckets.create(ALICE, "bucket-9"))[1]

    with world(ObjectLimits(buckets_per_account=2)) as here:
        asyncio.run(scenario(here))


def test_delete_takes_unfinished_uploads_but_no_object() -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        await here.put("k", b"data")
        await here.upload("big", [b"x" * 2000, b"y"])
        assert await code_of(here.store.buckets.delete(ALICE, BUCKET)) == "BucketNotEmpty"
        assert len((await here.store.uploads.list(ALICE, BUCKET)).uploads) == 1
        await here.store.objects.delete(ALICE, BUCKET, "k")
        await here.store.buckets.delete(ALICE, BUCKET)
        assert await here.record_keys() == []
        assert await here.counters() == {}

    with world() as here:
        asyncio.run(scenario(here))


def test_a_bucket_gone_elsewhere_is_seen_at_once() -> None:
    """Two gateways: what one remembers does not outlive what the other does."""

    async def scenario(here: World, there: World) -> None:
        await with_bucket(here)
        await here.put("k", b"data")
        assert await there.get("k") == b"data"
        await here.store.objects.delete(ALICE, BUCKET, "k")
        await there.put("k", b"again")
        await there.store.objects.delete(ALICE, BUCKET, "k")
        await there.store.buckets.delete(ALICE, BUCKET)
        assert await code_of(here.put("k", b"late")) == "NoSuchBucket"
        assert await code_of(here.get("k")) == "NoSuchBucket"
        await there.store.buckets.create(CAROL, BUCKET)
        assert await code_of(here.put("k", b"late")) == "AccessDenied"
        assert await here.record_keys("c2") == await here.record_keys("c1") == []

    with world() as here, world(engine=here.engine) as there:
        asyncio.run(scenario(here, there))


class CuttingEngine(SimulatedEngine):
    """Fails the n-th commit from now, before or after it takes effect."""

    def __init__(self) -> None:
        super().__init__()
        self.cut_at = -1
        self.applied = False

    async def commit(self, partition: Partition, batch: Batch) -> Committed:
        self.cut_at -= 1
        if self.cut_at == 0:
            if self.applied:
                await super().commit(partition, batch)
            raise EngineError("cut")
        return await super().commit(partition, batch)


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("cut_at", [1, 2])
@pytest.mark.parametrize("deed", ["create", "delete"])
def test_a_crash_between_the_two_records_can_be_gone_over(
    deed: str, cut_at: int, applied: bool
) -> None:
    async def scenario(here: World, engine: CuttingEngine) -> None:
        buckets = here.store.buckets
        if deed == "delete":
            await buckets.create(ALICE, BUCKET)
        engine.cut_at, engine.applied = cut_at, applied
        with pytest.raises(EngineError, match="cut"):
            await (buckets.create if deed == "create" else buckets.delete)(ALICE, BUCKET)
        [claim] = await engine.read(SYSTEM, [registry_key(BUCKET)])
        [record] = await engine.read(Partition("c1"), [bucket_key(BUCKET)])
        assert record is None or claim is not None, "a bucket has its name"
        await buckets.create(ALICE, BUCKET)
        await here.put("k", b"1")
        assert await code_of(buckets.create(CAROL, BUCKET)) == "BucketAlreadyExists"

    engine = CuttingEngine()
    with world(engine=engine) as here:
        asyncio.run(scenario(here, engine))


def test_creates_and_deletes_that_cross(chance: random.Random) -> None:
    """Whoever wins: a bucket record always has a claim of its contract."""

    async def worker(here: World, caller: Caller, rounds: int) -> None:
        for _ in range(rounds):
            for deed in (here.store.buckets.create, here.store.buckets.delete):
                try:
                    await deed(caller, BUCKET)
                except S3Error as error:
                    assert error.code != "InternalError"

    async def scenario(here: World) -> None:
        callers = [ALICE, ALICE, ALICE, BOB, CAROL, CAROL]
        for _ in range(40):
            await asyncio.gather(*(worker(here, caller, 3) for caller in callers))
            await consistent(here)
            for caller in (ALICE, BOB, CAROL):
                try:
                    await here.store.buckets.create(caller, BUCKET)
                except S3Error as error:
                    assert error.code == "BucketAlreadyExists"
                await consistent(here)

    async def consistent(here: World) -> None:
        [claim] = await here.engine.read(SYSTEM, [registry_key(BUCKET)])
        for contract in ("c1", "c2"):
            [record] = await here.engine.read(Partition(contract), [bucket_key(BUCKET)])
            if record is not None:
                assert claim is not None and contract.encode() in claim.value

    with world(engine=RacingEngine(chance)) as here:
        asyncio.run(scenario(here))


def test_a_claim_given_up_is_not_anothers(chance: random.Random) -> None:
    """Alice, who has all her buckets, and Bob ask for one name of their contract at once."""

    async def scenario(here: World) -> None:
        buckets = here.store.buckets
        await buckets.create(ALICE, "bucket-hers")
        for _ in range(100):
            full, made = await asyncio.gather(
                buckets.create(ALICE, BUCKET), buckets.create(BOB, BUCKET), return_exceptions=True
            )
            assert isinstance(full, S3Error)
            assert full.code in ("TooManyBuckets", "BucketAlreadyExists")
            assert not isinstance(made, BaseException) and made[1]
            [claim] = await here.engine.read(SYSTEM, [registry_key(BUCKET)])
            assert claim is not None
            await buckets.delete(BOB, BUCKET)

    limits = replace(SMALL_LIMITS, buckets_per_account=1)
    with world(limits, engine=RacingEngine(chance)) as here:
        asyncio.run(scenario(here))


@pytest.mark.parametrize("sweep_records", [2, 5000])
def test_objects_cross_with_their_buckets_end(sweep_records: int, chance: random.Random) -> None:
    """No object, upload or part outlives its bucket or appears in the next one of that name."""

    async def later(attempt: Awaitable[object], *allowed: str) -> None:
        for _ in range(chance.randrange(30)):
            await asyncio.sleep(0)
        try:
            await attempt
        except S3Error as error:
            assert error.code in allowed

    async def scenario(here: World) -> None:
        ended = 0
        for _ in range(150):
            await here.store.buckets.create(ALICE, BUCKET)
            upload_id, done = await here.upload("l", [bytes(1000), b"2"])
            uploads = here.store.uploads
            deed = here.put("k", b"1") if chance.random() < 0.3 else here.upload("m", [b"1"])
            await asyncio.gather(
                later(here.store.buckets.delete(ALICE, BUCKET), "BucketNotEmpty"),
                later(deed, "NoSuchBucket", "NoSuchUpload"),
                later(
                    uploads.complete(ALICE, BUCKET, "l", upload_id, done),
                    "NoSuchBucket",
                    "NoSuchUpload",
                    "InvalidPart",
                ),
            )
            [record] = await here.engine.read(Partition("c1"), [bucket_key(BUCKET)])
            if record is None:
                ended += 1
                assert await here.record_keys() == []
                continue
            for entry in (await here.store.listing.objects(ALICE, BUCKET)).entries:
                assert len(await here.get(entry.key)) == entry.size_bytes
                await here.store.objects.delete(ALICE, BUCKET, entry.key)
            await here.store.buckets.delete(ALICE, BUCKET)
            assert await here.record_keys() == []
        assert 0 < ended < 150

    limits = replace(SMALL_LIMITS, sweep_records=sweep_records)
    with world(limits, engine=RacingEngine(chance)) as here:
        asyncio.run(scenario(here))
