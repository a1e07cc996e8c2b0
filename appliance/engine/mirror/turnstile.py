"""Many small index reads in few thread changes.

Owns one thread and a list of what waits for it. Going to a thread and back costs several times what
reading a record from the index does; so whatever gathers while the thread is busy goes over, and
comes back, together. Invariant: a call sees everything committed before it was made, because it is
carried out after it was made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class Turnstile:
    """Belongs to one event loop."""

    def __init__(self, name: str) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._waiting: list[tuple[Callable[[], object], asyncio.Future[Any]]] = []
        self._busy = False

    async def run(self, call: Callable[[], T]) -> T:
        """The call's result, or its exception."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, answer))
        if not self._busy:
            self._go()
        return await answer

    def _go(self) -> None:
        calls, self._waiting = self._waiting, []
        self._busy = True
        loop = asyncio.get_running_loop()

        def turn() -> None:
            outcomes = [_outcome(call) for call, _ in calls]
            loop.call_soon_threadsafe(self._back, [answer for _, answer in calls], outcomes)

        self._threads.submit(turn)

    def _back(
        self, answers: list[asyncio.Future[Any]], outcomes: list[tuple[object, Exception | None]]
    ) -> None:
        self._busy = False
        if self._waiting:
            self._go()
        for answer, (value, error) in zip(answers, outcomes, strict=True):
            if answer.done():
                continue
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(value)

    async def close(self) -> None:
        """After the last call."""
        await asyncio.to_thread(self._threads.shutdown)


def _outcome(call: Callable[[], object]) -> tuple[object, Exception | None]:
    try:
        return call(), None
    except Exception as error:  # noqa: BLE001 - raised where the call was made
        return None, error
