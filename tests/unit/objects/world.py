"""A small world around one object store: fakes at the seams, and bodies to send."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from appliance.core.checksums import ChecksumAlgorithm
from appliance.core.errors import NotFound, S3Error
from appliance.core.ports import Credential, Owner
from appliance.engine.interface import Batch, Committed, Partition, Record
from appliance.engine.sim import SimulatedEngine
from appliance.objects.content import OpenObject
from appliance.objects.limits import ObjectLimits
from appliance.objects.model import Caller, CompletedPart, Declared, ObjectInfo
from appliance.objects.store import ObjectStore

ALICE = Caller("alice-id", "Alice", "c1")
BOB = Caller("bob-id", "Bob", "c1")
CAROL = Caller("carol-id", "Carol", "c2")
BUCKET = "bucket-one"
# Two stores over one engine must never draw the same request ids.
_SEEDS = itertools.count()
SMALL_LIMITS = ObjectLimits(part_min_bytes=1000, inline_body_bytes=70_000, piece_bytes=100_000)


class FakeKeys:
    """A key store whose contracts have keys until they are destroyed."""

    def __init__(self) -> None:
        self.destroyed: set[str] = set()

    async def credential(self, access_key: str) -> Credential | None:
        return None

    async def contract_key(self, contract: str) -> bytes:
        if contract in self.destroyed:
            raise NotFound(f"the key of {contract} is destroyed")
        return hashlib.sha256(contract.encode()).digest()

    async def owner(self, contract: str, user_id: str) -> Owner | None:
        for caller in (ALICE, BOB, CAROL):
            if (caller.contract, caller.user_id) == (contract, user_id):
                return Owner(caller.user_id, caller.display_name)
        return None


class ManualClock:
    """Time that moves by hand, and one nanosecond per look, so that order shows."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000_000_000
        self.elapsed_s = 0.0

    def now_ns(self) -> int:
        self.now += 1
        return self.now

    def monotonic_s(self) -> float:
        return self.elapsed_s

    def sleep_s(self, seconds: float) -> None:
        self.elapsed_s += seconds


class SeededEntropy:
    """Repeatable bytes."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)

    def token(self, size_bytes: int) -> bytes:
        return self._random.randbytes(size_bytes)


class BytesBody:
    """A body in pieces, declaring what the test says."""

    def __init__(
        self,
        data: bytes,
        *,
        piece_bytes: int = 50_000,
        known: bool = True,
        md5: bytes | None = None,
        checksum: tuple[ChecksumAlgorithm, str] | None = None,
    ) -> None:
        self._data = data
        self._piece_bytes = piece_bytes
        self._declared = Declared(md5, checksum)
        self.position = 0
        self.size_bytes: int | None = len(data) if known else None
        self.checksum_algorithm = checksum[0] if checksum else None

    async def read(self) -> bytes:
        piece = self._data[self.position : self.position + self._piece_bytes]
        self.position += len(piece)
        return piece

    def declared(self) -> Declared:
        assert self.position == len(self._data), "declared before the end"
        return self._declared


class FakeQuotas:
    """One limit for every contract."""

    def __init__(self, maximum: int | None) -> None:
        self.maximum = maximum

    async def limit_bytes(self, contract: str) -> int | None:
        return self.maximum


class RacingEngine(SimulatedEngine):
    """Lets other tasks run between any two steps, in a seeded order: what is read may be old by
    the time it is acted on, as it is with a store in another process."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance

    async def _dawdle(self) -> None:
        long = self._chance.random() < 0.05
        for _ in range(self._chance.randrange(80 if long else 6)):
            await asyncio.sleep(0)

    async def read(self, partition: Partition, keys: Sequence[bytes]) -> list[Record | None]:
        await self._dawdle()
        found = await super().read(partition, keys)
        await self._dawdle()
        return found

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
        await self._dawdle()
        return found

    async def commit(self, partition: Partition, batch: Batch) -> Committed:
        await self._dawdle()
        outcome = await super().commit(partition, batch)
        await self._dawdle()
        return outcome


class World:
    """A store, its engine, and shorthands for one caller and bucket."""

    def __init__(
        self,
        executor: ThreadPoolExecutor,
        limits: ObjectLimits,
        quota_bytes: int | None = None,
        engine: SimulatedEngine | None = None,
        *,
        public_access: bool = False,
    ) -> None:
        self.executor = executor
        self.engine = engine or SimulatedEngine()
        self.keys = FakeKeys()
        self.clock = ManualClock()
        self.quotas = FakeQuotas(quota_bytes)
        self.store = ObjectStore(
            self.engine,
            self.keys,
            self.clock,
            SeededEntropy(next(_SEEDS)),
            limits,
            executor,
            quotas=self.quotas,
            public_access=public_access,
        )

    async def put(self, key: str, data: bytes = b"", bucket: str = BUCKET) -> ObjectInfo:
        return await self.store.objects.put(ALICE, bucket, key, BytesBody(data))

    async def get(self, key: str, bucket: str = BUCKET) -> bytes:
        return await read_all(await self.store.objects.open(ALICE, bucket, key))

    async def upload(self, key: str, parts: Sequence[bytes]) -> tuple[str, list[CompletedPart]]:
        """An unfinished upload with these parts from number 1 on."""
        upload = await self.store.uploads.create(ALICE, BUCKET, key)
        done = []
        for number, data in enumerate(parts, 1):
            part = await self.store.uploads.put_part(
                ALICE, BUCKET, key, upload.upload_id, number, BytesBody(data)
            )
            done.append(CompletedPart(number, part.etag))
        return upload.upload_id, done

    async def put_in_parts(self, key: str, parts: Sequence[bytes]) -> ObjectInfo:
        upload_id, done = await self.upload(key, parts)
        return await self.store.uploads.complete(ALICE, BUCKET, key, upload_id, done)

    async def record_keys(self, contract: str = "c1") -> list[bytes]:
        """Every record key of the contract's partition but those of its buckets and their names."""
        found = await self.engine.scan(Partition(contract), b"g", b"\xff", 1_000_000)
        return [record.key for record in found]

    async def counters(self, contract: str = "c1") -> Mapping[bytes, int]:
        found = await self.engine.counters(Partition(contract))
        return {name: total for name, total in found.items() if not name.startswith(b"buckets/")}


@contextmanager
def world(
    limits: ObjectLimits = SMALL_LIMITS,
    quota_bytes: int | None = None,
    engine: SimulatedEngine | None = None,
    *,
    public_access: bool = False,
) -> Iterator[World]:
    """A fresh world, or another store over an engine; its executor ends with it."""
    with ThreadPoolExecutor(2) as executor:
        yield World(executor, limits, quota_bytes, engine, public_access=public_access)


async def with_bucket(here: World) -> World:
    """The world with Alice's bucket in it."""
    await here.store.buckets.create(ALICE, BUCKET)
    return here


async def read_all(opened: OpenObject, offset: int = 0, length: int | None = None) -> bytes:
    """All pieces of a range; what is small enough is the same at once."""
    whole = b"".join([piece async for piece in opened.read(offset, length)])
    assert await opened.read_at_once(offset, len(whole)) in (None, whole)
    return whole


async def code_of(attempt: Awaitable[object]) -> str:
    """The S3 code that an attempt is refused with."""
    with pytest.raises(S3Error) as caught:
        await attempt
    return caught.value.code
