"""Checksums of uploads: per part, composite and of the full object."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence

import pytest

from appliance.core.checksums import ChecksumAlgorithm, ChecksumKind, default_kind, encode, hasher
from appliance.objects.model import CompletedPart, ObjectInfo
from tests.unit.objects.world import (
    ALICE,
    BUCKET,
    BytesBody,
    World,
    code_of,
    with_bucket,
    world,
)

SHA256, CRC32 = ChecksumAlgorithm.SHA256, ChecksumAlgorithm.CRC32


def raw(algorithm: ChecksumAlgorithm, data: bytes) -> bytes:
    made = hasher(algorithm)
    made.update(data)
    return made.digest()


KINDS = [
    (algorithm, kind)
    for algorithm in ChecksumAlgorithm
    for kind in (None, ChecksumKind.COMPOSITE, ChecksumKind.FULL_OBJECT)
]
REFUSED = [
    (ChecksumAlgorithm.CRC64NVME, ChecksumKind.COMPOSITE),
    (ChecksumAlgorithm.SHA1, ChecksumKind.FULL_OBJECT),
    (ChecksumAlgorithm.SHA256, ChecksumKind.FULL_OBJECT),
]


@pytest.mark.parametrize(("algorithm", "kind"), REFUSED)
def test_kinds_an_algorithm_cannot_have(algorithm: ChecksumAlgorithm, kind: ChecksumKind) -> None:
    async def scenario(here: World) -> None:
        await with_bucket(here)
        create = here.store.uploads.create(ALICE, BUCKET, "k", checksum=(algorithm, kind))
        assert await code_of(create) == "InvalidRequest"

    with world() as here:
        asyncio.run(scenario(here))


@pytest.mark.parametrize(("algorithm", "kind"), [pair for pair in KINDS if pair not in REFUSED])
def test_checksums_of_uploads(algorithm: ChecksumAlgorithm, kind: ChecksumKind | None) -> None:
    full = (kind or default_kind(algorithm)) is ChecksumKind.FULL_OBJECT
    parts = [b"a" * 1000, b"b" * 70_001]
    digests = [raw(algorithm, part) for part in parts]
    if full:
        expected = encode(raw(algorithm, b"".join(parts)))
    else:
        expected = encode(raw(algorithm, b"".join(digests))) + "-2"

    async def scenario(here: World) -> None:
        await with_bucket(here)
        uploads = here.store.uploads
        upload = await uploads.create(ALICE, BUCKET, "k", checksum=(algorithm, kind))
        done = []
        for number, (data, digest) in enumerate(zip(parts, digests, strict=True), 1):
            body = BytesBody(data, checksum=(algorithm, encode(digest)))
            part = await uploads.put_part(ALICE, BUCKET, "k", upload.upload_id, number, body)
            assert part.checksum is not None and part.checksum.value == encode(digest)
            done.append(CompletedPart(number, part.etag, (algorithm, encode(digest))))
        listed = await uploads.list_parts(ALICE, BUCKET, "k", upload.upload_id)
        found = [part.checksum.value if part.checksum else "" for part in listed.parts]
        assert found == [encode(digest) for digest in digests]

        def complete(
            parts: Sequence[CompletedPart] = done,
            checksum: tuple[ChecksumAlgorithm, str] = (algorithm, expected),
            kind: ChecksumKind | None = kind,
        ) -> Coroutine[object, object, ObjectInfo]:
            return uploads.complete(
                ALICE,
                BUCKET,
                "k",
                upload.upload_id,
                parts,
                checksum=checksum,
                checksum_kind=kind,
            )

        await check_refusals(complete, done, algorithm, full=full)
        info = await complete()
        assert info.checksum is not None and info.checksum_declared
        assert info.checksum.kind.value == ("FULL_OBJECT" if full else "COMPOSITE")
        assert info.checksum.value == expected
        second = await here.store.objects.open(ALICE, BUCKET, "k", part_number=2)
        assert second.checksum is not None
        assert second.checksum.value == encode(digests[1])
        _, page = await here.store.objects.parts(ALICE, BUCKET, "k")
        assert [part.checksum.value for part in page.items if part.checksum] == found

    with world() as here:
        asyncio.run(scenario(here))


async def check_refusals(
    complete: Callable[..., Awaitable[ObjectInfo]],
    done: Sequence[CompletedPart],
    algorithm: ChecksumAlgorithm,
    *,
    full: bool,
) -> None:
    """Completions that contradict the upload."""
    assert await code_of(complete(checksum=(algorithm, "bad"))) == "BadDigest"
    other = CRC32 if algorithm is not CRC32 else SHA256
    assert await code_of(complete(checksum=(other, "x"))) == "InvalidRequest"
    bad_part = [CompletedPart(1, done[0].etag, (algorithm, "bad")), done[1]]
    assert await code_of(complete(parts=bad_part)) == "InvalidPart"
    wrong_kind = ChecksumKind.COMPOSITE if full else ChecksumKind.FULL_OBJECT
    assert await code_of(complete(kind=wrong_kind)) == "InvalidRequest"


def test_parts_may_declare_where_the_upload_did_not() -> None:
    """What SDKs do: no algorithm at the start, CRC32 on every part and in the completion."""
    data = bytes(70_001)

    async def scenario(here: World) -> None:
        await with_bucket(here)
        uploads = here.store.uploads
        upload_id = (await uploads.create(ALICE, BUCKET, "k")).upload_id
        crc = encode(raw(CRC32, data))
        body = BytesBody(data, checksum=(CRC32, crc))
        part = await uploads.put_part(ALICE, BUCKET, "k", upload_id, 1, body)
        assert part.checksum is not None
        assert (part.checksum.algorithm, part.checksum.value) == (CRC32, crc)
        bad = BytesBody(data, checksum=(CRC32, "AAAAAA=="))
        refused = uploads.put_part(ALICE, BUCKET, "k", upload_id, 1, bad)
        assert await code_of(refused) == "BadDigest"
        wrong = [CompletedPart(1, part.etag, (CRC32, "AAAAAA=="))]
        complete = uploads.complete(ALICE, BUCKET, "k", upload_id, wrong)
        assert await code_of(complete) == "InvalidPart"
        right = [CompletedPart(1, part.etag, (CRC32, crc))]
        info = await uploads.complete(ALICE, BUCKET, "k", upload_id, right)
        assert info.checksum is not None and not info.checksum_declared
        assert info.checksum.algorithm is ChecksumAlgorithm.CRC64NVME
        strict = await uploads.create(ALICE, BUCKET, "k", checksum=(SHA256, None))
        other = BytesBody(data, checksum=(CRC32, crc))
        refused = uploads.put_part(ALICE, BUCKET, "k", strict.upload_id, 1, other)
        assert await code_of(refused) == "InvalidRequest"

    with world() as here:
        asyncio.run(scenario(here))
