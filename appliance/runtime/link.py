"""A connection to another role that comes back by itself.

Owns the reconnecting: one attempt at a time, with a bounded back-off, in a named worker. Refuses
nothing: callers decide how long they wait. Invariant: at most one connection at a time; ``on_open``
runs for each new one before any call uses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from appliance.core.errors import ApplianceError, Unavailable, Unreachable
from appliance.runtime.complaints import Complaints
from appliance.runtime.ipc import Handler, Peer, connect

RETRY_S_MIN: Final = 0.02
RETRY_S_MAX: Final = 0.5

_log = logging.getLogger(__name__)
_NO_HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType({})


class Link:
    """Used from one event loop. ``start`` before anything else, ``close`` at the end."""

    def __init__(
        self,
        path: Path,
        *,
        role: str,
        handlers: Mapping[str, Handler] = _NO_HANDLERS,
        on_open: Callable[[Peer], Awaitable[None]] | None = None,
    ) -> None:
        self._path = path
        self._role = role
        self._handlers = handlers
        self._on_open = on_open
        self._peer: Peer | None = None
        self._changed = asyncio.Condition()
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def connected(self) -> bool:
        """Whether the other side is there now."""
        return self._peer is not None and not self._peer.closed

    def start(self) -> None:
        """Connect, and connect again whenever the connection is lost. Idempotent."""
        if self._worker is None:
            self._worker = asyncio.create_task(self._keep(), name=f"link to {self._path.name}")

    async def close(self) -> None:
        """End the connection and stay away. Idempotent."""
        self._closed = True
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker
        if self._peer is not None:
            self._peer.close()
            await self._peer.wait_closed()

    async def peer(self, *, timeout_s: float | None = 30.0) -> Peer:
        """The connection, waited for. Raises ``Unavailable`` when it does not come in time."""
        if self._peer is not None and not self._peer.closed:
            return self._peer
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                while self._peer is None or self._peer.closed:
                    await self._changed.wait()
                return self._peer
        except TimeoutError:
            raise Unavailable(f"the role behind {self._path} is away") from None

    async def call(
        self, method: str, params: object = None, *, timeout_s: float | None = 30.0
    ) -> Any:
        """Call, and call again when the connection is lost meanwhile: for methods that may run
        twice. Raises ``Unavailable`` when there is no answer in time."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        while True:
            left = None if deadline is None else deadline - loop.time()
            peer = await self.peer(timeout_s=left)
            try:
                left = None if deadline is None else max(deadline - loop.time(), 0.001)
                return await peer.call(method, params, timeout_s=left)
            except Unavailable:
                if not peer.closed:  # the other side's own word, or the time is up
                    raise

    async def _keep(self) -> None:
        delay_s = RETRY_S_MIN
        complaints = Complaints(_log)
        while not self._closed:
            try:
                peer = await connect(self._path, role=self._role, handlers=self._handlers)
            except Unreachable as error:
                _log.debug("%s", error)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_S_MAX)
                continue
            delay_s = RETRY_S_MIN
            try:
                if self._on_open is not None:
                    await self._on_open(peer)
            except ApplianceError as error:
                complaints.say("other", f"the role behind {self._path} is not ready: {error}")
                peer.close()
                await asyncio.sleep(RETRY_S_MAX)
                continue
            complaints.over("other")
            async with self._changed:
                self._peer = peer
                self._changed.notify_all()
            await peer.wait_closed()
            _log.info("connection to the role behind %s lost; connecting again", self._path)
