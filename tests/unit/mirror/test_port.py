"""A gateway whose store is not there, or there and silent: every call ends, and says why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.core.errors import Unavailable
from appliance.core.scrubs import ScrubOrder
from appliance.engine.interface import Batch, Partition, Put
from appliance.engine.mirror import port as ports
from appliance.engine.mirror.client import ClientSettings, MirrorEngine
from appliance.engine.mirror.connecting import connect_engine
from appliance.engine.mirror.port import PeerPort
from appliance.runtime.clock import SystemClock
from appliance.runtime.ipc import Peer, serve

PARTITION = Partition("p")
BATCH = Batch(operations=[Put(b"key", b"value")])

pytestmark = pytest.mark.timeout(30)


@asynccontextmanager
async def engine_at(socket: Path) -> AsyncIterator[MirrorEngine]:
    engine = await connect_engine(socket, role="test", settings=ClientSettings(patience_s=0.2))
    try:
        yield engine
    finally:
        await engine.close()


@asynccontextmanager
async def port_at(socket: Path) -> AsyncIterator[PeerPort]:
    opened = PeerPort(socket, "test", SystemClock(), patience_s=0.2)
    await opened.start(lambda view: None)
    try:
        yield opened
    finally:
        await opened.close()


CALLS: dict[str, Callable[[PeerPort], Awaitable[object]]] = {
    "health": lambda port: port.health(),
    "scrub": lambda port: port.scrub(ScrubOrder.LOOK),
    "order": lambda port: port.order("resync", "pause"),
}


@pytest.mark.parametrize("name", sorted(CALLS))
def test_nobody_listens(name: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with port_at(tmp_path / "s") as port:
            with pytest.raises(Unavailable, match="cannot be reached"):
                await CALLS[name](port)
            with pytest.raises(Unavailable, match="did not answer within"):
                await port.commit([])

    asyncio.run(scenario())


@pytest.mark.parametrize("name", sorted(CALLS))
def test_a_store_that_is_silent_is_not_waited_for(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for a commit it has taken: what becomes of that, it alone can say."""
    monkeypatch.setattr(ports, "CALL_TIMEOUT_S", 0.1)

    async def scenario() -> None:
        over = asyncio.Event()
        asked = asyncio.Event()

        async def silent(_peer: Peer, _message: Any) -> None:
            asked.set()
            await over.wait()

        async def none(_peer: Peer, _message: Any) -> None:
            raise Unavailable("the store does not serve yet")

        handlers = dict.fromkeys(["health", "scrub", "resync", "commit"], silent)
        server = await serve(tmp_path / "s", {**handlers, "members": none})
        async with port_at(tmp_path / "s") as port:
            await port._connected.wait()
            with pytest.raises(Unavailable):
                await CALLS[name](port)
            asked.clear()
            committing = asyncio.create_task(port.commit([]))
            await asked.wait()
            done, _ = await asyncio.wait({committing}, timeout=0.3)
            assert not done
            committing.cancel()
            over.set()
        await server.close()

    asyncio.run(scenario())


def test_an_engine_without_a_store_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with engine_at(tmp_path / "s") as engine:
            with pytest.raises(Unavailable, match="does not serve yet"):
                await engine.ready(0.05)
            with pytest.raises(Unavailable, match="does not serve yet"):
                await engine.read(PARTITION, [b"key"])
            with pytest.raises(Unavailable, match="did not answer within"):
                await engine.commit(PARTITION, BATCH)

    asyncio.run(scenario())
