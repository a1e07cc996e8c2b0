"""The store as a process under real clients: killed, restarted, losing and regaining a drive."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from appliance.engine.interface import Batch, Charge, Engine, MirrorState, Partition, Put
from appliance.engine.mirror.connecting import connect_engine
from appliance.engine.mirror.launch import local_engine, open_store
from appliance.engine.mirror.service import StoreService
from tests.conformance.deeds import keys, one, pattern, read_blob, write_blob
from tests.conformance.mirrors import SETTINGS, StoreProcess, lay_out

PARTITION = Partition("service")
POLL_S = 0.02


async def _until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 20) -> None:
    """What is waited for happens in another process or thread, which tells nobody here."""
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)


def _staged(scratch: Path, pattern: str) -> list[Path]:
    return list(scratch.glob(f"drive-*/staging/{pattern}"))


async def _put(engine: Engine, key: bytes, data: bytes) -> None:
    blob = await write_blob(engine, data)
    put = Put(key, b"", blob, [Charge(b"count", 1)])
    await engine.commit(PARTITION, Batch([put]))


def test_killing_the_store_loses_and_doubles_nothing(scratch: Path) -> None:
    async def scenario() -> None:
        process = StoreProcess(scratch, lay_out(scratch))
        await process.start()
        engine = await connect_engine(process.socket, role="gateway")
        await engine.ready(20)
        acked: dict[bytes, bytes] = {}
        ended = asyncio.Event()

        async def client(number: int) -> None:
            turn = 0
            while not ended.is_set():
                key, data = b"%d/%d" % (number, turn), pattern(500 + number * 60_000, turn)
                await _put(engine, key, data)
                acked[key] = data
                turn += 1

        clients = [asyncio.create_task(client(number)) for number in range(8)]
        for _ in range(3):
            seen = len(acked)

            async def progressed(seen: int = seen) -> bool:
                return len(acked) > seen + 20

            await _until(progressed)
            await process.kill()
            await process.start()
        ended.set()
        await asyncio.gather(*clients)
        assert await keys(engine, PARTITION) == sorted(acked)
        assert await engine.counters(PARTITION) == {b"count": len(acked)}
        for key, data in acked.items():
            assert await read_blob(engine, (await one(engine, PARTITION, key)).blob) == data
        await engine.close()
        await process.stop()

    asyncio.run(scenario())


def _without(message: dict[str, Any], drive: str) -> dict[str, Any]:
    return {**message, "members": [m for m in message["members"] if m["drive"] != drive]}


def test_a_drive_goes_and_comes_back_under_traffic(scratch: Path) -> None:
    async def scenario() -> None:
        message = lay_out(scratch)
        store = await open_store(scratch / "s", message, settings=SETTINGS)
        engine = await local_engine(store.service)
        await engine.ready(20)
        acked: dict[bytes, bytes] = {}
        ended = asyncio.Event()

        async def client(number: int) -> None:
            turn = 0
            while not ended.is_set():
                key, data = b"%d/%d" % (number, turn), pattern(900 + number * 150_000, turn)
                await _put(engine, key, data)
                acked[key] = data
                turn += 1

        async def state_is(state: MirrorState) -> None:
            async def reached() -> bool:
                return (await engine.health()).state is state

            await _until(reached)

        clients = [asyncio.create_task(client(number)) for number in range(3)]
        await state_is(MirrorState.IN_SYNC)
        store.service.assembly_changed(_without(message, "drive-b"))
        await state_is(MirrorState.DEGRADED)
        count = len(acked)

        async def more() -> bool:
            return len(acked) > count + 20

        await _until(more)
        store.service.assembly_changed(message)
        await state_is(MirrorState.IN_SYNC)
        ended.set()
        await asyncio.gather(*clients)
        store.service.assembly_changed(_without(message, "drive-a"))
        await state_is(MirrorState.DEGRADED)
        for key, data in acked.items():
            assert await read_blob(engine, (await one(engine, PARTITION, key)).blob) == data
        left = [
            alert for alert in (await engine.health()).alerts if "left the mirror" in alert.text
        ]
        assert [alert.text.split()[1] for alert in left] == ["drive-b", "drive-a"]
        assert 0 < left[0].when_ns <= left[1].when_ns
        await engine.close()
        await store.close()

    asyncio.run(scenario())


def test_abandoned_uploads_are_dropped(scratch: Path) -> None:
    async def scenario() -> None:
        message = lay_out(scratch)
        store = await open_store(scratch / "s", message, settings=SETTINGS)
        service: StoreService = store.service
        engine = await connect_engine(scratch / "s", role="gateway")
        await engine.ready(20)
        await write_blob(engine, pattern(600_000))
        writer = engine.blob_writer()
        await writer.write(pattern(600_000))
        assert _staged(scratch, "*/*")
        await engine.close()
        del writer

        async def swept() -> bool:
            return not _staged(scratch, "*")

        await _until(swept)
        assert service.counters()["collected_files"] > 0
        await store.close()

    asyncio.run(scenario())
