"""Who accepts: the process with the fewest connections, and in the end anybody."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import uvloop

from appliance.s3 import acceptor as module
from appliance.s3.acceptor import Acceptor

PATIENCE_S = 20.0


class Process:
    """One of several that share a listening socket; it counts what it takes."""

    def __init__(
        self,
        listening: socket.socket,
        name: str,
        taken: asyncio.Queue[str],
        *,
        delay_max_s: float = 0.1,
    ) -> None:
        self.crowd = 0
        self._name = name
        self._taken = taken
        self.acceptor = Acceptor(
            listening.dup(), self._take, lambda: self.crowd, step_s=0.05, delay_max_s=delay_max_s
        )

    def _take(self, accepted: socket.socket) -> None:
        accepted.close()
        self.crowd += 1
        self._taken.put_nowait(self._name)


def run(scenario: Callable[[socket.socket, ExitStack], Any]) -> None:
    async def main() -> None:
        with ExitStack() as stack:
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            async with asyncio.timeout(PATIENCE_S):
                await scenario(listening, stack)

    uvloop.run(main())


def connect(listening: socket.socket, stack: ExitStack) -> None:
    stack.enter_context(socket.create_connection(listening.getsockname(), PATIENCE_S))


@pytest.mark.parametrize("first_is_busy", [True, False])
def test_the_process_with_fewer_connections_takes_the_next(first_is_busy: bool) -> None:
    async def scenario(listening: socket.socket, stack: ExitStack) -> None:
        taken: asyncio.Queue[str] = asyncio.Queue()
        first = Process(listening, "first", taken, delay_max_s=PATIENCE_S / 2)
        second = Process(listening, "second", taken, delay_max_s=PATIENCE_S / 2)
        stack.callback(first.acceptor.close)
        stack.callback(second.acceptor.close)
        (first if first_is_busy else second).crowd = 1000
        for _ in range(3):
            connect(listening, stack)
            assert await taken.get() == ("second" if first_is_busy else "first")
            first.crowd, second.crowd = (1000, 0) if first_is_busy else (0, 1000)

    run(scenario)


def test_a_connection_nobody_else_takes_is_taken() -> None:
    async def scenario(listening: socket.socket, stack: ExitStack) -> None:
        taken: asyncio.Queue[str] = asyncio.Queue()
        idle, busy = Process(listening, "idle", taken), Process(listening, "busy", taken)
        stack.callback(busy.acceptor.close)
        busy.crowd = 1000
        idle.acceptor.close()
        idle.acceptor.close()
        for _ in range(2):
            connect(listening, stack)
            assert await taken.get() == "busy"
        # And nothing is accepted behind the close of the last one.
        busy.acceptor.close()
        connect(listening, stack)
        await asyncio.sleep(0)
        assert taken.empty()

    run(scenario)


def test_a_shortage_of_descriptors_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHORTAGE_PAUSE_S", 0.01)

    class ShortSocket(socket.socket):
        """Has no descriptor left, twice."""

        refusals = 2

        def accept(self) -> tuple[socket.socket, Any]:
            if self.refusals:
                self.refusals -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    async def scenario(listening: socket.socket, stack: ExitStack) -> None:
        taken: asyncio.Queue[socket.socket] = asyncio.Queue()
        short = ShortSocket(fileno=listening.dup().detach())
        accepting = Acceptor(short, taken.put_nowait, lambda: 0, step_s=0.0, delay_max_s=0.0)
        stack.callback(accepting.close)
        connect(listening, stack)
        stack.enter_context(await taken.get())
        assert short.refusals == 0

    run(scenario)
