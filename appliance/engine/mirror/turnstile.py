"""Where the index is read: on the event loop while it is in memory, else in a thread.

Owns that choice, one thread, and a list of what waits for it. Going to a thread and back costs
several times what reading a record from memory does; whatever gathers while the thread is busy goes
over, and comes back, together. A read that had to wait for the index's device sends those of the
next second to the thread, so that a slow device stalls the loop once and not for each request.
Invariant: a call sees everything committed before it was made, because it is carried out after it
was made.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from appliance.core.ports import Clock

T = TypeVar("T")
QUICK_S: Final = 0.003
IN_THREAD_S: Final = 1.0
IN_A_ROW_MAX: Final = 16
"""After so many calls the loop gets its turn: a caller that only reads must not hold it up."""


class Turnstile:
    """Belongs to one event loop."""

    def __init__(self, name: str, clock: Clock) -> None:
        self._clock = clock
        self._threads = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._waiting: list[tuple[Callable[[], object], asyncio.Future[Any]]] = []
        self._busy = False
        self._in_thread_until_s = float("-inf")
        self._in_a_row = 0

    def is_quick(self) -> bool:
        """Whether calls may be made on the event loop."""
        return self._clock.monotonic_s() >= self._in_thread_until_s

    def here(self, call: Callable[[], T]) -> T:
        """The call's result, or its exception, from the event loop itself. Only if ``is_quick``."""
        began_s, before = self._clock.monotonic_s(), _blocks_read()
        try:
            return call()
        finally:
            now_s = self._clock.monotonic_s()
            # A slow call may also be one that was not given the processor.
            if now_s - began_s > QUICK_S and _blocks_read() != before:
                self._in_thread_until_s = now_s + IN_THREAD_S

    async def run(self, call: Callable[[], T]) -> T:
        """The call's result, or its exception, from wherever it is best made."""
        if self.is_quick():
            self._in_a_row += 1
            if self._in_a_row >= IN_A_ROW_MAX:
                self._in_a_row = 0
                await asyncio.sleep(0)
            return self.here(call)
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


def _blocks_read() -> int:
    """What this thread has read from devices so far."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_inblock


def _outcome(call: Callable[[], object]) -> tuple[object, Exception | None]:
    try:
        return call(), None
    except Exception as error:  # noqa: BLE001 - raised where the call was made
        return None, error
