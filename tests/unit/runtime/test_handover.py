"""Listening sockets handed over keep serving while takers come and go."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
import uvloop

from appliance.core.errors import Unreachable
from appliance.runtime import unix_sockets
from appliance.runtime.handover import SocketGiver, take_sockets
from appliance.runtime.unix_sockets import Credentials


def _listener() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


@pytest.mark.parametrize("factory", [None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_every_taker_gets_the_same_sockets_and_connections_queue_between(
    tmp_path: Path, factory: object
) -> None:
    async def scenario() -> None:
        path = tmp_path / "sockets"
        with _listener() as secure, _listener() as plain:
            asked: list[int] = []

            def offer(who: Credentials) -> dict[str, socket.socket]:
                asked.append(who.user_id)
                return {"internet": secure, "plain": plain}

            giver = SocketGiver(path, offer)
            first = await take_sockets(path)
            assert list(first) == ["internet", "plain"]
            for taken in first.values():
                taken.close()
            # Nobody accepts now; the client still connects, and the next taker serves it.
            client = socket.create_connection(secure.getsockname(), timeout=5)
            second = await take_sockets(path)
            assert second["internet"].getsockname() == secure.getsockname()
            assert not second["internet"].get_inheritable()
            second["internet"].setblocking(False)
            served, _ = await asyncio.get_running_loop().sock_accept(second["internet"])
            assert served.getpeername() == client.getsockname()
            for used in (served, client, *second.values()):
                used.close()
            giver.close()
            giver.close()
            assert len(asked) == 2
            with pytest.raises(Unreachable):
                await take_sockets(path)

    with asyncio.Runner(loop_factory=factory) as runner:  # type: ignore[arg-type]
        runner.run(scenario())


def test_a_giver_that_does_not_answer_or_answers_nonsense_is_named(tmp_path: Path) -> None:
    async def scenario() -> None:
        silent = unix_sockets.listen(tmp_path / "silent", mode=0o600)
        with silent, pytest.raises(Unreachable, match="no answer in time"):
            await take_sockets(tmp_path / "silent", timeout_s=0.01)
        for nonsense in (b"not json", b'["a", "b"]', b"{}"):
            path = tmp_path / "nonsense"
            with unix_sockets.listen(path, mode=0o600) as listener, _listener() as given:
                taking = asyncio.create_task(take_sockets(path))
                listener.setblocking(False)
                connection, _ = await asyncio.get_running_loop().sock_accept(listener)
                with connection:
                    socket.send_fds(connection, [nonsense], [given.fileno()])
                with pytest.raises(Unreachable, match="cannot take sockets"):
                    await taking

    asyncio.run(scenario())
