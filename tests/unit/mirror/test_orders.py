"""Who may tell a store what becomes of its mirror: gateways share the socket, and may not."""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from appliance.core.errors import InvalidInput, Refused, Unavailable, Unreachable
from appliance.engine.mirror.assembly import AssemblyMessage
from appliance.engine.mirror.launch import open_store
from appliance.engine.mirror.service import StoreService
from appliance.engine.mirror.state import StoreSettings
from appliance.runtime.clock import SystemClock, SystemEntropy
from appliance.runtime.ipc import Peer, connect
from appliance.runtime.unix_sockets import Credentials

ORDERS = {"assembly_changed": {}, "override": {}, "resync": "pause", "scrub": "cancel"}


@dataclass
class _Caller:
    """As much of a connection as says who is at its other end."""

    credentials: Credentials


def _peer(user_id: int) -> Peer:
    return cast("Peer", _Caller(Credentials(1, user_id, user_id)))


def _service() -> StoreService:
    return StoreService(clock=SystemClock(), entropy=SystemEntropy(), settings=StoreSettings())


@pytest.mark.parametrize("method", sorted(ORDERS))
def test_another_user_s_order_is_refused(method: str) -> None:
    async def scenario() -> None:
        answer: Any = _service().handlers()[method](_peer(os.geteuid() + 1), ORDERS[method])
        with pytest.raises(Refused, match="from this user"):
            await answer

    asyncio.run(scenario())


def test_the_store_s_own_user_and_root_may() -> None:
    async def scenario() -> None:
        service = _service()
        for user_id, order in ((0, "pause"), (os.geteuid(), "resume")):
            answer: Any = service.handlers()["resync"](_peer(user_id), order)
            await answer
            assert service._chores.resync.paused is (order == "pause")

    asyncio.run(scenario())


@pytest.mark.parametrize("message", ["stop", "", None, 7])
def test_an_order_nobody_knows_is_refused(message: object) -> None:
    async def scenario() -> None:
        service = _service()
        answer: Any = service.handlers()["resync"](_peer(0), message)
        with pytest.raises(InvalidInput, match="paused and resumed"):
            await answer
        assert not service._chores.resync.paused
        with pytest.raises(InvalidInput, match="cannot take an order"):
            service._chores.order("reboot", message)

    asyncio.run(scenario())


def test_a_chore_does_not_wait_for_a_store_that_ends() -> None:
    """Nobody takes what was handed over any more."""

    async def scenario() -> None:
        chores = _service()._chores
        chores.stop()
        with pytest.raises(Unavailable, match="ending"):
            await asyncio.to_thread(chores.command, lambda store: None)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "message",
    [None, {}, {"members": 7}, {"mirror": "m", "members": [{"drive": "a"}]}, {"members": [7]}],
)
def test_an_assembly_that_cannot_be_read_is_refused(message: object) -> None:
    with pytest.raises(InvalidInput, match="cannot read an assembly"):
        AssemblyMessage.decode(message)


def test_a_store_that_cannot_begin_does_not_listen(tmp_path: Path) -> None:
    """Else the next attempt would find a living one there."""

    async def scenario() -> None:
        for _ in range(2):
            with pytest.raises(InvalidInput, match="cannot read an assembly"):
                await open_store(tmp_path / "s", {"mirror": "m"})
        with pytest.raises(Unreachable):
            await connect(tmp_path / "s", role="test")

    asyncio.run(scenario())


@pytest.mark.parametrize("message", ["", "begin", None, 7])
def test_a_word_that_is_no_order_for_a_scrub_is_refused(message: object) -> None:
    async def scenario() -> None:
        answer: Any = _service().handlers()["scrub"](_peer(0), message)
        with pytest.raises(InvalidInput, match="no order for a scrub"):
            await answer

    asyncio.run(scenario())


def test_an_end_does_not_wait_for_a_chore_that_hangs() -> None:
    hung, over = threading.Event(), threading.Event()

    class Hung:
        """As much of a store as a chore touches first."""

        def checkpoint_if_due(self) -> None:
            hung.set()
            over.wait(20)

    async def scenario() -> None:
        chores = _service()._chores
        vars(chores)["_store"] = Hung()
        chores.start()
        await asyncio.to_thread(hung.wait, 20)
        chores.stop()
        await asyncio.to_thread(chores.join, 0.05)
        assert not over.is_set()
        over.set()
        await asyncio.to_thread(chores.join, 20)

    asyncio.run(scenario())
