"""Objects: put, read, deleted, copied, under conditions, within limits."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random

import pytest

from appliance.core.checksums import ChecksumAlgorithm, ChecksumKind, encode, hasher
from appliance.core.conditions import WriteCondition
from appliance.core.errors import MembershipChanged, NoSpace, S3Error
from appliance.engine.interface import Partition
from appliance.objects.limits import ObjectLimits
from appliance.objects.model import Attributes, Deleted
from tests.unit.objects.world import (
    ALICE,
    BOB,
    BUCKET,
    BytesBody,
    World,
    code_of,
    read_all,
    with_bucket,
    world,
)

SIZES = (0, 1, 65_535, 65_536, 65_537, 70_000, 70_001, 200_000, 400_000)


def digest(algorithm: ChecksumAlgorithm, data: bytes) -> str:
    made = hasher(algorithm)
    made.update(data)
    return encode(made.digest())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("known", [True, False])
def test_what_was_put_is_read(size: int, known: bool, chance: random.Random) -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        data = chance.randbytes(size)
        body = BytesBody(data, known=known, piece_bytes=chance.randint(1000, 90_000))
        info = await here.store.objects.put(ALICE, BUCKET, "a key", body)
        assert (info.size_bytes, info.etag) == (size, hashlib.md5(data).hexdigest())
        opened = await here.store.objects.open(ALICE, BUCKET, "a key")
        assert opened.info == info
        assert (opened.offset, opened.size) == (0, size)
        assert await read_all(opened) == data
        for _ in range(5):
            offset = chance.randint(0, size)
            length = chance.randint(0, size - offset)
            assert await read_all(opened, offset, length) == data[offset : offset + length]
        assert info.checksum is not None
        assert info.checksum.value == digest(ChecksumAlgorithm.CRC64NVME, data)
        assert not info.checksum_declared
        both = {b"objects": 1, b"objects/bucket-one": 1}
        stored = {b"bytes": size, b"bytes/bucket-one": size} if size else {}
        assert await here.counters() == {**both, **stored}

    with world() as here:
        asyncio.run(scenario(here))


def test_stored_bytes_are_sealed() -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        await here.put("k", b"plaintext" * 10)
        await here.put("l", b"plaintext" * 10)
        found = await here.engine.scan(Partition("c1"), b"o/", b"o0", 10)
        sealed = []
        for record in found:
            assert record.blob is not None
            sealed.append(b"".join([piece async for piece in here.engine.blob_read(record.blob)]))
        assert all(b"plaintext" not in each for each in sealed)
        assert sealed[0] != sealed[1], "every write has a key of its own"

    with world() as here:
        asyncio.run(scenario(here))


def test_attributes_come_back() -> None:
    attributes = Attributes(
        "text/plain",
        {"cache-control": "no-cache", "content-encoding": "gzip"},
        {"name": "välue", "empty": ""},
        {"team": "a b"},
        "STANDARD_IA",
    )

    async def scenario(here: World) -> None:
        await with_bucket(here)
        await here.store.objects.put(ALICE, BUCKET, "k", BytesBody(b"1"), attributes)
        assert (await here.store.objects.head(ALICE, BUCKET, "k")).info.attributes == attributes

    with world() as here:
        asyncio.run(scenario(here))


@pytest.mark.parametrize("algorithm", list(ChecksumAlgorithm))
@pytest.mark.parametrize("size", [10, 300_000])
def test_declared_checksums(algorithm: ChecksumAlgorithm, size: int) -> None:
    data = bytes(size)

    async def scenario(here: World) -> None:
        await with_bucket(here)
        value = digest(algorithm, data)
        body = BytesBody(data, checksum=(algorithm, value))
        info = await here.store.objects.put(ALICE, BUCKET, "k", body)
        assert info.checksum is not None and info.checksum_declared
        assert (info.checksum.algorithm, info.checksum.value) == (algorithm, value)
        assert info.checksum.kind is ChecksumKind.FULL_OBJECT
        for wrong in (digest(algorithm, b"other"), "bad"):
            refused = BytesBody(data, checksum=(algorithm, wrong))
            assert await code_of(here.store.objects.put(ALICE, BUCKET, "n", refused)) == "BadDigest"
        assert await code_of(here.get("n")) == "NoSuchKey"

    with world() as here:
        asyncio.run(scenario(here))


def test_content_md5() -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        for size in (5, 200_000):
            data = bytes(size)
            good = BytesBody(data, md5=hashlib.md5(data).digest())
            await here.store.objects.put(ALICE, BUCKET, "k", good)
            wrong = BytesBody(data, md5=bytes(16))
            with pytest.raises(S3Error) as caught:
                await here.store.objects.put(ALICE, BUCKET, "n", wrong)
            assert caught.value.code == "BadDigest"
            calculated = base64.b64encode(hashlib.md5(data).digest()).decode()
            assert caught.value.fields["CalculatedDigest"] == calculated
        assert await code_of(here.get("n")) == "NoSuchKey"

    with world() as here:
        asyncio.run(scenario(here))


class BrokenBody(BytesBody):
    """Fails behind its first pieces, as a body with a bad signature does."""

    async def read(self) -> bytes:
        piece = await super().read()
        if self.position > 150_000:
            raise S3Error("SignatureDoesNotMatch")
        return piece


def test_a_broken_body_leaves_nothing() -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        await here.put("k", b"old")
        broken = BrokenBody(bytes(300_000))
        put = here.store.objects.put(ALICE, BUCKET, "k", broken)
        assert await code_of(put) == "SignatureDoesNotMatch"
        assert await here.get("k") == b"old"

    with world() as here:
        asyncio.run(scenario(here))


def test_cancelling_a_put_leaves_nothing() -> None:
    class StuckBody(BytesBody):
        """Never ends."""

        stuck = asyncio.Event()

        async def read(self) -> bytes:
            if self.position >= 150_000:
                self.stuck.set()
                await asyncio.Event().wait()
            return await super().read()

    async def scenario(here: World) -> None:
        await with_bucket(here)
        body = StuckBody(bytes(300_000))
        task = asyncio.create_task(here.store.objects.put(ALICE, BUCKET, "k", body))
        await body.stuck.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await code_of(here.get("k")) == "NoSuchKey"

    with world() as here:
        asyncio.run(scenario(here))


def test_limits_are_refused_before_the_body() -> None:
    limits = ObjectLimits(single_part_max_bytes=1000, key_bytes=10, metadata_bytes=20, tags=1)

    async def scenario(here: World) -> None:
        await with_bucket(here)
        put = here.store.objects.put
        body = BytesBody(bytes(1001))
        with pytest.raises(S3Error) as caught:
            await put(ALICE, BUCKET, "k", body)
        assert caught.value.code == "EntityTooLarge"
        assert caught.value.fields["MaxSizeAllowed"] == "1000"
        assert await code_of(put(ALICE, BUCKET, "k" * 11, body)) == "KeyTooLongError"
        large = Attributes(metadata={"n": "v" * 20})
        assert await code_of(put(ALICE, BUCKET, "k", body, large)) == "MetadataTooLarge"
        tagged = Attributes(tags={"a": "", "b": ""})
        assert await code_of(put(ALICE, BUCKET, "k", body, tagged)) == "InvalidTag"
        assert await code_of(put(BOB, BUCKET, "k", body)) == "AccessDenied"
        assert await code_of(put(None, BUCKET, "k", body)) == "AccessDenied"
        assert await code_of(put(ALICE, "bucket-none", "k", body)) == "NoSuchBucket"
        assert body.position == 0
        unknown = BytesBody(bytes(1001), known=False, piece_bytes=100)
        assert await code_of(put(ALICE, BUCKET, "k", unknown)) == "EntityTooLarge"
        await put(ALICE, BUCKET, "k", BytesBody(bytes(1000)))

    with world(limits) as here:
        asyncio.run(scenario(here))


def test_engine_errors_pass_through() -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        for error in (NoSpace("full"), MembershipChanged("again")):
            here.engine.refusal = error
            with pytest.raises(type(error)):
                await here.put("k", b"1")
        here.engine.refusal = None
        assert await code_of(here.get("k")) == "NoSuchKey"

    with world() as here:
        asyncio.run(scenario(here))


def test_a_destroyed_contract_key_ends_access() -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        await here.put("k", b"1")
        here.keys.destroyed.add("c1")
        assert await code_of(here.get("k")) == "AccountProblem"

    with world() as here:
        asyncio.run(scenario(here))


def test_reads_of_what_is_not_there() -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        await here.put("k", b"body")
        objects = here.store.objects
        assert await code_of(objects.open(ALICE, BUCKET, "none")) == "NoSuchKey"
        for version_id, code in (("00" * 8, "NoSuchVersion"), ("junk", "InvalidArgument")):
            attempt = objects.open(ALICE, BUCKET, "k", version_id=version_id)
            assert await code_of(attempt) == code
        null = await objects.open(ALICE, BUCKET, "k", version_id="null")
        assert null.info.version_id == "null"
        assert await code_of(objects.open(ALICE, BUCKET, "k", part_number=2)) == "InvalidPart"
        whole = await objects.open(ALICE, BUCKET, "k", part_number=1)
        assert await read_all(whole) == b"body"
        info, page = await objects.parts(ALICE, BUCKET, "k")
        assert (info.parts, page.items) == (0, ())

    with world() as here:
        asyncio.run(scenario(here))


def test_keys_are_opaque() -> None:
    keys = ["a", "a/", "a/b", "//", "/", "..", "a\x00b", "é", "e\u0301", " ", "%2F", "+", "a\x00"]

    async def scenario(here: World) -> None:
        await with_bucket(here)
        for key in keys:
            await here.put(key, key.encode())
        for key in keys:
            assert await here.get(key) == key.encode()
        listed = await here.store.listing.objects(ALICE, BUCKET)
        assert [entry.key for entry in listed.entries] == sorted(keys, key=str.encode)

    with world() as here:
        asyncio.run(scenario(here))


def test_deletes() -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        delete = here.store.objects.delete
        info = await here.put("k", b"12345")
        for wrong in (
            WriteCondition(if_match='"x"'),
            WriteCondition(if_match_size_bytes=4),
            WriteCondition(if_match_modified_ns=0),
        ):
            refused = delete(ALICE, BUCKET, "k", condition=wrong)
            assert await code_of(refused) == "PreconditionFailed"
        right = WriteCondition(info.etag, None, info.modified_ns, 5)
        assert await delete(ALICE, BUCKET, "k", condition=right) == Deleted("k")
        assert await delete(ALICE, BUCKET, "k", condition=right) == Deleted("k")
        await here.put("k", b"12345")
        assert await delete(ALICE, BUCKET, "k", version_id="null") == Deleted("k", "null")
        other = "00" * 8
        assert await delete(ALICE, BUCKET, "k", version_id=other) == Deleted("k", other)
        assert await here.record_keys() == []
        assert await here.counters() == {}

    with world() as here:
        asyncio.run(scenario(here))


def test_delete_many_answers_each_in_order() -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        for number in range(5):
            await here.put(f"k{number}", b"1")
        await here.put_in_parts("parts", [bytes(1000), b"1"])
        keys = [("k1", None), ("none", None), ("parts", None), ("k1", None), ("k2", "null")]
        outcomes = await here.store.objects.delete_many(
            ALICE, BUCKET, [*keys, ("x" * 1025, None), ("k3", "junk")]
        )
        *fine, too_long, junk = outcomes
        assert fine == [Deleted(key, version) for key, version in keys]
        assert isinstance(too_long, S3Error) and too_long.code == "KeyTooLongError"
        assert isinstance(junk, S3Error) and junk.code == "InvalidArgument"
        left = await here.store.listing.objects(ALICE, BUCKET)
        assert [entry.key for entry in left.entries] == ["k0", "k3", "k4"]
        assert not [key for key in await here.record_keys() if key.startswith((b"p/", b"m/"))]
        many = [("k", None)] * 1001
        refused = here.store.objects.delete_many(ALICE, BUCKET, many)
        assert await code_of(refused) == "MalformedXML"

    with world() as here:
        asyncio.run(scenario(here))
