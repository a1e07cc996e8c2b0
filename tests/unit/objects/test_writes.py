"""Writes under conditions, copies, tags, quotas; and that no history leaks a record."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.core.checksums import ChecksumAlgorithm, encode, hasher
from appliance.core.conditions import ReadCondition, WriteCondition
from appliance.core.errors import LimitExceeded, S3Error
from appliance.objects.limits import ObjectLimits
from appliance.objects.model import Attributes, CopySource
from tests.unit.objects.world import (
    ALICE,
    BOB,
    BUCKET,
    BytesBody,
    RacingEngine,
    World,
    code_of,
    read_all,
    with_bucket,
    world,
)


def digest(algorithm: ChecksumAlgorithm, data: bytes) -> str:
    made = hasher(algorithm)
    made.update(data)
    return encode(made.digest())


def test_the_quota_is_exact_under_concurrency() -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        puts = [here.put(f"k{n}", bytes(100)) for n in range(30)]
        outcomes = await asyncio.gather(*puts, return_exceptions=True)
        failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert all(isinstance(error, LimitExceeded | S3Error) for error in failed)
        assert len(failed) == 20
        assert (await here.counters())[b"bytes"] == 1000
        body = BytesBody(bytes(100))
        late = here.store.objects.put(ALICE, BUCKET, "late", body)
        assert await code_of(late) == "QuotaExceeded"
        assert body.position == 0, "refused before the body"
        await here.put("k0", bytes(50))
        await here.put("late", bytes(50))

    with world(quota_bytes=1000) as here:
        asyncio.run(scenario(here))


def test_conditional_puts() -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)

        async def put(**condition: str) -> str:
            body = BytesBody(b"x" * here.clock.now_ns().bit_length())
            wanted = WriteCondition(**condition)  # type: ignore[arg-type]
            info = await here.store.objects.put(ALICE, BUCKET, "k", body, condition=wanted)
            return info.etag

        assert await code_of(put(if_match="*")) == "NoSuchKey"
        etag = await put(if_none_match="*")
        for condition in ({"if_none_match": "*"}, {"if_match": '"x"'}, {"if_none_match": etag}):
            assert await code_of(put(**condition)) == "PreconditionFailed"
        await put(if_match=f'"{etag}"')
        await put(if_match="*", if_none_match='"x"')

    with world() as here:
        asyncio.run(scenario(here))


@pytest.mark.parametrize("size", [10, 200_000])
def test_one_of_many_conditional_puts_wins(size: int, chance: random.Random) -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        only = WriteCondition(if_none_match="*")
        for _ in range(3):
            bodies = [bytes([n]) * size for n in range(12)]
            outcomes = await asyncio.gather(
                *(
                    here.store.objects.put(ALICE, BUCKET, "k", BytesBody(body), condition=only)
                    for body in bodies
                ),
                return_exceptions=True,
            )
            won = [n for n, found in enumerate(outcomes) if not isinstance(found, BaseException)]
            assert len(won) == 1
            assert await here.get("k") == bodies[won[0]]
            lost = [found for found in outcomes if isinstance(found, S3Error)]
            assert {error.code for error in lost} == {"PreconditionFailed"} and len(lost) == 11
            await here.store.objects.delete(ALICE, BUCKET, "k")

    with world(engine=RacingEngine(chance)) as here:
        asyncio.run(scenario(here))


def test_compare_and_swap_counts_right(chance: random.Random) -> None:
    """Increments by If-Match from many tasks: none is lost."""

    async def increment(here: World, times: int) -> None:
        done = 0
        while done < times:
            opened = await here.store.objects.open(ALICE, BUCKET, "counter")
            value = int(await read_all(opened)) + 1
            body, condition = BytesBody(b"%d" % value), WriteCondition(opened.info.etag)
            try:
                await here.store.objects.put(ALICE, BUCKET, "counter", body, condition=condition)
            except S3Error as error:
                assert error.code == "PreconditionFailed"
                continue
            done += 1

    async def scenario(here: World) -> None:
        await with_bucket(here)
        await here.put("counter", b"0")
        await asyncio.gather(*(increment(here, 5) for _ in range(8)))
        assert await here.get("counter") == b"40"

    with world(engine=RacingEngine(chance)) as here:
        asyncio.run(scenario(here))


def test_copies() -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        await here.store.buckets.create(ALICE, "bucket-two")
        data = random.Random(5).randbytes(150_000)
        attributes = Attributes("text/x", {"expires": "x"}, {"a": "1"}, {"t": "1"})
        objects = here.store.objects
        first = await objects.put(ALICE, BUCKET, "k", BytesBody(data), attributes)
        source = CopySource(BUCKET, "k")
        info = await objects.copy(ALICE, source, "bucket-two", "copy")
        assert info.attributes == attributes and info.etag == first.etag
        assert await here.get("copy", "bucket-two") == data
        replaced = await objects.copy(
            ALICE,
            source,
            BUCKET,
            "k",
            attributes=Attributes("text/y"),
            tags={"u": "2"},
            checksum_algorithm=ChecksumAlgorithm.SHA256,
        )
        assert replaced.attributes == Attributes("text/y", tags={"u": "2"})
        assert replaced.checksum is not None
        assert replaced.checksum.value == digest(ChecksumAlgorithm.SHA256, data)
        kept = await objects.copy(ALICE, source, BUCKET, "l", attributes=Attributes("z"))
        assert kept.attributes == Attributes("z", tags={"u": "2"})
        assert kept.checksum is not None
        assert kept.checksum.algorithm is ChecksumAlgorithm.SHA256

    with world() as here:
        asyncio.run(scenario(here))


def test_refused_copies() -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        info = await here.put("k", bytes(2000))
        copy = here.store.objects.copy
        source = CopySource(BUCKET, "k")
        assert await code_of(copy(ALICE, source, BUCKET, "k")) == "InvalidRequest"
        cases = [
            (ALICE, CopySource(BUCKET, "none"), "NoSuchKey"),
            (ALICE, CopySource("bucket-none", "k"), "NoSuchBucket"),
            (BOB, source, "AccessDenied"),
            (ALICE, CopySource(BUCKET, "k", "junk"), "InvalidArgument"),
        ]
        cases += [
            (ALICE, CopySource(BUCKET, "k", None, condition), "PreconditionFailed")
            for condition in (
                ReadCondition(if_match='"x"'),
                ReadCondition(if_none_match=info.etag),
                ReadCondition(if_modified_since_ns=info.modified_ns),
            )
        ]
        for caller, wanted, code in cases:
            assert await code_of(copy(caller, wanted, BUCKET, "l")) == code
        exists = WriteCondition(if_none_match="*")
        await copy(ALICE, source, BUCKET, "l", condition=exists)
        refused = copy(ALICE, source, BUCKET, "l", condition=exists)
        assert await code_of(refused) == "PreconditionFailed"
        await here.put("large", bytes(3000))
        too_large = copy(ALICE, CopySource(BUCKET, "large"), BUCKET, "m")
        assert await code_of(too_large) == "InvalidRequest"

    with world(ObjectLimits(copy_source_max_bytes=2500)) as here:
        asyncio.run(scenario(here))


def test_tags_change_without_the_content() -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        await here.put("k", b"content")
        await here.put_in_parts("parts", [bytes(1000), b"1"])
        counters = await here.counters()
        for key in ("k", "parts"):
            before = await here.get(key)
            info, tags = await here.store.tags.get(ALICE, BUCKET, key)
            assert tags == {}
            await here.store.tags.put(ALICE, BUCKET, key, {"b": "2", "a": "1"})
            after, tags = await here.store.tags.get(ALICE, BUCKET, key)
            assert list(tags.items()) == [("b", "2"), ("a", "1")]
            assert (after.modified_ns, after.etag) == (info.modified_ns, info.etag)
            assert await here.get(key) == before
            many = {f"k{n}": "" for n in range(11)}
            assert await code_of(here.store.tags.put(ALICE, BUCKET, key, many)) == "InvalidTag"
            await here.store.tags.delete(ALICE, BUCKET, key)
            assert (await here.store.tags.get(ALICE, BUCKET, key))[1] == {}
        assert await here.counters() == counters
        assert await code_of(here.store.tags.get(ALICE, BUCKET, "none")) == "NoSuchKey"

    with world() as here:
        asyncio.run(scenario(here))


deeds = st.lists(
    st.tuples(
        st.sampled_from(["put", "large", "parts", "delete", "copy", "tags", "many"]),
        st.sampled_from("abc"),
        st.sampled_from("abc"),
    ),
    max_size=25,
)


@given(deeds)
@settings(max_examples=30)
def test_any_history_leaks_nothing(history: list[tuple[str, str, str]]) -> None:
    """Against a dictionary: contents, counters, and no record that belongs to nothing."""

    async def act(here: World, model: dict[str, bytes], deed: str, key: str, other: str) -> None:
        data = here.clock.now_ns().to_bytes(8, "big") * 30
        objects = here.store.objects
        if deed == "put":
            model[key] = data
            await here.put(key, data)
        elif deed == "large":
            model[key] = data * 400
            await here.put(key, data * 400)
        elif deed == "parts":
            model[key] = data * 10 + b"end"
            await here.put_in_parts(key, [data * 5, data * 5, b"end"])
        elif deed == "delete":
            model.pop(key, None)
            await objects.delete(ALICE, BUCKET, key)
        elif deed == "many":
            model.pop(key, None)
            model.pop(other, None)
            await objects.delete_many(ALICE, BUCKET, [(key, None), (other, None)])
        elif deed == "copy" and key in model and key != other:
            model[other] = model[key]
            await objects.copy(ALICE, CopySource(BUCKET, key), BUCKET, other)
        elif deed == "tags" and key in model:
            await here.store.tags.put(ALICE, BUCKET, key, {"t": str(here.clock.now)})

    async def scenario(here: World) -> None:
        await with_bucket(here)
        model: dict[str, bytes] = {}
        for deed, key, other in history:
            await act(here, model, deed, key, other)
        for key, data in model.items():
            assert await here.get(key) == data
        listed = await here.store.listing.objects(ALICE, BUCKET)
        assert [entry.key for entry in listed.entries] == sorted(model)
        counters = await here.counters()
        assert counters.get(b"bytes", 0) == sum(map(len, model.values()))
        assert counters.get(b"objects", 0) == len(model)
        for key in list(model):
            await here.store.objects.delete(ALICE, BUCKET, key)
        assert await here.record_keys() == []
        assert await here.counters() == {}

    with world() as here:
        asyncio.run(scenario(here))


def test_tags_cross_with_writes(chance: random.Random) -> None:
    """A change of tags never brings an older content back, and never loses another's change."""

    async def write(here: World, number: int) -> None:
        await here.put("k", b"content %d" % number)

    async def tag(here: World) -> None:
        await here.store.tags.put(ALICE, BUCKET, "k", {"t": "1"})

    async def scenario(here: World) -> None:
        await with_bucket(here)
        await write(here, 0)
        for number in range(1, 40):
            await asyncio.gather(tag(here), write(here, number), tag(here))
            assert await here.get("k") == b"content %d" % number
            info = (await here.store.objects.head(ALICE, BUCKET, "k")).info
            assert (await here.counters())[b"bytes"] == info.size_bytes

    with world(engine=RacingEngine(chance)) as here:
        asyncio.run(scenario(here))
