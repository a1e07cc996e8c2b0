"""Both drives fail under a running service: it refuses with a time to come back, goes on by itself
as soon as they do, and a client that left never took its write along."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.core.errors import Unavailable
from appliance.engine.interface import Batch, Engine, MirrorState, Partition, Put
from appliance.engine.mirror.client import ClientSettings
from appliance.engine.mirror.committer_thread import PAUSE_FIRST_S, PAUSE_MAX_S
from appliance.engine.mirror.launch import local_engine, open_store
from tests.conformance.deeds import one, pattern, read_blob, write_blob
from tests.conformance.mirrors import DRIVES, SETTINGS, lay_out

PARTITION = Partition("last")
HASTY = replace(SETTINGS, missing_members_wait_s=0.0)

pytestmark = pytest.mark.timeout(60)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110 - another thread changes it, and tells nobody
            await asyncio.sleep(0.02)


async def put(engine: Engine, key: bytes, data: bytes) -> None:
    await engine.commit(PARTITION, Batch([Put(key, b"", await write_blob(engine, data))]))


def test_both_drives_gone_is_503_until_they_are_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        message = lay_out(tmp_path)
        store = await open_store(tmp_path / "s", message, settings=HASTY)
        engine = await local_engine(store.service, settings=ClientSettings(patience_s=0.5))
        await engine.ready(20)
        await put(engine, b"kept", pattern(5000))
        store.service.assembly_changed({**message, "members": []})
        for drive in DRIVES:
            shutil.move(tmp_path / drive, tmp_path / f"{drive}.away")

        async def offline() -> bool:
            return (await engine.health()).state is MirrorState.OFFLINE

        await until(offline)
        with pytest.raises(Unavailable) as refusal:
            await put(engine, b"refused", pattern(5000))
        assert refusal.value.retry_after_s >= 1
        assert (await engine.health()).reason
        for drive in DRIVES:
            shutil.move(tmp_path / f"{drive}.away", tmp_path / drive)
        fresh = [{**member, "mount": 2} for member in message["members"]]
        store.service.assembly_changed({**message, "members": fresh})

        async def in_sync() -> bool:
            return (await engine.health()).state is MirrorState.IN_SYNC

        await until(in_sync)
        await put(engine, b"more", pattern(5000, 1))
        record = await one(engine, PARTITION, b"kept")
        assert await read_blob(engine, record.blob) == pattern(5000)
        await engine.close()
        await store.close()

    asyncio.run(scenario())


def test_attempts_to_come_back_grow_apart_and_stay_bounded() -> None:
    assert 0 < PAUSE_FIRST_S < PAUSE_MAX_S <= 60


@pytest.mark.parametrize("size", [2_000, 700_000], ids=["inline", "staged"])
def test_a_client_that_leaves_takes_no_write_along(tmp_path: Path, size: int) -> None:
    """Cancelled at any moment once the commit was handed over, it happens all the same."""

    async def scenario() -> None:
        store = await open_store(tmp_path / "s", lay_out(tmp_path), settings=HASTY)
        engine = await local_engine(store.service)
        await engine.ready(20)
        keys = []
        for number in range(12):
            key = b"%d" % number
            blob = await write_blob(engine, pattern(size, number))
            commit = asyncio.create_task(engine.commit(PARTITION, Batch([Put(key, b"", blob)])))
            for _ in range(number + 1):
                await asyncio.sleep(0)
            commit.cancel()
            await asyncio.gather(commit, return_exceptions=True)
            keys.append(key)
        await put(engine, b"after", pattern(100))  # whatever was handed over before is done
        found = await engine.read(PARTITION, keys)
        there = [number for number, record in enumerate(found) if record is not None]
        assert len(there) >= len(keys) - 2, "at most the first were cancelled before they began"
        for number in there:
            record = found[number]
            assert record is not None and record.blob is not None
            assert await read_blob(engine, record.blob) == pattern(size, number)
        await engine.close()
        await store.close()

    asyncio.run(scenario())
