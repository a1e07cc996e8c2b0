"""The life of one role's process: start, signals, watchdog, stop, exit code.

Owns the event loop, the signals and what systemd is told. Refuses nothing. A role is one coroutine
that starts up, says ``ready``, waits for ``stopped`` and winds down; SIGTERM, SIGINT and, in
development, the end of the supervisor set ``stopping``; SIGHUP runs the reload callbacks.
Invariant: an ``ApplianceError`` that ends a role is one sentence on standard error and an exit code
that says whether another start could help.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias, TypeVar

from appliance.core.errors import ApplianceError
from appliance.daemon.config import Config
from appliance.daemon.exits import EXIT_FAILED, PARENT_VARIABLE, complain
from appliance.runtime.heap import settle_heap
from appliance.system.systemd import Notifier, watchdog_interval_s

TELL_EVERY_S: Final = 30.0
_MICROSECONDS: Final = 1_000_000
_log = logging.getLogger(__name__)

T = TypeVar("T")
Reload: TypeAlias = Callable[[], Awaitable[None]]
Body: TypeAlias = Callable[["Lifetime"], Awaitable[None]]


class Lifetime:
    """What a role's coroutine is handed. Used from its event loop."""

    def __init__(self, role: str, config: Config, notifier: Notifier | None = None) -> None:
        self.role: Final = role
        self.config: Final = config
        self.stopping: Final = asyncio.Event()
        self._notifier = notifier or Notifier()
        self._reloads: list[Reload] = []
        self._reloading: asyncio.Task[None] | None = None
        self._status = "starting"
        self._is_ready = False
        self._starting = asyncio.current_task()

    def ready(self, status: str) -> None:
        """The role serves. What start-up left behind is put out of the collector's way."""
        self._is_ready = True
        self._status = status
        self._notifier.ready(status)
        gc.collect()
        gc.freeze()

    def status(self, status: str) -> None:
        """What ``systemctl status`` shows, in words for a person."""
        if status != self._status:
            self._status = status
            self._notifier.status(status)

    def still_starting(self, status: str, seconds: float) -> None:
        """The start makes progress and needs so much more time."""
        self._notifier.extend_timeout(seconds)
        self.status(status)

    async def during_start(
        self, status: str, work: Awaitable[T], *, tell_every_s: float = TELL_EVERY_S
    ) -> T:
        """A step of the start that may take long, and bounds itself: until it ends the service
        manager is asked for more time. Its result; raises what it raises."""

        async def tell() -> None:
            while True:
                self.still_starting(status, 2 * tell_every_s)
                await asyncio.sleep(tell_every_s)

        telling = asyncio.create_task(tell(), name="still starting")
        try:
            return await work
        finally:
            telling.cancel()

    def on_reload(self, reload: Reload) -> None:
        """Run at SIGHUP."""
        self._reloads.append(reload)

    async def stopped(self) -> None:
        """Return when it is time to wind down."""
        await self.stopping.wait()

    # -- run by ``live``

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Listen to signals, the supervisor and the watchdog."""
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        pipe = os.environ.get(PARENT_VARIABLE, "")
        if pipe.isdigit():
            loop.add_reader(int(pipe), self._parent_is_gone, int(pipe))
        interval_s = watchdog_interval_s()
        if interval_s is not None:
            self._feed(loop, interval_s)

    def _stop(self) -> None:
        if not self.stopping.is_set():
            self._notifier.stopping("stopping")
            self.stopping.set()
            if not self._is_ready and self._starting is not None:
                self._starting.cancel()

    def _parent_is_gone(self, pipe: int) -> None:
        asyncio.get_running_loop().remove_reader(pipe)
        _log.warning("the supervisor is gone: stopping")
        self._stop()

    def _feed(self, loop: asyncio.AbstractEventLoop, interval_s: float) -> None:
        # An event loop that hangs does not come here, and systemd ends the process.
        self._notifier.alive()
        loop.call_later(interval_s, self._feed, loop, interval_s)

    def _reload(self) -> None:
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.create_task(self._run_reloads(), name="reload")

    async def _run_reloads(self) -> None:
        self._notifier.reloading(int(time.monotonic() * _MICROSECONDS))
        for reload in self._reloads:
            try:
                await reload()
            except ApplianceError as error:
                _log.error("reload: %s", error)
        self._notifier.ready(self._status)


def live(role: str, config: Config, body: Body) -> int:
    """Run a role until it ends; its exit code."""
    settle_heap()
    try:
        with asyncio.Runner(loop_factory=_event_loop) as runner:
            runner.run(_run(role, config, body))
    except ApplianceError as error:
        return complain(role, error)
    except Exception:  # noqa: BLE001 - the outermost frame of the process
        _log.exception("the role ends by a fault of its own")
        return EXIT_FAILED
    return 0


def _event_loop() -> asyncio.AbstractEventLoop:
    import uvloop

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


async def _run(role: str, config: Config, body: Body) -> None:
    life = Lifetime(role, config)
    life.attach(asyncio.get_running_loop())
    try:
        await body(life)
    except asyncio.CancelledError:
        if not life.stopping.is_set():
            raise
