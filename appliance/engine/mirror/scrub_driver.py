"""Begins scrubs, at their time or when told, and sees them through pauses, restarts and resyncs.

Owns the thread a scrub runs on, its throttle, and what is remembered of it. Refuses to have two at
once, and to scrub while a drive is being brought in. Invariant: a scrub that was begun ends by
finishing or by the operator's word; whatever interrupts it, it goes on at its cursor. One that
rests holds nothing: its run ends, with the files, the index and the log segments it kept from
being freed, and another one begins where it was. What the log lost meanwhile is no longer there
to be scrubbed; what is left of it is read once more for the proof of the index, from one drive.

``step`` belongs to the chores' thread; the rest may be called from any.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from appliance.core.documents import to_document
from appliance.core.errors import ApplianceError, DriveFault, InvalidInput, Refused, Unavailable
from appliance.core.ports import Clock, Entropy, Lanes
from appliance.core.scrubs import ScrubOrder, ScrubReport, ScrubRun, ScrubState
from appliance.engine.mirror import scrub_book
from appliance.engine.mirror.room import Spawn, at_once
from appliance.engine.mirror.scrub_book import Page
from appliance.engine.mirror.scrub_kit import Committing, ScrubMeans
from appliance.engine.mirror.scrub_tally import Tally
from appliance.engine.mirror.store import Store
from appliance.engine.mirror.throttle import Activity, Pace, Throttle

RETRY_AFTER_S: Final = 15.0
RETRY_MAX_S: Final = 3600.0
"""Of one that is interrupted again and again at the same place, each time twice as long."""
SAVE_EVERY_S: Final = 10.0
SAVE_WAIT_EVERY_S: Final = 600.0
WORK_MAX_S: Final = 5.0
"""The longest time between two pieces that counts as work: what is longer was a pause."""

_log = logging.getLogger(__name__)

CommandBlocking: TypeAlias = Callable[[Callable[[Store], object]], object]
"""Has the committer do something with the store, and waits for it."""


@dataclass(frozen=True, slots=True)
class ScrubPorts:
    """What a driver is given. ``lanes`` makes lanes for one run; ``alert`` tells the operator of
    what needs one; ``spawn`` runs a call beside."""

    clock: Clock
    entropy: Entropy
    activity: Activity
    command: CommandBlocking
    lanes: Callable[[], AbstractContextManager[Lanes]]
    alert: Callable[[str], None]
    spawn: Spawn = at_once


class _Run:
    """One attempt at the scrub under way, on a thread of its own."""

    def __init__(self, store: Store, throttle: Throttle, tally: Tally) -> None:
        self.store = store
        self.throttle = throttle
        self.tally = tally
        self.began_at: Final = tally.cursor
        self.thread: threading.Thread | None = None
        self.progressed_s: float | None = None
        self.saved_s = float("-inf")
        self.rests = False

    def rest(self) -> None:
        """It ends before its next piece, and is no trouble for that. Idempotent."""
        self.rests = True
        self.throttle.stop("the scrub rests")

    @property
    def is_alive(self) -> bool:
        """Whether it works still."""
        return self.thread is not None and self.thread.is_alive()


class ScrubDriver:
    """``every_s``: the schedule, 0 for none."""

    def __init__(self, ports: ScrubPorts, *, every_s: float, pace: Pace) -> None:
        self._ports = ports
        self._every_s = every_s
        self._pace = pace
        self._lock = threading.RLock()
        self._store: Store | None = None
        self._page: Page | None = None
        self._tally: Tally | None = None
        self._run: _Run | None = None
        self._cancelled = False
        self._unsaved = False
        self._waiting = ""
        self._trouble = ""
        self._not_before_s = float("-inf")
        self._in_vain = 0
        """Attempts in a row that got no further."""
        self._stepped_s: float | None = None
        self._saved_s = float("-inf")

    # -- what others say -----------------------------------------------------------------------

    def use(self, store: Store | None) -> None:
        """This store is open now; None: it was closed, and so is what a scrub has open."""
        with self._lock:
            self._store, self._stepped_s = store, None
            if self._run is not None:
                self._run.throttle.stop("the store was closed")
            if store is not None and store.read_only:
                self._store = None

    def order(self, order: ScrubOrder) -> ScrubReport:
        """The operator's word, remembered on return, and how things stand then. Raises ``Refused``,
        ``Unavailable``."""
        with self._lock:
            if self._store is not None and self._page is None:
                self._load(self._store)  # the store was opened a moment ago
            if order is not ScrubOrder.LOOK:
                self._obey(order)
                if self._store is not None and self._unsaved:
                    self._save(self._store)
            return self._report()

    async def on_order(self, _peer: object, message: Any) -> object:
        """The store's ``scrub`` method: an order's value to a ``ScrubReport`` as a document. Off
        the loop, for whoever saves the page holds the lock while a disk writes."""
        try:
            order = ScrubOrder(message)
        except ValueError as error:
            raise InvalidInput(f"cannot obey {message!r}: it is no order for a scrub") from error
        return to_document(await asyncio.to_thread(self.order, order))

    def _obey(self, order: ScrubOrder) -> None:
        page = self._page
        if self._store is None or page is None:
            raise Unavailable("cannot do anything about a scrub: the store is not open")
        if order is ScrubOrder.START and page.current is None:
            self._begin()
            return
        if page.current is None:
            raise Refused("there is no scrub under way; `appliance mirror scrub` begins one")
        if order is ScrubOrder.CANCEL:
            self._cancelled = True
            if self._run is not None:
                self._run.throttle.stop("the scrub was cancelled")
            return
        # To begin one that is paused is to let it go on.
        self._page = dataclasses.replace(page, paused=order is ScrubOrder.PAUSE)
        self._unsaved = True
        self._not_before_s, self._in_vain = float("-inf"), 0
        self._steer()

    def _begin(self) -> None:
        assert self._page is not None
        self._tally = Tally(began_ns=self._ports.clock.now_ns())
        current = self._tally.report(ScrubState.RUNNING)
        self._page = dataclasses.replace(self._page, current=current, paused=False, waited_s=0.0)
        self._cancelled = False
        self._unsaved = True
        self._not_before_s, self._in_vain = float("-inf"), 0

    def _report(self) -> ScrubReport:
        page = self._page
        if page is None:
            return ScrubReport()
        current: ScrubRun | None = None
        if page.current is not None and self._tally is not None:
            state = ScrubState.RUNNING
            if page.paused:
                state = ScrubState.PAUSED
            elif self._waiting or self._run is None or not self._run.is_alive:
                state = ScrubState.WAITING
            reason = self._waiting or self._trouble if state is ScrubState.WAITING else ""
            current = self._tally.report(state, reason=reason)
        next_in_s = None
        if self._every_s and page.current is None:
            next_in_s = max(self._every_s * page.share - page.waited_s, 0.0)
        return ScrubReport("", current, page.last, next_in_s)

    # -- the chores' thread --------------------------------------------------------------------

    def step(self) -> None:
        """Do what is due: begin, go on, pause, end, remember."""
        with self._lock:
            store = self._store
            if store is None or store.stopped:
                return
            if self._page is None:
                self._load(store)
            now_s = self._ports.clock.monotonic_s()
            self._wait(now_s)
            self._end_if_cancelled()
            self._steer()
            self._go_on(store, now_s)
            if self._unsaved or now_s - self._saved_s >= SAVE_WAIT_EVERY_S:
                self._save(store)

    def _load(self, store: Store) -> None:
        self._page = scrub_book.load(store.index_directory, self._ports.entropy)
        if self._page.current is not None:
            self._tally = Tally.resumed(self._page.current, self._page.cursor)

    def _wait(self, now_s: float) -> None:
        """Count the time of service, and begin when enough of it has passed."""
        page = self._page
        assert page is not None
        passed_s = 0.0 if self._stepped_s is None else now_s - self._stepped_s
        self._stepped_s = now_s
        if page.current is not None:
            return
        self._page = dataclasses.replace(page, waited_s=page.waited_s + passed_s)
        if self._every_s and self._page.waited_s >= self._every_s * page.share:
            _log.info("a scrub is due")
            self._begin()

    def _end_if_cancelled(self) -> None:
        if self._cancelled and (self._run is None or not self._run.is_alive):
            self._end(ScrubState.CANCELLED)

    def _steer(self) -> None:
        """Let the run rest, or go on, as the operator and a state transfer have it."""
        store, page = self._store, self._page
        if store is None or page is None:
            return
        transferring = store.transferring
        self._waiting = "a drive is being brought into the mirror" if transferring else ""
        if self._run is not None and (page.paused or transferring):
            self._run.rest()

    def _go_on(self, store: Store, now_s: float) -> None:
        page, tally = self._page, self._tally
        if page is None or page.current is None or tally is None:
            return
        if page.paused or self._waiting or now_s < self._not_before_s:
            return
        if self._run is not None and self._run.is_alive and self._run.store is store:
            return
        # A run on an earlier store may hang in a drive that failed: it is left behind.
        self._tally, self._trouble = copy.deepcopy(tally), ""
        throttle = Throttle(self._ports.clock, self._ports.activity, self._pace)
        self._run = run = _Run(store, throttle, self._tally)
        run.thread = threading.Thread(target=self._work, args=(run,), name="scrub", daemon=True)
        run.thread.start()

    # -- the scrub's thread --------------------------------------------------------------------

    def _work(self, run: _Run) -> None:
        ports = self._ports
        commit = Committing(lambda work: ports.command(lambda _store: work()))
        try:
            with ports.lanes() as lanes:
                means = ScrubMeans(
                    commit,
                    lanes,
                    run.throttle,
                    run.tally,
                    lambda: self._progressed(run),
                    ports.spawn,
                )
                scrub = run.store.scrub(means)
                finished = scrub.run()
        except ApplianceError as error:
            with self._lock:
                if run.rests:
                    return
                if run.tally.cursor != run.began_at:
                    self._in_vain = 0
                retry_s = min(RETRY_AFTER_S * 2**self._in_vain, RETRY_MAX_S)
                self._not_before_s = ports.clock.monotonic_s() + retry_s
                self._in_vain += retry_s < RETRY_MAX_S
                if self._store is run.store and not self._cancelled:
                    self._trouble = str(error)
                    _log.warning("the scrub was interrupted and goes on later: %s", error)
            return
        with self._lock:
            if finished and self._run is run:
                self._end(ScrubState.FINISHED)
                self._save(run.store)
        if scrub.wrong_index is not None:
            try:
                scrub.reopen_store()
            except Unavailable as stopped:
                _log.error("%s", stopped)

    def _progressed(self, run: _Run) -> None:
        """A piece is done."""
        now_s = self._ports.clock.monotonic_s()
        if run.progressed_s is not None:
            run.tally.worked_s += min(now_s - run.progressed_s, WORK_MAX_S)
        run.progressed_s = now_s
        if self._cancelled or run.rests or self._store is not run.store:
            raise Unavailable("the scrub rests, was cancelled, or the store closed")
        if now_s - run.saved_s >= SAVE_EVERY_S:
            run.saved_s = now_s
            with self._lock:
                self._save(run.store)

    # -- both ------------------------------------------------------------------------------------

    def _end(self, state: ScrubState) -> None:
        """Under the lock."""
        assert self._page is not None and self._tally is not None
        ports = self._ports
        self._page = scrub_book.ended(
            self._page, self._tally, state, ports.clock.now_ns(), ports.entropy
        )
        self._tally, self._cancelled, self._unsaved = None, False, True
        run = self._page.last
        assert run is not None
        if state is ScrubState.FINISHED:
            _log.info("the scrub is finished: %d bad, %d repaired", run.found, run.repaired)
        if run.unrepairable:
            ports.alert(
                f"the scrub found {run.unrepairable} bad copies that no good one was found for; "
                "see `appliance mirror status`"
            )

    def _save(self, store: Store) -> None:
        """Under the lock. What cannot be saved costs time only."""
        page, tally = self._page, self._tally
        assert page is not None
        if page.current is not None and tally is not None:
            state = ScrubState.PAUSED if page.paused else ScrubState.RUNNING
            page = dataclasses.replace(page, current=tally.report(state), cursor=tally.cursor)
        self._saved_s, self._unsaved = self._ports.clock.monotonic_s(), False
        try:
            scrub_book.save(store.index_directory, page)
        except DriveFault as fault:
            self._unsaved = True
            _log.warning("how far the scrub is cannot be saved: %s", fault)
