"""Brings present drives that are not in sync into the mirror, one at a time.

Owns the thread a state transfer runs on, its pace, and the pauses between attempts. Invariant: at
most one transfer runs; one that hangs in a drive is left behind within that drive's deadline; and
no drive is written to again before every call of earlier attempts on its mount is back.

An operator's pause holds the transfer under way, and those to come, until it is resumed or the
store starts anew: a mirror is not left with one copy for ever because somebody forgot.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from appliance.core.errors import ApplianceError, DriveFault, DriveTimeout, Refused, Unavailable
from appliance.core.ports import Clock, Volume
from appliance.engine.mirror.crew import crew_of
from appliance.engine.mirror.resync import Means, Resync
from appliance.engine.mirror.state import StoreSettings
from appliance.engine.mirror.store import Store
from appliance.engine.mirror.superblock import read_superblock
from appliance.engine.mirror.throttle import Activity, Throttle
from appliance.engine.mirror.watched import Watch

RETRY_AFTER_S: Final = 15.0
RETRY_AFTER_MAX_S: Final = 900.0
LEFT_BEHIND_MAX: Final = 8
"""Attempts whose threads hang in some drive, before the next one waits for one of them."""

_log = logging.getLogger(__name__)

CommandBlocking: TypeAlias = Callable[[Callable[[Store], object]], object]
"""Has the committer do something with the store, and waits for it."""


@dataclass(eq=False, slots=True)
class _Attempt:
    """One transfer. ``is_left``: what becomes of it matters no more."""

    store: Store
    drive: str
    volume: Volume
    throttle: Throttle
    watch: Watch
    means: Means
    is_left: bool = False
    thread: threading.Thread | None = None


@dataclass(slots=True)
class _Past:
    """What earlier attempts with a drive came to. ``avoided``: drives that did not answer them."""

    not_before_s: float = 0.0
    pause_s: float = RETRY_AFTER_S
    doubting: bool = False
    avoided: set[str] = field(default_factory=set)


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
        self._attempt: _Attempt | None = None
        self.latest: threading.Thread | None = None
        """Of the last transfer that was begun, be it over or left behind."""
        self._left: list[_Attempt] = []
        self._paused = False
        self._past: dict[str, _Past] = {}
        self._is_told = False
        """That too many hang."""

    @property
    def paused(self) -> bool:
        """Whether the operator paused it."""
        return self._paused

    @property
    def running(self) -> threading.Thread | None:
        """The thread of the transfer under way, or of the last one if that ended by itself."""
        attempt = self._attempt
        return None if attempt is None else attempt.thread

    def pause(self, *, paused: bool) -> None:
        """Pause or resume, what is under way and what is to come. Idempotent."""
        self._paused = paused
        attempt = self._attempt
        if attempt is not None:
            (attempt.throttle.pause if paused else attempt.throttle.resume)()

    def use(self, store: Store | None) -> None:
        """This store is open now."""
        if store is not self._store:
            self._leave("the store was closed")
        self._store = store

    def try_again(self, remounted: Iterable[str] = ()) -> None:
        """The assembly changed: earlier refusals and pauses are void, and a transfer of a drive
        that was taken away is left behind. The store takes nothing from it any more. What is still
        out on an earlier mount of the ``remounted`` drives cannot reach this one."""
        self._past.clear()
        store = self._store
        if store is not None and not store.transferring:
            self._leave("the drive was taken away")
        for drive in remounted:
            for attempt in self._left:
                attempt.watch.forget(drive)

    def _leave(self, reason: str) -> None:
        """The transfer under way ends, be it now or when its thread comes back from a drive."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.is_left = True
            attempt.watch.end(reason)
            attempt.throttle.stop(reason)
            self._left.append(attempt)

    def step(self) -> None:
        """Begin a transfer if there is a drive for one; look after the one under way."""
        store, attempt = self._store, self._attempt
        if store is None or store.stopped:
            return
        if attempt is not None and attempt.thread is not None and attempt.thread.is_alive():
            self._look_after(attempt)
        elif not self._paused:
            self._begin(store)

    def _begin(self, store: Store) -> None:
        now_s = self._clock.monotonic_s()
        for attempt in self._left.copy():  # in place: other threads add to it
            if not attempt.watch.is_out():
                self._left.remove(attempt)
        if len(self._left) >= LEFT_BEHIND_MAX:
            self._tell_stuck()
            return
        busy = {attempt.drive for attempt in self._left if attempt.watch.is_out(attempt.drive)}
        for drive in store.candidates():
            past = self._past.get(drive, _Past())
            volume = store.outsiders().get(drive)
            if volume is None or drive in busy or now_s < past.not_before_s:
                continue
            self._attempt = attempt = self._make(store, drive, volume, past)
            attempt.thread = threading.Thread(
                target=self._transfer, args=(attempt,), name=f"resync {drive}", daemon=True
            )
            self.latest = attempt.thread
            attempt.thread.start()
            self._is_told = False
            return

    def _make(self, store: Store, drive: str, volume: Volume, past: _Past) -> _Attempt:
        settings = self._settings
        throttle = Throttle(self._clock, self._activity, settings.resync_pace)
        watch = Watch(settings.deadline_s)
        means = Means(
            throttle.piece,
            crew_of(settings.resync_threads),
            watch,
            frozenset(past.avoided),
            past.doubting,
            lambda: throttle.paused,
        )
        return _Attempt(store, drive, volume, throttle, watch, means)

    def _tell_stuck(self) -> None:
        late = self._left[-1].watch.oldest()
        if late is not None and not self._is_told:
            self._is_told = True
            text = (
                f"bringing drive {self._left[-1].drive} in waits: {LEFT_BEHIND_MAX} attempts hang "
                f"({late}); replace drive {late.drive}, or pull it and put it in again"
            )
            self._command(lambda store: store.joining.tell(text))

    def _look_after(self, attempt: _Attempt) -> None:
        late = attempt.watch.overdue(self._clock.monotonic_s())
        if late is not None and attempt is self._attempt:
            self._leave(str(late))
            self._put_off(attempt, late)

    # -- the transfer's thread -----------------------------------------------------------------

    def _transfer(self, attempt: _Attempt) -> None:
        drive = attempt.drive
        _log.info("bringing drive %s into the mirror", drive)
        try:
            self._bring(attempt)
        except ApplianceError as error:
            if not attempt.is_left:
                attempt.watch.end(str(error))
                self._left.append(attempt)  # while commits waited, other threads worked for it
                self._put_off(attempt, error)
        else:
            self._past.pop(drive, None)
            _log.info("drive %s is in sync", drive)

    def _bring(self, attempt: _Attempt) -> None:
        # The committer is to meet no drive that does not answer.
        read_superblock(attempt.watch.volume(attempt.volume))
        resync = self._command(lambda store: store.begin_resync(attempt.drive, attempt.means))
        assert isinstance(resync, Resync), "that is what it makes"
        try:
            while True:
                with attempt.throttle.piece(0):
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

    # -- what did not end well -----------------------------------------------------------------

    def _put_off(self, attempt: _Attempt, error: ApplianceError) -> None:
        """Tried again later, and ever later: what went wrong may go away by itself, and nobody has
        to say that it did."""
        drive = attempt.drive
        past = self._past.setdefault(drive, _Past())
        past.not_before_s = self._clock.monotonic_s() + past.pause_s
        past.pause_s = min(past.pause_s * 2, RETRY_AFTER_MAX_S)
        _log.warning("drive %s did not come in and is tried again: %s", drive, error)
        with contextlib.suppress(Unavailable):  # the store is not open: then nobody has to be told
            if isinstance(error, Refused):
                # If its copy turned out to be another one, what was believed of it is not so.
                past.doubting = True
                self._command(lambda store: store.joining.refused(drive, str(error)))
            elif isinstance(error, DriveTimeout):
                past.avoided.add(error.drive)
                volume, watch = attempt.volume, attempt.watch
                self._command(lambda store: store.joining.leave_behind(drive, volume, watch, error))
