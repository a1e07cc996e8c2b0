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
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from appliance.core.errors import ApplianceError, Unavailable
from appliance.core.scrubs import ScrubOrder, ScrubReport
from appliance.daemon.deferred import DeferredEngine
from appliance.engine.interface import Engine, Health
from appliance.engine.mirror.client import MirrorEngine
from appliance.engine.mirror.messages import decode_health
from appliance.runtime.complaints import Complaints
from appliance.runtime.link import Link

HEALTH_S: Final = 2.0
OVERRIDE_S: Final = 10.0
ORDER_S: Final = 30.0
RETRY_S: Final = 1.0
_log = logging.getLogger(__name__)

Connect = Callable[[str], Awaitable[Engine]]
"""Connects to the store of a mirror; waits until it serves."""
LineTo = Callable[[str], Link]
StartStore = Callable[[str], Awaitable[None]]
"""Has the store of a mirror run, if it does not. Idempotent."""


class Mirrors:
    """Used from one event loop."""

    def __init__(
        self, connect: Connect, start_store: StartStore, line_to: LineTo | None = None
    ) -> None:
        """``line_to`` gives the plain connection to a store that may not serve."""
        self.records: Final = DeferredEngine()
        """The engine that holds the appliance's own records."""
        self.known: Final = asyncio.Event()
        """Set once there is a mirror."""
        self.serving: Final = asyncio.Event()
        """Set once ``records`` answers."""
        self._connect = connect
        self._start_store = start_store
        self._line_to = line_to
        self._lines: dict[str, Link] = {}
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
            if self._line_to is not None:
                self._lines[name] = line = self._line_to(name)
                line.start()

    async def override(self, name: str, message: Mapping[str, object]) -> None:
        """Give a store the operator's word, whether it serves or not. Raises ``Unavailable``."""
        line = self._lines.get(name)
        if line is None:
            raise Unavailable(f"cannot reach the store of mirror {name}: it was never there")
        await line.call("override", dict(message), timeout_s=OVERRIDE_S)

    async def health_of(self, name: str) -> Health | None:
        """The store's word, also while it does not serve; None while it does not answer."""
        line = self._lines.get(name)
        if line is not None and line.connected:
            try:
                return decode_health(await line.call("health", timeout_s=HEALTH_S))
            except ApplianceError:
                return None
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

    async def order(self, name: str, what: str, message: object) -> None:
        """Tell the store of a mirror what an operator wants. Raises ``Unavailable``, and what the
        store refuses with."""
        engine = self._engines.get(name)
        if not isinstance(engine, MirrorEngine):
            raise Unavailable(f"cannot {what} mirror {name}: its store does not answer")
        try:
            async with asyncio.timeout(ORDER_S):
                await engine.order(what, message)
        except TimeoutError as late:
            raise Unavailable(f"cannot {what} mirror {name}: its store does not answer") from late

    async def close(self) -> None:
        """Idempotent."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for line in self._lines.values():
            await line.close()
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
