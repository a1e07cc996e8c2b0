"""What a store does beside its commits: checkpoints, bringing drives in, scrubs, and what
operators say of that.

Owns the chores' thread, the signal that clients are active, and the drivers of long work.
Invariant: whatever of it touches the store does so as a command between two batches.

``step`` and ``command`` belong to threads of their own; the rest to the event loop.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, Final

from appliance.core.errors import ApplianceError, InvalidInput, Refused, Unavailable
from appliance.core.ports import Clock, Entropy
from appliance.engine.mirror.committer_thread import Command
from appliance.engine.mirror.resync_driver import ResyncDriver
from appliance.engine.mirror.scrub_driver import ScrubDriver, ScrubPorts
from appliance.engine.mirror.state import StoreSettings
from appliance.engine.mirror.store import Store
from appliance.engine.mirror.throttle import Activity
from appliance.runtime.ipc import Handler, Peer
from appliance.runtime.lanes import ThreadLanes

CHORES_EVERY_S: Final = 0.5

_log = logging.getLogger(__name__)


class Chores:
    """Made, started and ended by the service."""

    def __init__(
        self,
        clock: Clock,
        entropy: Entropy,
        settings: StoreSettings,
        put: Callable[[Command], None],
        alert: Callable[[str], None],
    ) -> None:
        """``put`` hands a command to the committer; ``alert`` tells the operator."""
        self._put = put
        self._store: Store | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chores", daemon=True)
        self.activity: Final = Activity(clock)
        self.resync: Final = ResyncDriver(clock, self.command, self.activity, settings)
        ports = ScrubPorts(
            clock,
            entropy,
            self.activity,
            self.command,
            lambda: closing(ThreadLanes(clock)),
            alert,
            _spawn,
        )
        self.scrub: Final = ScrubDriver(
            ports, every_s=settings.scrub_every_s, pace=settings.scrub_pace
        )

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Nothing new is begun. Idempotent."""
        self._ended.set()
        self.resync.use(None)
        self.scrub.use(None)

    def join(self, timeout_s: float) -> None:
        """Wait for the thread. Blocking."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def use(self, store: Store | None) -> None:
        """This store is open now. Any thread."""
        self._store = store
        self.resync.use(store)
        self.scrub.use(store)

    def handlers(self) -> Mapping[str, Handler]:
        """What gateways and control say."""
        return {
            "active": self._on_active,
            "resync": self._on_resync,
            "scrub": self._on_scrub,
        }

    async def _on_active(self, _peer: Peer, _message: Any) -> None:
        """A gateway serves reads, of which the store would not know."""
        self.activity.note()

    async def _on_resync(self, peer: Peer, message: Any) -> None:
        must_be_ours(peer)
        self.order_resync(message)

    async def _on_scrub(self, peer: Peer, message: Any) -> object:
        must_be_ours(peer)
        return await self.scrub.on_order(peer, message)

    def order(self, what: str, message: object) -> None:
        """What an operator wants of one of the chores. Raises ``InvalidInput``."""
        if what != "resync":
            raise InvalidInput(f"cannot take an order for {what!r}")
        self.order_resync(message)

    def order_resync(self, message: object) -> None:
        """``pause`` or ``resume``. Raises ``InvalidInput``."""
        if message not in {"pause", "resume"}:
            raise InvalidInput(f"cannot {message!r} a resync: it can be paused and resumed")
        self.resync.pause(paused=message == "pause")

    def command(self, work: Callable[[Store], object]) -> object:
        """Have the committer do ``work`` and wait for it. From the thread of a chore. Raises what
        it raises, ``Unavailable`` when the store is not open."""
        done = threading.Event()
        result: list[object] = [None, None]

        def answer(value: object, error: Exception | None) -> None:
            result[:] = [value, error]
            done.set()

        self._put(Command(work, answer))
        while not done.wait(CHORES_EVERY_S):
            if self._ended.is_set():
                raise Unavailable("the store is ending")
        if isinstance(result[1], Exception):
            raise result[1]
        return result[0]

    def _run(self) -> None:
        """Work beside the committer that may take long."""
        while not self._ended.wait(CHORES_EVERY_S):
            store = self._store
            if store is None:
                continue
            try:
                store.checkpoint_if_due()
                self.resync.step()
                self.scrub.step()
            except ApplianceError as error:
                _log.warning("a chore failed and is tried again: %s", error)


def must_be_ours(peer: Peer) -> None:
    """Gateways share the socket: only root and this process's own user may decide here. Raises
    ``Refused``."""
    if peer.credentials.user_id not in {0, os.geteuid()}:
        raise Refused("cannot take orders about the mirror from this user")


def _spawn(call: Callable[[], None]) -> None:
    threading.Thread(target=call, name="scrub ahead", daemon=True).start()
