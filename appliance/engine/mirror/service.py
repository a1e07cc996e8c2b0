"""The store as other roles meet it: asynchronous, over IPC or in the same process.

Owns the committer thread, the chores beside it, and what is known of the assembly. Refuses with
``Unavailable`` while the mirror is not open; clients try again.
Invariant: a commit handed over is answered by the committer or fails as ``Unavailable``, whatever
becomes of its caller.

All methods belong to one event loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from appliance.core.alerts import Alert
from appliance.core.errors import ApplianceError, DriveFault, InvalidInput, Refused, Unavailable
from appliance.core.ports import Clock, Entropy
from appliance.core.scrubs import ScrubOrder, ScrubReport
from appliance.engine.interface import Health
from appliance.engine.mirror.assembled import NobodyAnswers, NotYet, Orders
from appliance.engine.mirror.assembly import AssemblyMessage, open_drive
from appliance.engine.mirror.chores import Chores, must_be_ours
from appliance.engine.mirror.committer_thread import Command, Commit, CommitterThread
from appliance.engine.mirror.glance import closed_health
from appliance.engine.mirror.messages import (
    CommitOrder,
    MembersView,
    Staged,
    decode_commit,
    encode_health,
)
from appliance.engine.mirror.opener import StoreOpener, discard, retire
from appliance.engine.mirror.state import Callbacks, StoreSettings
from appliance.engine.mirror.store import Store
from appliance.engine.mirror.suspects import Suspects
from appliance.runtime.ipc import Handler, Peer

END_TIMEOUT_S: Final = 20.0
ALERTS_KEPT: Final = 100
BUG_EXIT_CODE: Final = 70

_log = logging.getLogger(__name__)


def end_process(bug: BaseException) -> None:
    """A broken invariant ends the process: the service manager starts it again, and recovery finds
    out what is durable."""
    _log.critical("the store has a bug and ends", exc_info=bug)
    os._exit(BUG_EXIT_CODE)


class StoreService:
    """One mirror's store."""

    def __init__(
        self,
        *,
        clock: Clock,
        entropy: Entropy,
        settings: StoreSettings | None = None,
        on_bug: Callable[[BaseException], None] = end_process,
    ) -> None:
        self._clock = clock
        self._settings = settings or StoreSettings()
        self._loop = asyncio.get_running_loop()
        self._assembly: AssemblyMessage | None = None
        self._waiting_since_s = clock.monotonic_s()
        self._orders = Orders()
        self._peers: set[Peer] = set()
        self._watchers: list[Callable[[MembersView], None]] = []
        self._store: Store | None = None
        self._view: MembersView | None = None
        self._closing = False
        self._alerts: Final[deque[Alert]] = deque(maxlen=ALERTS_KEPT)
        self._told_unopened: set[str] = set()
        """Alerts since the last open store: every attempt to open meets the same troubles."""
        self.serving: Final = asyncio.Event()
        """Set while there is an open store."""
        self._thread = CommitterThread(
            "store",
            clock,
            open_store=self._open_store,
            deliver=self._deliver,
            changed=self._store_changed,
            mark_after_s=self._settings.mark_after_s,
            on_bug=on_bug,
        )
        self._suspects = Suspects(self._thread.put)
        callbacks = Callbacks(self._alert, self._tell_members, retire, discard)
        self._opener = StoreOpener(clock, entropy, self._settings, callbacks)
        self._chores = Chores(clock, entropy, self._settings, self._thread.put, self._alert)

    def start(self, assembly: object) -> None:
        """Begin with what control says is there: the ``assembly`` message. Does not wait. Raises
        ``InvalidInput``."""
        self._assembly = AssemblyMessage.decode(assembly)
        self._opener.note(self._assembly)
        self._thread.start()
        self._chores.start()

    async def close(self) -> None:
        """Answer what was handed over and end. Idempotent."""
        if self._closing:
            return
        self._closing = True
        self._chores.stop()
        if self._thread.is_started():
            await asyncio.to_thread(self._chores.join, END_TIMEOUT_S)
            await asyncio.to_thread(self._thread.end, END_TIMEOUT_S)
        self._opener.close()

    # -- what others call ----------------------------------------------------------------------

    def handlers(self) -> Mapping[str, Handler]:
        """For ``ipc.serve``, together with ``peer_opened`` and ``peer_closed``."""
        return {
            "commit": self._on_commit,
            "make_room": self._on_make_room,
            "members": self._on_members,
            "suspect": self._on_suspect,
            "health": self._on_health,
            "counters": self._on_counters,
            "assembly_changed": self._on_assembly_changed,
            "override": self._on_override,
            **self._chores.handlers(),
        }

    def peer_opened(self, peer: Peer) -> None:
        """For ``ipc.serve``'s ``on_open``."""
        self._peers.add(peer)

    def peer_closed(self, peer: Peer) -> None:
        """For ``ipc.serve``'s ``on_close``: a gateway that is gone leaves its staging behind."""
        self._peers.discard(peer)
        self._loop.call_later(1.0, self._sweep_soon)

    def watch(self, callback: Callable[[MembersView], None]) -> None:
        """Call back with the members whenever they change: for a client in this process."""
        self._watchers.append(callback)

    def commit(self, message: object) -> asyncio.Future[int]:
        """The version, or an ``EngineError``. Raises ``InvalidInput``, ``Unavailable``."""
        self._chores.activity.note()
        order = decode_commit(message)
        answer: asyncio.Future[int] = self._loop.create_future()
        if any(isinstance(one.blob, Staged) for one in order.orders):
            task = self._loop.create_task(self._complete(order, answer), name="complete staged")
            task.add_done_callback(lambda done: done.exception())
        else:
            self._thread.put(Commit(order, answer))
        return answer

    def make_room(self, size_bytes: object) -> asyncio.Future[float]:
        """See ``Store.make_room``. Raises ``InvalidInput``."""
        if not isinstance(size_bytes, int) or not 0 <= size_bytes < 2**63:
            raise InvalidInput(f"cannot make room for {size_bytes!r} bytes")
        size = size_bytes
        answer: asyncio.Future[float] = self._loop.create_future()

        def told(wait_s: object, error: Exception | None) -> None:
            self._deliver([(answer, error if error is not None else wait_s)])

        self._thread.put(Command(lambda store: store.make_room(size), told))
        return answer

    def view(self) -> MembersView:
        """The members now. Raises ``Unavailable``."""
        if self._view is None:
            raise Unavailable(self._thread.reason or "the store is starting")
        return self._view

    async def health(self) -> Health:
        """At a glance; also while no store is open."""
        store = self._store
        if store is None:
            drives = self._assembly.drives if self._assembly is not None else {}
            health = closed_health(drives, self._thread.reason, self._thread.failure)
        else:
            health = store.health()
        paused = store is not None and self._chores.resync.paused
        return dataclasses.replace(health, resync_paused=paused, alerts=tuple(self._alerts))

    def active(self) -> None:
        """A client in this process serves reads, of which the store would not know."""
        self._chores.activity.note()

    def order(self, what: str, message: object) -> None:
        """An operator's word for work beside the commits. Raises ``InvalidInput``."""
        self._chores.order(what, message)

    def counters(self) -> dict[str, int]:
        """For metrics."""
        return {} if self._store is None else self._store.counts()

    def scrub(self, order: ScrubOrder) -> ScrubReport:
        """See ``ScrubDriver.order``. Blocking, any thread."""
        return self._chores.scrub.order(order)

    def suspect(self, drive: str, place: bytes) -> None:
        """A reader found a bad copy, or a bad index."""
        if self._store is not None:
            self._suspects.report(self._store, drive, place)

    def assembly_changed(self, message: object) -> None:
        """A drive came or went. Raises ``InvalidInput``."""
        before, self._assembly = self._assembly, AssemblyMessage.decode(message)
        after = self._assembly
        self._opener.note(after)
        self._waiting_since_s = self._clock.monotonic_s()
        old = {} if before is None else before.drives
        # Only a fresh mount brings a drive back: one that failed on this mount stays away.
        gone = [drive for drive, one in old.items() if after.drives.get(drive) != one]
        fresh = [one for drive, one in after.drives.items() if old.get(drive) != one]

        def change(store: Store) -> None:
            for drive in gone:
                store.lose(drive, "it was taken away")
            for one in fresh:
                if one.drive not in store.members and one.drive not in store.outsiders():
                    self._opener.renew(one.drive)
                    store.bring(one.drive, partial(open_drive, one))
            store.replacing(after.replaces)
            self._chores.resync.try_again(one.drive for one in fresh)

        self._thread.put(Command(change, _log_failure))
        self._thread.try_open()
        self._chores.resync.try_again()

    def override(
        self,
        *,
        forced: bool = False,
        chosen: str | None = None,
        losses: bool = False,
        resume: bool = False,
    ) -> None:
        """The operator's word for the next attempt to open; see ``Orders``."""
        self._orders = Orders(
            waited=True, forced=forced, chosen=chosen, accept_losses=losses, resume=resume
        )
        self._thread.put(Command(_stop_reading, _log_failure))
        self._thread.try_open()

    # -- handlers ------------------------------------------------------------------------------

    def _on_commit(self, _peer: Peer, message: Any) -> asyncio.Future[int]:
        return self.commit(message)

    def _on_make_room(self, _peer: Peer, message: Any) -> asyncio.Future[float]:
        return self.make_room(message)

    async def _on_members(self, _peer: Peer, _message: Any) -> object:
        return self.view().encode()

    async def _on_suspect(self, _peer: Peer, message: Any) -> None:
        drive, place, _reason = message
        self.suspect(drive, place)

    async def _on_health(self, _peer: Peer, _message: Any) -> object:
        return encode_health(await self.health())

    async def _on_counters(self, _peer: Peer, _message: Any) -> object:
        return self.counters()

    async def _on_assembly_changed(self, peer: Peer, message: Any) -> None:
        must_be_ours(peer)
        self.assembly_changed(message)

    async def _on_override(self, peer: Peer, message: Any) -> None:
        must_be_ours(peer)
        self.override(
            forced=bool(message.get("forced")),
            chosen=message.get("chosen"),
            losses=bool(message.get("accept_losses")),
            resume=bool(message.get("resume")),
        )

    async def _complete(self, order: CommitOrder, answer: asyncio.Future[int]) -> None:
        """Bring staged blobs to drives that lack them before the committer has to."""
        try:
            store = self._store
            if store is not None:
                orders = list(order.orders)
                for number, one in enumerate(orders):
                    if isinstance(one.blob, Staged) and store.lacks(one.blob):
                        blob = await asyncio.to_thread(store.complete_staged, one.blob)
                        orders[number] = one._replace(blob=blob)
                order = order._replace(orders=orders)
            self._thread.put(Commit(order, answer))
        except DriveFault:
            # The committer meets the same fault and may do what it takes: let the drive leave.
            self._thread.put(Commit(order, answer))
        except ApplianceError as error:
            if not answer.done():
                answer.set_exception(error)

    # -- on the committer's thread -------------------------------------------------------------

    def _open_store(self) -> Store:
        message, orders = self._assembly, self._orders
        assert message is not None, "started with one"
        waited_s = self._clock.monotonic_s() - self._waiting_since_s
        if waited_s >= self._settings.missing_members_wait_s and not orders.waited:
            orders = Orders(waited=True)
        try:
            store = self._opener.open(message, orders)
        except NobodyAnswers:
            # When one does, the others have as long to come as after any other start.
            self._waiting_since_s = self._clock.monotonic_s()
            raise
        except NotYet:
            raise
        except ApplianceError:
            self._orders = Orders()
            raise
        self._orders = Orders()
        return store

    def _deliver(self, outcomes: list[tuple[object, object]]) -> None:
        self._post(self._settle, outcomes)

    def _settle(self, outcomes: list[tuple[asyncio.Future[int], int | Exception]]) -> None:
        """On the loop: one wake-up for a whole batch."""
        for answer, outcome in outcomes:
            if answer.done():
                continue  # its caller went away; the commit stands
            if isinstance(outcome, Exception):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)

    def _store_changed(self, store: Store | None) -> None:
        self._store = store
        self._chores.use(store)
        if store is None:
            self._waiting_since_s = self._clock.monotonic_s()
            self._post(self._show, None)
        else:
            self._told_unopened.clear()
            self._tell_members()

    def _tell_members(self) -> None:
        """The members changed: tell everybody who reads."""
        store, message = self._store, self._assembly
        if store is None or message is None:
            return
        paths = {one.drive: one.path for one in message.drives.values()}
        self._post(self._show, store.view().with_paths(paths))

    def _alert(self, text: str) -> None:
        if self._store is None:
            if text in self._told_unopened:
                return
            self._told_unopened.add(text)
        _log.error("%s", text)
        self._post(self._alerts.append, Alert(self._clock.now_ns(), text))

    def _post(self, callback: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            _log.debug("the event loop is gone")  # the process is ending: nobody waits any more

    # -- on the loop ---------------------------------------------------------------------------

    def _show(self, view: MembersView | None) -> None:
        self._view = view
        if view is None:
            self.serving.clear()
            return
        self.serving.set()
        message = view.encode()
        for peer in self._peers:
            peer.notify("members_changed", message)
        for watcher in self._watchers:
            watcher(view)

    def _sweep_soon(self) -> None:
        if not self._closing:
            self._thread.put(Command(lambda store: store.sweep_staging(), _log_failure))


def _stop_reading(store: Store) -> None:
    if store.read_only:
        store.stop_reading("the operator decided")


def _log_failure(_result: object, error: Exception | None) -> None:
    if error is not None and not isinstance(error, Unavailable | Refused):
        _log.warning("the store refused an order: %s", error)
