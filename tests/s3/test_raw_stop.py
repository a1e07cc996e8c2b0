"""The graceful stop: what was asked is answered, nothing new is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from appliance.s3.limits import FrontLimits
from tests.s3.front_door import PATIENCE_S, Front, front, request_bytes


def stop(running: Front, grace_s: float = PATIENCE_S) -> Future[None]:
    return asyncio.run_coroutine_threadsafe(running.server.stop(grace_s), running.loop)


async def _until(condition: Callable[[], bool]) -> None:
    """Let the event loop turn until it has seen what a client did."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            turned = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(turned.set_result, None)
            await turned


def test_idle_connections_are_closed_and_none_are_accepted() -> None:
    with front() as running:
        client = running.connect()
        assert client.ask(request_bytes("GET", "/")).status == 200
        stop(running).result(PATIENCE_S)
        assert client.closed()
        with pytest.raises(ConnectionRefusedError):
            running.connect()
        assert running.server.connections == 0


def test_a_request_in_flight_is_answered_and_its_connection_closed() -> None:
    with front() as running:
        client = running.connect()
        client.send(request_bytes("GET", "/?deed=wait"))
        assert running.echo.entered.wait(PATIENCE_S)
        stopping = stop(running)
        with pytest.raises(TimeoutError):
            stopping.result(0.05)
        running.loop.call_soon_threadsafe(running.echo.release.set)
        answer = client.answer()
        assert answer.body == b"waited"
        assert answer.headers["connection"] == "close"
        assert client.closed()
        stopping.result(PATIENCE_S)


def test_an_upload_under_way_is_finished() -> None:
    with front() as running:
        client = running.connect()
        headers = {"Content-Length": "6", "Expect": "100-continue"}
        assert client.ask(request_bytes("PUT", "/bucket/key", headers)).status == 100
        stopping = stop(running)
        client.send(b"content"[:6])
        assert client.answer().seen["size"] == 6
        stopping.result(PATIENCE_S)


def test_a_header_that_is_arriving_is_waited_for() -> None:
    with front() as running:
        client = running.connect()
        assert client.ask(request_bytes("GET", "/")).status == 200
        data = request_bytes("GET", "/bucket/late")
        client.send(data[:20])
        running.run(_until(lambda: running.server.arriving == 1))
        stopping = stop(running)
        client.send(data[20:])
        answer = client.answer()
        assert answer.seen["key"] == "late"
        assert answer.headers["connection"] == "close"
        stopping.result(PATIENCE_S)


def test_a_connection_just_made_may_still_ask() -> None:
    with front(limits=FrontLimits(fresh_connection_s=PATIENCE_S)) as running:
        client = running.connect()
        running.run(_until(lambda: running.server.connections == 1))
        stopping = stop(running)
        answer = client.ask(request_bytes("GET", "/bucket/key"))
        assert answer.seen["key"] == "key"
        assert client.closed()
        stopping.result(PATIENCE_S)


def test_a_connection_that_never_asks_does_not_hold_the_stop() -> None:
    with front(limits=FrontLimits(fresh_connection_s=0.05)) as running:
        client = running.connect()
        running.run(_until(lambda: running.server.connections == 1))
        stop(running).result(PATIENCE_S)
        assert client.closed()


def test_what_is_not_done_after_the_grace_is_cut() -> None:
    with front() as running:
        client = running.connect()
        client.send(request_bytes("GET", "/?deed=wait"))
        assert running.echo.entered.wait(PATIENCE_S)
        stop(running, 0.1).result(PATIENCE_S)
        assert client.closed()
        assert running.wait_for_records(1)[0].code == "ConnectionClosed"
        assert running.echo.outcome == ["cancelled"]


def test_stopping_twice() -> None:
    with front() as running:
        stop(running).result(PATIENCE_S)
        stop(running).result(PATIENCE_S)
