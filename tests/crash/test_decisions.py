"""What an operator decides reaches a store that does not serve, over its socket."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.core.errors import ReadOnly
from appliance.engine.interface import Batch, Health, MirrorState, Partition, Put, Question
from appliance.engine.mirror.client import ClientSettings
from appliance.engine.mirror.connecting import connect_engine
from appliance.engine.mirror.launch import open_store
from appliance.engine.mirror.messages import decode_health
from appliance.runtime.link import Link
from tests.conformance.mirrors import SETTINGS, StoreProcess, lay_out

PARTITION = Partition("decisions")
HASTY = replace(SETTINGS, missing_members_wait_s=0.0)

pytestmark = pytest.mark.timeout(60)


@asynccontextmanager
async def line_to(socket: Path) -> AsyncIterator[Link]:
    """As control reaches a store, whether that serves or not."""
    line = Link(socket, role="operator")
    line.start()
    try:
        yield line
    finally:
        await line.close()


async def health(line: Link) -> Health:
    return decode_health(await line.call("health"))


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110 - another thread changes it, and tells nobody
            await asyncio.sleep(0.02)


async def asks(line: Link, question: Question) -> Health:
    async def asked() -> bool:
        return (await health(line)).question is question

    await until(asked)
    return await health(line)


def only(message: dict[str, Any], drive: str) -> dict[str, Any]:
    return {**message, "members": [m for m in message["members"] if m["drive"] == drive]}


def test_a_lone_drive_is_forced_and_diverged_halves_are_chosen_from(tmp_path: Path) -> None:
    async def scenario() -> None:
        message = lay_out(tmp_path)
        socket = tmp_path / "s"
        for drive in ("drive-a", "drive-b"):
            shutil.rmtree(tmp_path / "witness")
            (tmp_path / "witness").mkdir()
            store = await open_store(socket, only(message, drive), settings=HASTY)
            async with line_to(socket) as line:
                told = await asks(line, Question.FORCE)
                assert told.state is MirrorState.OFFLINE
                assert "witness is lost" in told.reason
                await line.call("override", {"forced": True})
                told = await asks(line, Question.NONE)
                assert told.state is MirrorState.DEGRADED
                engine = await connect_engine(socket, role="gateway")
                await engine.ready(20)
                await engine.commit(PARTITION, Batch([Put(drive.encode(), b"")]))
                await engine.close()
            await store.close()
        store = await open_store(socket, message, settings=HASTY)
        async with line_to(socket) as line:
            told = await asks(line, Question.CHOOSE)
            assert set(told.choices) == {"drive-a", "drive-b"}
            await line.call("override", {"chosen": "drive-a"})
            told = await asks(line, Question.NONE)
            detached = {member.drive_id: member.detached for member in told.members}
            assert detached == {"drive-a": False, "drive-b": True}
            engine = await connect_engine(socket, role="gateway")
            await engine.ready(20)
            found = await engine.read(PARTITION, [b"drive-a", b"drive-b"])
            assert [record is not None for record in found] == [True, False]
            await engine.close()
        await store.close()

    asyncio.run(scenario())


def test_a_store_that_is_killed_again_and_again_serves_reads_until_it_is_resumed(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        process = StoreProcess(tmp_path, lay_out(tmp_path))
        await process.start()
        settings = ClientSettings(patience_s=2.0)
        engine = await connect_engine(process.socket, role="gateway", settings=settings)
        await engine.ready(20)
        await engine.commit(PARTITION, Batch([Put(b"k", b"")]))
        async with line_to(process.socket) as line:
            for _ in range(4):
                await process.kill()
                await process.start()

                async def opened() -> bool:
                    return (await health(line)).epoch > 0

                await until(opened)
            told = await asks(line, Question.RESUME)
            assert told.state is MirrorState.READ_ONLY
            (record,) = await engine.read(PARTITION, [b"k"])
            assert record is not None
            with pytest.raises(ReadOnly, match="on the same data"):
                await engine.commit(PARTITION, Batch([Put(b"more", b"")]))
            await line.call("override", {"resume": True})
            await asks(line, Question.NONE)
            await engine.commit(PARTITION, Batch([Put(b"more", b"")]))
        await engine.close()
        await process.stop()

    asyncio.run(scenario())
