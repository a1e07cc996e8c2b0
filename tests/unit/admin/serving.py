"""A real admin server with fake managers on a thread, for blocking clients."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.api.server import AdminServer
from tests.unit.admin.fakes import FakeManagers


@contextmanager
def served(managers: FakeManagers, path: Path) -> Iterator[None]:
    """The API answers on ``path`` inside the block."""
    started = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    failures: list[BaseException] = []

    async def serve() -> None:
        server = AdminServer(managers.managers(), path)
        await server.start()
        started.set()
        await stop.wait()
        await server.close()

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        except BaseException as error:  # noqa: BLE001  raised in the test's thread below
            failures.append(error)
        finally:
            loop.close()
            started.set()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    try:
        yield
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
        thread.join()
        if failures:
            raise failures[0]
