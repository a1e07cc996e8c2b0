"""Where the index is read: on the loop, and in a thread while its device is slow."""

from __future__ import annotations

import asyncio
import threading

import pytest

from appliance.engine.mirror import turnstile as module
from appliance.engine.mirror.turnstile import IN_A_ROW_MAX, IN_THREAD_S, QUICK_S, Turnstile


class SteppedClock:
    """Stands still unless told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def now_ns(self) -> int:
        return int(self.now_s * 1e9)

    def monotonic_s(self) -> float:
        return self.now_s

    def sleep_s(self, seconds: float) -> None:
        raise AssertionError("nobody sleeps here")


class Device:
    """What this process has read from devices, in ``resource``'s place."""

    RUSAGE_THREAD = 1

    def __init__(self) -> None:
        self.ru_inblock = 0

    def getrusage(self, _who: int) -> Device:
        return self


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device()
    monkeypatch.setattr(module, "resource", device)
    return device


def test_a_call_that_waited_for_the_device_sends_the_next_to_the_thread(
    device: Device,
) -> None:
    async def main() -> None:
        clock = SteppedClock()
        turnstile = Turnstile("index", clock)
        here = threading.current_thread()

        def slow() -> None:
            clock.now_s += 2 * QUICK_S
            device.ru_inblock += 8

        def preempted() -> None:
            clock.now_s += 2 * QUICK_S

        assert await turnstile.run(threading.current_thread) is here
        await turnstile.run(slow)
        assert not turnstile.is_quick()
        there = await asyncio.gather(*(turnstile.run(threading.current_thread) for _ in range(5)))
        assert here not in there
        clock.now_s += IN_THREAD_S
        assert await turnstile.run(threading.current_thread) is here
        await turnstile.run(preempted)
        assert turnstile.is_quick(), "slow for want of a processor"
        await turnstile.close()

    asyncio.run(main())


@pytest.mark.parametrize("quick", [True, False])
def test_an_error_is_raised_where_the_call_was_made(device: Device, quick: bool) -> None:
    async def main() -> None:
        clock = SteppedClock()
        turnstile = Turnstile("index", clock)

        def fail() -> None:
            clock.now_s += 0 if quick else 2 * QUICK_S
            device.ru_inblock += 8
            raise KeyError("it")

        for _ in range(2):
            with pytest.raises(KeyError, match="it"):
                await turnstile.run(fail)
        assert turnstile.is_quick() is quick
        await turnstile.close()

    asyncio.run(main())


def test_a_caller_that_only_reads_does_not_hold_up_the_loop() -> None:
    async def main() -> None:
        turnstile = Turnstile("index", SteppedClock())
        ticked = asyncio.Event()
        asyncio.get_running_loop().call_soon(ticked.set)
        reads = 0
        while not ticked.is_set():
            await turnstile.run(lambda: None)
            reads += 1
        assert reads <= IN_A_ROW_MAX
        await turnstile.close()

    asyncio.run(main())
