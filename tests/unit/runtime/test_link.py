"""A link outlives the restarts of the role behind it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from appliance.core.errors import NotFound, Unavailable
from appliance.runtime.ipc import Peer, serve
from appliance.runtime.link import Link


async def echo(peer: Peer, params: Any) -> Any:
    return params


def test_calls_wait_for_a_role_that_is_not_there_yet(tmp_path: Path) -> None:
    async def scenario() -> None:
        opened: list[str] = []

        async def greet(peer: Peer) -> None:
            opened.append(await peer.call("echo", "hello"))

        link = Link(tmp_path / "a.sock", role="gateway 0", on_open=greet)
        link.start()
        with pytest.raises(Unavailable, match="is away"):
            await link.call("echo", 1, timeout_s=0.01)
        waiting = asyncio.create_task(link.call("echo", 2))
        server = await serve(tmp_path / "a.sock", {"echo": echo})
        assert await waiting == 2
        assert opened == ["hello"]
        await server.close()
        again = asyncio.create_task(link.call("echo", 3))
        server = await serve(tmp_path / "a.sock", {"echo": echo})
        assert await again == 3
        assert link.connected
        assert opened == ["hello", "hello"]
        await link.close()
        await link.close()
        await server.close()

    asyncio.run(scenario())


def test_a_call_cut_by_a_restart_is_made_again_and_refusals_are_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        calls: list[str] = []
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def hang(peer: Peer, params: Any) -> None:
            calls.append("hang")
            first.set_result(None)
            await peer.wait_closed()

        async def answer(peer: Peer, params: Any) -> str:
            calls.append("answer")
            return "done"

        async def refuse(peer: Peer, params: Any) -> None:
            calls.append("refuse")
            raise NotFound("no such thing")

        server = await serve(tmp_path / "a.sock", {"work": hang})
        link = Link(tmp_path / "a.sock", role="x")
        link.start()
        working = asyncio.create_task(link.call("work"))
        await first
        await server.close()
        server = await serve(tmp_path / "a.sock", {"work": answer, "refuse": refuse})
        assert await working == "done"
        with pytest.raises(NotFound):
            await link.call("refuse")
        assert calls == ["hang", "answer", "refuse"]
        await link.close()
        await server.close()

    asyncio.run(scenario())
