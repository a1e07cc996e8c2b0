"""Brings present drives that are not in sync back into the mirror, one at a time.

Owns the thread a state transfer runs on and the pauses between attempts. Invariant: at most one
transfer runs, and a drive that was refused is not tried again before the assembly changes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, TypeAlias

from appliance.core.errors import ApplianceError, Refused
from appliance.core.ports import Clock
from appliance.engine.mirror.resync import Resync
from appliance.engine.mirror.store import Store

RETRY_AFTER_S: Final = 15.0

_log = logging.getLogger(__name__)

CommandBlocking: TypeAlias = Callable[[Callable[[Store], object]], object]
"""Has the committer do something with the store, and waits for it."""


class ResyncDriver:
    """``step`` belongs to the chores' thread; the rest may be called from any."""

    def __init__(self, clock: Clock, command: CommandBlocking) -> None:
        self._clock = clock
        self._command = command
        self._store: Store | None = None
        self._running: threading.Thread | None = None
        self._not_before_s: dict[str, float] = {}

    def use(self, store: Store | None) -> None:
        """This store is open now."""
        self._store = store

    def try_again(self) -> None:
        """The assembly changed: earlier refusals and pauses are void, and a transfer that hangs on
        a drive that was taken away is left behind. The store takes nothing from it any more."""
        self._not_before_s.clear()
        store = self._store
        if store is not None and not store.transferring:
            self._running = None

    def step(self) -> None:
        """Begin a transfer if there is a drive for one."""
        store = self._store
        if store is None or store.stopped or (self._running and self._running.is_alive()):
            return
        now_s = self._clock.monotonic_s()
        for drive in sorted(store.outsiders()):
            if self._not_before_s.get(drive, now_s) <= now_s:
                self._running = threading.Thread(
                    target=self._transfer, args=(drive,), name=f"resync {drive}", daemon=True
                )
                self._running.start()
                return

    def _transfer(self, drive: str) -> None:
        _log.info("bringing drive %s back into the mirror", drive)
        try:
            self._bring(drive)
        except Refused as refusal:
            self._not_before_s[drive] = float("inf")
            _log.error("%s", refusal)
        except ApplianceError as error:
            self._not_before_s[drive] = self._clock.monotonic_s() + RETRY_AFTER_S
            _log.warning("drive %s did not come back and is tried again: %s", drive, error)
        else:
            _log.info("drive %s is in sync", drive)

    def _bring(self, drive: str) -> None:
        resync = self._command(lambda store: store.begin_resync(drive))
        assert isinstance(resync, Resync), "that is what it makes"
        try:
            while True:
                resync.copy()
                if self._command(lambda store: store.finish_resync(resync)):
                    return
        except BaseException:
            self._command(lambda store: store.abandon_resync(resync))
            raise
