"""Multipart uploads: parts, completion, races, and what is left behind (nothing)."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Sequence

from appliance.core.checksums import ChecksumAlgorithm, encode, hasher
from appliance.core.conditions import ReadCondition
from appliance.objects.limits import ObjectLimits
from appliance.objects.model import Attributes, CompletedPart, CopySource
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

SHA256, CRC32 = ChecksumAlgorithm.SHA256, ChecksumAlgorithm.CRC32


def raw(algorithm: ChecksumAlgorithm, data: bytes) -> bytes:
    made = hasher(algorithm)
    made.update(data)
    return made.digest()


def md5_of_md5s(parts: Sequence[bytes]) -> str:
    joined = b"".join(hashlib.md5(part).digest() for part in parts)
    return f"{hashlib.md5(joined).hexdigest()}-{len(parts)}"


def test_an_upload_becomes_an_object(chance: random.Random) -> None:
    parts = [chance.randbytes(size) for size in (100_000, 100_000, 70_000, 100_000, 1)]
    whole = b"".join(parts)

    async def scenario(here: World) -> None:
        await with_bucket(here)
        objects, uploads = here.store.objects, here.store.uploads
        attributes = Attributes("text/x", {"expires": "never"}, {"a": "b"}, {"t": "1"})
        upload = await uploads.create(ALICE, BUCKET, "k", attributes)
        done = []
        for number, data in enumerate(parts, 1):
            part = await uploads.put_part(
                ALICE, BUCKET, "k", upload.upload_id, number, BytesBody(data)
            )
            assert part.etag == hashlib.md5(data).hexdigest()
            done.append(CompletedPart(number, f'"{part.etag}"'))
        assert await code_of(objects.open(ALICE, BUCKET, "k")) == "NoSuchKey"
        assert (await here.counters())[b"bytes"] == len(whole)
        info = await uploads.complete(ALICE, BUCKET, "k", upload.upload_id, done)
        assert (info.etag, info.size_bytes, info.parts) == (md5_of_md5s(parts), len(whole), 5)
        assert info.attributes == attributes
        assert info.checksum is not None
        crc = raw(ChecksumAlgorithm.CRC64NVME, whole)
        assert info.checksum.value == encode(crc)
        assert await uploads.complete(ALICE, BUCKET, "k", upload.upload_id, done) == info
        opened = await objects.open(ALICE, BUCKET, "k")
        assert opened.info == info and await read_all(opened) == whole
        for _ in range(20):
            offset = chance.randint(0, len(whole))
            length = chance.randint(0, len(whole) - offset)
            assert await read_all(opened, offset, length) == whole[offset : offset + length]
        start = 0
        for number, data in enumerate(parts, 1):
            part_of = await objects.open(ALICE, BUCKET, "k", part_number=number)
            assert (part_of.offset, part_of.size) == (start, len(data))
            assert await read_all(part_of) == data
            start += len(data)
        missing = objects.open(ALICE, BUCKET, "k", part_number=6)
        assert await code_of(missing) == "InvalidPart"
        assert await here.counters() == {
            b"bytes": len(whole),
            b"bytes/bucket-one": len(whole),
            b"objects": 1,
            b"objects/bucket-one": 1,
        }

    with world() as here:
        asyncio.run(scenario(here))


def test_numbers_may_have_gaps_and_unused_parts_go() -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        uploads = here.store.uploads
        upload_id = (await uploads.create(ALICE, BUCKET, "k")).upload_id
        etags = {}
        for number in (1, 3, 7, 9, 10_000):
            body = BytesBody(bytes([number % 256]) * 1000)
            etags[number] = (
                await uploads.put_part(ALICE, BUCKET, "k", upload_id, number, body)
            ).etag
        named = [CompletedPart(number, etags[number]) for number in (3, 9)]
        await uploads.complete(ALICE, BUCKET, "k", upload_id, named)
        assert await here.get("k") == b"\x03" * 1000 + b"\x09" * 1000
        ninth = await here.store.objects.open(ALICE, BUCKET, "k", part_number=9)
        assert await read_all(ninth) == b"\x09" * 1000
        left = [key for key in await here.record_keys() if key.startswith(b"p/")]
        assert len(left) == 2
        assert (await here.counters())[b"bytes"] == 2000
        _, page = await here.store.objects.parts(ALICE, BUCKET, "k", after=3, limit=5)
        assert [part.number for part in page.items] == [9]

    with world() as here:
        asyncio.run(scenario(here))


def test_many_sizes_of_parts_are_found_without_a_table() -> None:
    """More runs than an object's record keeps."""
    parts = [bytes([n]) * (1000 + n) for n in range(100)]

    async def scenario(here: World) -> None:
        await with_bucket(here)
        await here.put_in_parts("k", parts)
        whole = b"".join(parts)
        opened = await here.store.objects.open(ALICE, BUCKET, "k")
        assert await read_all(opened) == whole
        assert await read_all(opened, 50_000, 3_000) == whole[50_000:53_000]
        tenth = await here.store.objects.open(ALICE, BUCKET, "k", part_number=10)
        assert await read_all(tenth) == parts[9]

    with world() as here:
        asyncio.run(scenario(here))


def test_refused_completions() -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        complete = here.store.uploads.complete
        upload_id, done = await here.upload("k", [bytes(1000), bytes(999), b"end"])
        wrong = [CompletedPart(1, "f" * 32)]
        cases: list[tuple[Sequence[CompletedPart], str]] = [
            ([], "MalformedXML"),
            ([done[1], done[0]], "InvalidPartOrder"),
            ([done[0], done[0]], "InvalidPartOrder"),
            (wrong, "InvalidPart"),
            ([CompletedPart(9, done[0].etag)], "InvalidPart"),
            ([CompletedPart(1, "no hex")], "InvalidPart"),
            (done, "EntityTooSmall"),
        ]
        for parts, code in cases:
            assert await code_of(complete(ALICE, BUCKET, "k", upload_id, parts)) == code
        good = [done[0], done[2]]
        size = complete(ALICE, BUCKET, "k", upload_id, good, size_bytes=5)
        assert await code_of(size) == "InvalidRequest"
        for wrong_id in ("abc1234def", "A" * 32):
            assert await code_of(complete(ALICE, BUCKET, "k", wrong_id, good)) == "NoSuchUpload"
        assert await code_of(complete(ALICE, BUCKET, "l", upload_id, good)) == "NoSuchUpload"
        assert await code_of(complete(BOB, BUCKET, "k", upload_id, good)) == "AccessDenied"
        info = await complete(ALICE, BUCKET, "k", upload_id, good, size_bytes=1003)
        assert info.size_bytes == 1003
        assert await code_of(complete(ALICE, BUCKET, "k", upload_id, done)) == "NoSuchUpload"
        await here.put("k", b"other")
        assert await code_of(complete(ALICE, BUCKET, "k", upload_id, good)) == "NoSuchUpload"

    with world() as here:
        asyncio.run(scenario(here))


def test_refused_parts() -> None:
    limits = ObjectLimits(part_max_bytes=1000)

    async def scenario(here: World) -> None:
        await with_bucket(here)
        uploads = here.store.uploads
        upload_id = (await uploads.create(ALICE, BUCKET, "k")).upload_id
        put = uploads.put_part
        for number in (0, -1, 10_001):
            attempt = put(ALICE, BUCKET, "k", upload_id, number, BytesBody(b"1"))
            assert await code_of(attempt) == "InvalidArgument"
        large = put(ALICE, BUCKET, "k", upload_id, 1, BytesBody(bytes(1001)))
        assert await code_of(large) == "EntityTooLarge"
        assert await code_of(put(ALICE, BUCKET, "k", "x", 1, BytesBody(b""))) == "NoSuchUpload"
        other = put(BOB, BUCKET, "k", upload_id, 1, BytesBody(b""))
        assert await code_of(other) == "AccessDenied"
        await uploads.abort(ALICE, BUCKET, "k", upload_id)
        late = put(ALICE, BUCKET, "k", upload_id, 1, BytesBody(b""))
        assert await code_of(late) == "NoSuchUpload"

    with world(limits) as here:
        asyncio.run(scenario(here))


def test_parts_copied_from_objects() -> None:
    data = random.Random(3).randbytes(200_000)

    async def scenario(here: World) -> None:
        await with_bucket(here)
        await here.put("source", data)
        uploads = here.store.uploads
        upload_id = (await uploads.create(ALICE, BUCKET, "k")).upload_id
        source = CopySource(BUCKET, "source")

        async def copy(byte_range: str | None, number: int, wanted: CopySource = source) -> str:
            part = await uploads.copy_part(
                ALICE, wanted, byte_range, BUCKET, "k", upload_id, number
            )
            return part.etag

        etags = [await copy("bytes=1000-150999", 1), await copy(None, 2)]
        assert await code_of(copy("bytes=0-200000", 3)) == "InvalidRange"
        assert await code_of(copy("bytes=0", 3)) == "InvalidArgument"
        unmet = CopySource(BUCKET, "source", None, ReadCondition(if_match='"x"'))
        assert await code_of(copy(None, 3, unmet)) == "PreconditionFailed"
        assert await code_of(copy(None, 3, CopySource(BUCKET, "none"))) == "NoSuchKey"
        done = [CompletedPart(number, etag) for number, etag in enumerate(etags, 1)]
        await uploads.complete(ALICE, BUCKET, "k", upload_id, done)
        assert await here.get("k") == data[1000:151_000] + data

    with world() as here:
        asyncio.run(scenario(here))
