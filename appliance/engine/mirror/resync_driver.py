"""Brings present drives that are not in sync into the mirror, one at a time.

Owns the thread a state transfer runs on, its pace, and the pauses between attempts. Invariant: at
most one transfer runs, and a drive that was refused is not tried again before the assembly changes.

An operator's pause holds the transfer under way, and those to come, until it is resumed or the
store starts anew: a mirror is not left with one copy for ever because somebody forgot.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, TypeAlias

from appliance.core.errors import ApplianceError, DriveFault, DriveTimeout, Refused
from appliance.core.ports import Clock
from appliance.engine.mirror.crew import crew_of
from appliance.engine.mirror.resync import Means, Resync
from appliance.engine.mirror.state import StoreSettings
from appliance.engine.mirror.store import Store
from appliance.engine.mirror.throttle import Activity, Throttle

RETRY_AFTER_S: Final = 15.0

_log = logging.getLogger(__name__)

CommandBlocking: TypeAlias = Callable[[Callable[[Store], object]], object]
"""Has the committer do something with the store, and waits for it."""


class ResyncDriver:
    """``step`` belongs to the chores' thread; the rest may be called from any."""

    def __init__(
        self, clock: Clock, command: CommandBlocking, activity: Activity, settings: StoreSettings
    ) -> None:
        self._clock = clock
        self._command = command
        self._activity = activity
        self._settings = settings
        self._store: Store | None = None
        self._running: threading.Thread | None = None
        self._throttle: Throttle | None = None
        self._paused = False
        self._not_before_s: dict[str, float] = {}

    @property
    def paused(self) -> bool:
        """Whether the operator paused it."""
        return self._paused

    def pause(self, *, paused: bool) -> None:
        """Pause or resume, what is under way and what is to come. Idempotent."""
        self._paused = paused
        throttle = self._throttle
        if throttle is not None:
            (throttle.pause if paused else throttle.resume)()

    def use(self, store: Store | None) -> None:
        """This store is open now."""
        if store is not self._store and self._throttle is not None:
            self._throttle.stop("the store was closed")
        self._store = store

    def try_again(self) -> None:
        """The assembly changed: earlier refusals and pauses are void, and a transfer that hangs on
        a drive that was taken away is left behind. The store takes nothing from it any more."""
        self._not_before_s.clear()
        store = self._store
        if store is not None and not store.transferring:
            if self._throttle is not None:
                self._throttle.stop("the drive was taken away")
            self._running = None

    def step(self) -> None:
        """Begin a transfer if there is a drive for one."""
        store = self._store
        if store is None or store.stopped or self._paused:
            return
        if self._running is not None and self._running.is_alive():
            return
        now_s = self._clock.monotonic_s()
        for drive in store.candidates():
            if self._not_before_s.get(drive, now_s) <= now_s:
                self._throttle = Throttle(self._clock, self._activity, self._settings.resync_pace)
                self._running = threading.Thread(
                    target=self._transfer,
                    args=(drive, self._throttle),
                    name=f"resync {drive}",
                    daemon=True,
                )
                self._running.start()
                return

    def _transfer(self, drive: str, throttle: Throttle) -> None:
        _log.info("bringing drive %s into the mirror", drive)
        try:
            self._bring(drive, throttle)
        except Refused as refusal:
            self._not_before_s[drive] = float("inf")
            _log.error("%s", refusal)
        except ApplianceError as error:
            self._not_before_s[drive] = self._clock.monotonic_s() + RETRY_AFTER_S
            _log.warning("drive %s did not come in and is tried again: %s", drive, error)
        else:
            _log.info("drive %s is in sync", drive)

    def _bring(self, drive: str, throttle: Throttle) -> None:
        means = Means(throttle.piece, crew_of(self._settings.resync_threads))
        resync = self._command(lambda store: store.begin_resync(drive, means))
        assert isinstance(resync, Resync), "that is what it makes"
        try:
            while True:
                with throttle.piece(0):
                    pass  # later rounds know no pace, but a pause holds them, and an end ends them
                self._copy(resync)
                if self._command(lambda store: store.finish_resync(resync)):
                    return
        except BaseException:
            self._command(lambda store: store.abandon_resync(resync))
            raise

    def _copy(self, resync: Resync) -> None:
        """One round. A source that fails in it ends the transfer only if no other is left."""
        try:
            resync.copy()
        except DriveFault as fault:
            if fault.drive == resync.drive_id or isinstance(fault, DriveTimeout):
                raise
            _log.warning("a drive that is copied from failed: %s", fault)
            self._command(lambda store: store.continue_resync(resync))
            resync.copy()
