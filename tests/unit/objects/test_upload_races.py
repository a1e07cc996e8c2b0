"""Uploads side by side: lists, races, the largest batch; nothing is left behind."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Awaitable, Callable

import pytest

from appliance.core.checksums import ChecksumAlgorithm
from appliance.core.conditions import WriteCondition
from appliance.core.errors import S3Error, Unavailable
from appliance.objects.limits import ObjectLimits
from appliance.objects.model import CompletedPart, CopySource
from tests.unit.objects.world import (
    ALICE,
    BUCKET,
    BytesBody,
    RacingEngine,
    World,
    code_of,
    read_all,
    with_bucket,
    world,
)

SHA256, CRC32 = ChecksumAlgorithm.SHA256, ChecksumAlgorithm.CRC32


def test_parts_count_against_the_quota() -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        upload_id, _ = await here.upload("k", [bytes(1000), bytes(1000)])
        put = here.store.uploads.put_part
        over = put(ALICE, BUCKET, "k", upload_id, 3, BytesBody(bytes(501)))
        assert await code_of(over) == "QuotaExceeded"
        await put(ALICE, BUCKET, "k", upload_id, 2, BytesBody(bytes(1500)))
        await here.store.uploads.abort(ALICE, BUCKET, "k", upload_id)
        assert await here.counters() == {}
        assert await here.record_keys() == []

    with world(quota_bytes=2500) as here:
        asyncio.run(scenario(here))


def test_lists_of_parts_page() -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        upload_id, _ = await here.upload("k", [bytes([n]) for n in range(7)])
        numbers, after = [], 0
        while True:
            page = await here.store.uploads.list_parts(
                ALICE, BUCKET, "k", upload_id, after_number=after, limit=3
            )
            numbers += [part.number for part in page.parts]
            if not page.truncated:
                break
            assert page.next_after == numbers[-1]
            after = numbers[-1]
        assert numbers == list(range(1, 8))
        assert page.upload.upload_id == upload_id and page.upload.initiator.user_id == "alice-id"
        listing = here.store.uploads.list_parts(ALICE, BUCKET, "k", "nope")
        assert await code_of(listing) == "NoSuchUpload"
        none = await here.store.uploads.list_parts(ALICE, BUCKET, "k", upload_id, limit=0)
        assert (none.parts, none.truncated) == ([], False)

    with world() as here:
        asyncio.run(scenario(here))


@pytest.mark.parametrize("limit", [1, 2, 1000])
@pytest.mark.parametrize("delimiter", ["", "/"])
def test_lists_of_uploads_page(limit: int, delimiter: str) -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        made = []
        for key in ("b", "a", "a", "d/1", "d/2", "a"):
            made.append((key, (await here.store.uploads.create(ALICE, BUCKET, key)).upload_id))
        seen: list[tuple[str, str]] = []
        commons: list[str] = []
        key_marker = upload_marker = ""
        while True:
            page = await here.store.uploads.list(
                ALICE,
                BUCKET,
                delimiter=delimiter,
                key_marker=key_marker,
                upload_marker=upload_marker,
                limit=limit,
            )
            seen += [(upload.key, upload.upload_id) for upload in page.uploads]
            commons += page.common_prefixes
            if not page.truncated:
                break
            key_marker = page.next_key_marker or ""
            upload_marker = page.next_upload_marker or ""
        # By key, and of one key in the order they began.
        expected = sorted(made, key=lambda upload: upload[0])
        if delimiter:
            expected = [upload for upload in expected if "/" not in upload[0]]
        assert seen == expected
        assert commons == (["d/"] if delimiter else [])

    with world() as here:
        asyncio.run(scenario(here))


def test_conditional_completions_race(chance: random.Random) -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        ready = [await here.upload("k", [bytes([n]) * 1000, b"z"]) for n in range(6)]
        only = WriteCondition(if_none_match="*")
        outcomes = await asyncio.gather(
            *(
                here.store.uploads.complete(ALICE, BUCKET, "k", upload, done, condition=only)
                for upload, done in ready
            ),
            return_exceptions=True,
        )
        won = [n for n, found in enumerate(outcomes) if not isinstance(found, BaseException)]
        assert len(won) == 1
        assert await here.get("k") == bytes([won[0]]) * 1000 + b"z"
        lost = [found.code for found in outcomes if isinstance(found, S3Error)]
        assert lost == ["PreconditionFailed"] * 5
        for number, (upload, _done) in enumerate(ready):
            if number not in won:
                await here.store.uploads.abort(ALICE, BUCKET, "k", upload)
        assert (await here.counters())[b"bytes"] == 1001

    with world(engine=RacingEngine(chance)) as here:
        asyncio.run(scenario(here))


async def any_of(attempt: Awaitable[object]) -> None:
    """Run it; a refusal in S3's words is an outcome, anything else is a fault."""
    try:
        await attempt
    except (S3Error, Unavailable):
        return


def test_everything_at_once_on_one_key_leaks_nothing(chance: random.Random) -> None:
    """Puts, uploads, parts that come late, aborts, deletes and copies cross on one key."""

    async def upload(here: World) -> None:
        upload_id, done = await here.upload("k", [bytes(1000), b"end"])
        uploads = here.store.uploads
        late = uploads.put_part(ALICE, BUCKET, "k", upload_id, 3, BytesBody(b"late"))
        again = uploads.put_part(ALICE, BUCKET, "k", upload_id, 2, BytesBody(b"end"))
        deeds: list[Awaitable[object]] = [late, again]
        deeds.append(uploads.complete(ALICE, BUCKET, "k", upload_id, done))
        if chance.random() < 0.5:
            deeds.append(uploads.abort(ALICE, BUCKET, "k", upload_id))
        chance.shuffle(deeds)
        await asyncio.gather(*map(any_of, deeds))
        await any_of(uploads.abort(ALICE, BUCKET, "k", upload_id))

    async def act(here: World) -> None:
        objects = here.store.objects
        deed = chance.randrange(6)
        if deed == 0:
            await here.put("k", b"plain")
        elif deed == 1:
            await objects.delete(ALICE, BUCKET, "k")
        elif deed == 2:
            await objects.delete_many(ALICE, BUCKET, [("k", None), ("l", None)])
        elif deed == 3:
            await any_of(objects.copy(ALICE, CopySource(BUCKET, "k"), BUCKET, "l"))
        elif deed == 4:
            await any_of(here.store.tags.put(ALICE, BUCKET, "k", {"a": "b"}))
        else:
            await upload(here)

    async def scenario(here: World) -> None:
        await with_bucket(here)
        for _ in range(40):
            await asyncio.gather(*(act(here) for _ in range(8)))
            listed = await here.store.listing.objects(ALICE, BUCKET)
            counters = await here.counters()
            assert counters.get(b"objects", 0) == len(listed.entries)
            stored = sum(entry.size_bytes for entry in listed.entries)
            assert counters.get(b"bytes", 0) == stored
            for entry in listed.entries:
                assert len(await here.get(entry.key)) == entry.size_bytes
        for key in ("k", "l"):
            await here.store.objects.delete(ALICE, BUCKET, key)
        assert await here.record_keys() == []
        await here.store.buckets.delete(ALICE, BUCKET)

    with world(engine=RacingEngine(chance)) as here:
        asyncio.run(scenario(here))


def test_a_part_replaced_while_its_upload_is_finished(chance: random.Random) -> None:
    """The object has one of the two contents whole, and its tag says which."""

    async def scenario(here: World) -> None:
        await with_bucket(here)
        uploads = here.store.uploads
        for _ in range(60):
            upload_id, done = await here.upload("k", [b"a" * 1000])
            last = await uploads.put_part(ALICE, BUCKET, "k", upload_id, 3, BytesBody(b"end"))
            done.append(CompletedPart(3, last.etag))
            others = [
                uploads.put_part(ALICE, BUCKET, "k", upload_id, number, BytesBody(b"late"))
                for number in chance.sample((1, 2, 4, 10_000), 2)
            ]
            complete = uploads.complete(ALICE, BUCKET, "k", upload_id, done)
            await asyncio.gather(any_of(complete), *map(any_of, others))
            await any_of(uploads.abort(ALICE, BUCKET, "k", upload_id))
            listed = (await here.store.listing.objects(ALICE, BUCKET)).entries
            if listed:
                assert await here.get("k") == b"a" * 1000 + b"end"
            counters = await here.counters()
            assert counters.get(b"bytes", 0) == 1003 * len(listed)
            await here.store.objects.delete(ALICE, BUCKET, "k")
            assert await here.record_keys() == []

    with world(engine=RacingEngine(chance)) as here:
        asyncio.run(scenario(here))


def test_completing_twice_at_once_is_completing_once(chance: random.Random) -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        for _ in range(60):
            upload_id, done = await here.upload("k", [b"a" * 1000, b"end"])
            complete = here.store.uploads.complete
            outcomes = await asyncio.gather(
                *(complete(ALICE, BUCKET, "k", upload_id, done) for _ in range(3))
            )
            assert len({outcome.modified_ns for outcome in outcomes}) == 1
            assert await here.get("k") == b"a" * 1000 + b"end"
            assert (await here.counters())[b"bytes"] == 1003

    with world(engine=RacingEngine(chance)) as here:
        asyncio.run(scenario(here))


def test_deleting_many_crosses_with_completions(chance: random.Random) -> None:
    async def later(delete_many: Callable[..., Awaitable[object]]) -> None:
        for _ in range(chance.randrange(60)):
            await asyncio.sleep(0)
        await delete_many(ALICE, BUCKET, [("k", None)])

    async def scenario(here: World) -> None:
        await with_bucket(here)
        for _ in range(60):
            await here.put("k", b"plain")
            upload_id, done = await here.upload("k", [b"a" * 1000, b"end"])
            complete = here.store.uploads.complete
            twice = [complete(ALICE, BUCKET, "k", upload_id, done) for _ in range(2)]
            await asyncio.gather(*map(any_of, twice), later(here.store.objects.delete_many))
            await here.store.objects.delete(ALICE, BUCKET, "k")
            assert await here.record_keys() == []

    with world(engine=RacingEngine(chance)) as here:
        asyncio.run(scenario(here))


def test_ten_thousand_parts_replace_ten_thousand() -> None:
    """The largest batch there is: new parts unused, old parts gone, in one commit."""

    async def scenario(here: World) -> None:
        await with_bucket(here)
        limits = here.store.limits
        for _ in range(2):
            info = await here.put_in_parts("k", [b"x"] * limits.parts)
            assert (info.parts, info.size_bytes) == (10_000, 10_000)
        assert (await here.counters())[b"bytes"] == 10_000
        etag = base64.b16decode(info.etag[:32].upper())
        assert len(etag) == 16
        opened = await here.store.objects.open(ALICE, BUCKET, "k")
        assert await read_all(opened, 9_990, 10) == b"x" * 10
        await here.store.objects.delete(ALICE, BUCKET, "k")
        assert await here.record_keys() == []

    with world(ObjectLimits(part_min_bytes=1)) as here:
        asyncio.run(scenario(here))
