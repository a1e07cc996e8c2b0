"""Control's connections to the stores of all mirrors it knows.

Owns one engine client per mirror. Refuses to wait for a store when asked for its health. The first
mirror also carries the appliance's own records: contracts, accounts, keys.
Invariant: a mirror that was seen once is connected to, and its store started, however often drives
come and go.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from appliance.core.errors import ApplianceError, Unavailable
from appliance.core.scrubs import ScrubOrder, ScrubReport
from appliance.daemon.deferred import DeferredEngine
from appliance.engine.interface import Engine, Health
from appliance.engine.mirror.client import MirrorEngine
from appliance.runtime.complaints import Complaints

HEALTH_S: Final = 2.0
RETRY_S: Final = 1.0
_log = logging.getLogger(__name__)

Connect = Callable[[str], Awaitable[Engine]]
"""Connects to the store of a mirror; waits until it serves."""
StartStore = Callable[[str], Awaitable[None]]
"""Has the store of a mirror run, if it does not. Idempotent."""


class Mirrors:
    """Used from one event loop."""

    def __init__(self, connect: Connect, start_store: StartStore) -> None:
        self.records: Final = DeferredEngine()
        """The engine that holds the appliance's own records."""
        self.known: Final = asyncio.Event()
        """Set once there is a mirror."""
        self.serving: Final = asyncio.Event()
        """Set once ``records`` answers."""
        self._connect = connect
        self._start_store = start_store
        self._engines: dict[str, Engine] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def first(self) -> str:
        """The mirror with the appliance's records. ``known`` comes first."""
        return next(iter(self._tasks))

    def notice(self, name: str) -> None:
        """There is such a mirror. Idempotent."""
        if name not in self._tasks:
            self._tasks[name] = asyncio.create_task(self._bring_up(name), name=f"mirror {name}")
            self.known.set()

    async def health_of(self, name: str) -> Health | None:
        """The store's word; None while it does not answer."""
        engine = self._engines.get(name)
        if engine is None:
            return None
        try:
            async with asyncio.timeout(HEALTH_S):
                return await engine.health()
        except (TimeoutError, ApplianceError):
            return None

    async def scrub_of(self, name: str, order: ScrubOrder) -> ScrubReport:
        """Say something about a mirror's scrub, and learn how it stands. Raises ``Refused``,
        ``Unavailable``."""
        engine = self._engines.get(name)
        if not isinstance(engine, MirrorEngine):
            raise Unavailable(f"the store of mirror {name} does not answer; try again")
        try:
            async with asyncio.timeout(HEALTH_S):
                report = await engine.scrub(order)
        except TimeoutError as late:
            raise Unavailable(f"the store of mirror {name} did not answer; try again") from late
        return dataclasses.replace(report, mirror=name)

    async def close(self) -> None:
        """Idempotent."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for engine in self._engines.values():
            await engine.close()
        self._engines.clear()

    async def _bring_up(self, name: str) -> None:
        complaints = Complaints(_log)
        while True:
            try:
                await self._start_store(name)
                engine = await self._connect(name)
                break
            except ApplianceError as error:
                complaints.say(name, f"mirror {name}: {error}")
                await asyncio.sleep(RETRY_S)
        self._engines[name] = engine
        if name == self.first:
            self.records.set(engine)
            self.serving.set()
        _log.info("connected to the store of mirror %s", name)
