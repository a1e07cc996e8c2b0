"""Children of the supervisor: ready, dead, back, hopeless, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable

import pytest

from appliance.daemon.child import Child, Ended

READY = """
import os, signal, socket, sys
notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notices.connect("\\0" + os.environ["NOTIFY_SOCKET"][1:])
notices.send(b"STATUS=well\\nREADY=1")
"""
UNTIL_SIGNAL = READY + "signal.pause()\n"
DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + UNTIL_SIGNAL


@contextlib.asynccontextmanager
async def _child(code: str, **options: int) -> AsyncIterator[tuple[Child, asyncio.Queue[int]]]:
    """A child that runs ``code``, and the process id at each readiness."""
    reading, writing = os.pipe()
    ready: asyncio.Queue[int] = asyncio.Queue()
    children: list[Child] = []
    child = Child(
        "store",
        [sys.executable, "-c", code],
        os.environ,
        reading,
        lambda: ready.put_nowait(children[0].process_id),
        **options,
    )
    children.append(child)
    try:
        yield child, ready
    finally:
        await child.stop(5)
        child.close()
        os.close(reading)
        os.close(writing)


def _run(scenario: Callable[[], object]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))  # type: ignore[arg-type]


def test_a_killed_child_is_back_under_another_process_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        async with _child(UNTIL_SIGNAL) as (child, ready):
            running = asyncio.create_task(child.run())
            seen = [await ready.get()]
            assert child.status == "well"
            for _ in range(3):
                os.kill(seen[-1], signal.SIGKILL)
                seen.append(await ready.get())
            assert len(set(seen)) == 4
            await child.stop(5)
            await running
            assert child.process_id == 0

    _run(scenario)
    assert "store ended by signal SIGKILL" in caplog.text
    assert "store crashed 3 times in five minutes" in caplog.text


def test_one_that_never_was_ready_ends_the_supervisor() -> None:
    async def scenario() -> None:
        async with _child("raise SystemExit(78)") as (child, _):
            with pytest.raises(Ended, match="store ended at its start") as caught:
                await child.run()
            assert caught.value.code == 78
        async with _child("raise SystemExit(69)", first_starts=1) as (child, _):
            with pytest.raises(Ended) as caught:
                await child.run()
            assert caught.value.code == 69

    _run(scenario)


def test_one_that_does_not_listen_is_killed() -> None:
    async def scenario() -> None:
        async with _child(DEAF) as (child, ready):
            running = asyncio.create_task(child.run())
            process_id = await ready.get()
            await child.stop(0.05)
            await running
            with pytest.raises(ProcessLookupError):
                os.kill(process_id, 0)

    _run(scenario)
