"""Listings against a plain model: order, rolling up, paging, versions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.core.checksums import ChecksumAlgorithm, ChecksumKind
from appliance.core.errors import S3Error
from appliance.core.recordkeys import NULL_ORDER, bucket_key, object_key
from appliance.engine.interface import Batch, Operation, Partition, Put, Record
from appliance.engine.sim import SimulatedEngine
from appliance.objects.model import Listing
from appliance.objects.records import BucketRecord, Kind, ObjectRecord, StoredChecksum, Versioning
from tests.unit.objects.world import ALICE, BUCKET, World, with_bucket, world

PARTITION = Partition("c1")
names = st.text(st.sampled_from("ab/+é\x00"), min_size=1, max_size=5)
prefixes = st.text(st.sampled_from("ab/"), max_size=2)
delimiters = st.sampled_from(["", "/", "a", "ab", "//", "é", "\x00"])


def record(kind: Kind = Kind.PLAIN, version_id: str = "", size: int = 3) -> bytes:
    checksum = StoredChecksum(
        ChecksumAlgorithm.CRC64NVME, ChecksumKind.FULL_OBJECT, bytes(8), declared=False
    )
    return ObjectRecord(
        kind, size, 1_000, bytes(16), bytes(32), checksum=checksum, version_id=version_id
    ).encode()


async def fill(here: World, keys: Sequence[str]) -> None:
    operations: list[Operation] = [Put(object_key(BUCKET, key), record()) for key in keys]
    await here.engine.commit(PARTITION, Batch(operations))


def rolled_up(keys: Sequence[str], prefix: str, delimiter: str) -> list[tuple[str, bool]]:
    """What a listing shows, in order: (text, whether it is a common prefix)."""
    shown: list[tuple[str, bool]] = []
    for key in sorted(keys, key=str.encode):
        if not key.startswith(prefix):
            continue
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        item = (key, False) if cut < 0 else (key[: cut + len(delimiter)], True)
        if item not in shown:
            shown.append(item)
    return shown


async def pages(
    here: World, prefix: str, delimiter: str, limit: int, after: str = ""
) -> list[Listing]:
    found = []
    while True:
        page = await here.store.listing.objects(
            ALICE, BUCKET, prefix=prefix, delimiter=delimiter, after=after, limit=limit
        )
        found.append(page)
        if not page.truncated:
            assert page.next_after is None
            return found
        assert page.next_after is not None
        after = page.next_after


@given(st.sets(names, max_size=25), prefixes, delimiters, st.sampled_from([1, 2, 3, 1000]))
@settings(max_examples=200)
def test_pages_are_the_model(keys: set[str], prefix: str, delimiter: str, limit: int) -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        await fill(here, list(keys))
        found = await pages(here, prefix, delimiter, limit)
        expected = rolled_up(list(keys), prefix, delimiter)
        seen: list[tuple[str, bool]] = []
        for page in found:
            items = [(entry.key, False) for entry in page.entries]
            items += [(common, True) for common in page.common_prefixes]
            seen += sorted(items, key=lambda item: item[0].encode())
        assert seen == expected
        sizes = [len(page.entries) + len(page.common_prefixes) for page in found]
        assert all(size == limit for size in sizes[:-1])
        assert sizes[-1] > 0 or not expected

    with world() as here:
        asyncio.run(scenario(here))


@given(st.sets(names, max_size=20), names)
@settings(max_examples=60)
def test_after_is_exclusive(keys: set[str], after: str) -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        await fill(here, list(keys))
        page = await here.store.listing.objects(ALICE, BUCKET, after=after)
        behind = sorted((key for key in keys if key.encode() > after.encode()), key=str.encode)
        assert [entry.key for entry in page.entries] == behind

    with world() as here:
        asyncio.run(scenario(here))


def test_a_limit_of_nothing_is_a_whole_page() -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        await fill(here, ["a"])
        assert await here.store.listing.objects(ALICE, BUCKET, limit=0) == Listing([], [])

    with world() as here:
        asyncio.run(scenario(here))


def test_resuming_inside_and_behind_a_prefix() -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        await fill(here, ["a/1", "a/2", "b", "c/1"])
        listing = here.store.listing
        inside = await listing.objects(ALICE, BUCKET, prefix="a/", delimiter="/", after="a/1")
        assert [entry.key for entry in inside.entries] == ["a/2"]
        behind = await listing.objects(ALICE, BUCKET, delimiter="/", after="a/")
        assert ([e.key for e in behind.entries], behind.common_prefixes) == (["b"], ["c/"])
        within = await listing.objects(ALICE, BUCKET, delimiter="/", after="a/1")
        assert within.common_prefixes == ["a/", "c/"], "there is more of it behind a/1"
        with pytest.raises(S3Error) as caught:
            await listing.objects(ALICE, BUCKET, prefix="\udc80")
        assert caught.value.code == "InvalidArgument"

    with world() as here:
        asyncio.run(scenario(here))


class CountingEngine(SimulatedEngine):
    """Counts what scans touch."""

    def __init__(self) -> None:
        super().__init__()
        self.scans = 0
        self.touched = 0

    async def scan(
        self,
        partition: Partition,
        start: bytes,
        end: bytes,
        limit: int,
        *,
        reverse: bool = False,
        blobs: bool = True,
    ) -> list[Record]:
        found = await super().scan(partition, start, end, limit, reverse=reverse, blobs=blobs)
        self.scans += 1
        self.touched += len(found)
        return found


def test_common_prefixes_are_jumped_over() -> None:
    """Two prefixes over thousands of keys cost a few steps, not a walk through all of them."""

    async def scenario(here: World, engine: CountingEngine) -> None:
        await with_bucket(here)
        await fill(here, [f"{top}/{n:05}" for top in "ab" for n in range(5000)] + ["c"])
        page = await here.store.listing.objects(ALICE, BUCKET, delimiter="/")
        assert (page.common_prefixes, len(page.entries)) == (["a/", "b/"], 1)
        assert engine.scans <= 4 and engine.touched < 1000
        engine.scans = engine.touched = 0
        page = await here.store.listing.objects(ALICE, BUCKET)
        assert len(page.entries) == 1000 and page.truncated
        assert (engine.scans, engine.touched) == (1, 1001), "a page is one scan"

    engine = CountingEngine()
    with world(engine=engine) as here:
        asyncio.run(scenario(here, engine))


async def fill_versions(here: World, keys: dict[str, list[bool]]) -> None:
    """Versions newest first; True is a delete marker. The last is the null version."""
    bucket = BucketRecord((await here.store.buckets.head(ALICE, BUCKET)).owner, 1)
    changed = BucketRecord(bucket.owner, 1, "", Versioning.ENABLED)
    operations: list[Operation] = [Put(bucket_key(BUCKET), changed.encode())]
    for key, versions in keys.items():
        for number, marker in enumerate(versions):
            last = number == len(versions) - 1
            order = NULL_ORDER if last else (number + 1).to_bytes(8, "big")
            version_id = "" if last else order.hex()
            kind = Kind.DELETE_MARKER if marker else Kind.PLAIN
            operations.append(Put(object_key(BUCKET, key, order), record(kind, version_id)))
    await here.engine.commit(PARTITION, Batch(operations))


versioned = st.dictionaries(
    st.text(st.sampled_from("ab/"), min_size=1, max_size=4),
    st.lists(st.booleans(), min_size=1, max_size=20),
    max_size=6,
)


@given(versioned, prefixes, st.sampled_from(["", "/", "a"]), st.sampled_from([1, 3, 1000]))
@settings(max_examples=150)
def test_versions_are_the_model(
    keys: dict[str, list[bool]], prefix: str, delimiter: str, limit: int
) -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        await fill_versions(here, keys)
        living = [key for key, versions in keys.items() if not versions[0]]
        current = await pages(here, prefix, delimiter, limit)
        shown = [entry.key for page in current for entry in page.entries]
        shown += [common for page in current for common in page.common_prefixes]
        expected = rolled_up(living, prefix, delimiter)
        assert sorted(shown) == sorted(text for text, _ in expected)

        seen: list[tuple[str, str, bool, bool]] = []
        commons: list[str] = []
        key_marker = version_marker = ""
        while True:
            page = await here.store.listing.versions(
                ALICE,
                BUCKET,
                prefix=prefix,
                delimiter=delimiter,
                key_marker=key_marker,
                version_marker=version_marker,
                limit=limit,
            )
            seen += [(e.key, e.version_id, e.is_latest, e.is_delete_marker) for e in page.entries]
            commons += page.common_prefixes
            if not page.truncated:
                break
            key_marker = page.next_key_marker or ""
            version_marker = page.next_version_marker or ""
        everything = rolled_up(list(keys), prefix, delimiter)
        assert commons == [text for text, common in everything if common]
        wanted = []
        for key in (text for text, common in everything if not common):
            for number, marker in enumerate(keys[key]):
                last = number == len(keys[key]) - 1
                version_id = "null" if last else (number + 1).to_bytes(8, "big").hex()
                wanted.append((key, version_id, number == 0, marker))
        assert seen == wanted

    with world() as here:
        asyncio.run(scenario(here))


def test_reading_behind_a_delete_marker() -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        await fill_versions(here, {"gone": [True, False], "here": [False, True]})
        objects = here.store.objects
        with pytest.raises(S3Error) as caught:
            await objects.open(ALICE, BUCKET, "gone")
        assert caught.value.code == "NoSuchKey"
        assert caught.value.headers["x-amz-delete-marker"] == "true"
        marker = (1).to_bytes(8, "big").hex()
        with pytest.raises(S3Error) as caught:
            await objects.open(ALICE, BUCKET, "gone", version_id=marker)
        assert caught.value.code == "MethodNotAllowed"
        old = await objects.open(ALICE, BUCKET, "gone", version_id="null")
        assert (old.info.version_id, old.info.is_versioned) == ("null", True)
        assert (await objects.open(ALICE, BUCKET, "here")).info.version_id == marker
        await objects.delete(ALICE, BUCKET, "gone", version_id=marker)
        assert (await objects.open(ALICE, BUCKET, "gone")).info.version_id == "null"

    with world() as here:
        asyncio.run(scenario(here))
