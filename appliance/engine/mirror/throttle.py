"""How fast work in the background may use the drives: state transfer and scrub.

Owns the pace, and the signal that clients are active. Refuses to go on once it was stopped.
Invariant: clients come first. While they are active the work rests longer than it works, by a
share of *time*, which suits slow and fast drives alike and never becomes nothing, so that a second
copy is made in the end however busy the mirror is.

Any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from appliance.core.errors import Unavailable
from appliance.core.ports import Clock

ACTIVE_FOR_S: Final = 1.0
"""How long after a client's last request clients still count as active."""
REST_MAX_S: Final = 1.0
"""The longest rest for one piece: what a hang took is not paid back with an hour of waiting."""
SLICE_S: Final = 0.1
"""How soon a rest notices that it was stopped, and a pause that it is over."""
TURN_S: Final = 0.005
"""How soon a thread asks again whether the other one's piece is done."""
MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Pace:
    """``limit_mib_s``: MiB per second at the most, 0 for no limit. ``busy_percent``: share of its
    time the work may take while clients are active, 1 to 100."""

    limit_mib_s: float = 0.0
    busy_percent: int = 25


class Activity:
    """Whether clients use the mirror now. Cheap; any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_s = float("-inf")

    def note(self) -> None:
        """A client wants something, now."""
        self._last_s = self._clock.monotonic_s()

    @property
    def is_busy(self) -> bool:
        """Whether one did within the last second."""
        return self._clock.monotonic_s() - self._last_s < ACTIVE_FOR_S


class Throttle:
    """One piece of work's pace, whatever number of threads do it. Each piece that is read or
    written is done ``with throttle.piece(size_bytes)``; pieces of about a MiB keep what a client
    may have to wait for short. While clients are active one piece is under way at a time."""

    def __init__(self, clock: Clock, activity: Activity, pace: Pace | None = None) -> None:
        self._clock = clock
        self._activity = activity
        self._pace = pace or Pace()
        self._lock = threading.Lock()
        self._not_before_s = clock.monotonic_s()
        self._under_way = 0
        self._paused = False
        self._stopped = ""

    @property
    def paused(self) -> bool:
        """Whether the work waits for ``resume``."""
        return self._paused

    @property
    def is_busy(self) -> bool:
        """Whether clients are active: small pieces, one at a time."""
        return self._activity.is_busy

    @property
    def is_gentle(self) -> bool:
        """Whether pieces should be small, and one at a time: for clients' sake, or a limit's."""
        return self._activity.is_busy or self._pace.limit_mib_s > 0

    def pause(self) -> None:
        """Rest before the next piece until ``resume``. Idempotent."""
        self._paused = True

    def resume(self) -> None:
        """Idempotent."""
        self._paused = False

    def stop(self, reason: str) -> None:
        """Whoever wants, or waits for, a piece gets ``Unavailable`` with this reason."""
        self._stopped = reason

    @contextmanager
    def piece(self, size_bytes: int) -> Iterator[None]:
        """Wait until ``size_bytes`` more may be moved; they are moved in the body. Raises
        ``Unavailable`` once stopped."""
        while (wait_s := self._enter(size_bytes)) > 0:
            self._clock.sleep_s(wait_s)
        began_s = self._clock.monotonic_s()
        try:
            yield
        finally:
            self._leave(began_s)

    def _enter(self, size_bytes: int) -> float:
        """0: go on. Otherwise how long to wait before asking again."""
        with self._lock:
            if self._stopped:
                raise Unavailable(self._stopped)
            now_s = self._clock.monotonic_s()
            if self._paused:
                return SLICE_S
            if now_s < self._not_before_s:
                return min(self._not_before_s - now_s, SLICE_S)
            if self._under_way and self._activity.is_busy:
                return TURN_S
            self._under_way += 1
            if self._pace.limit_mib_s:
                # What was not used is not saved up: a limit is one at every moment.
                self._not_before_s = now_s + size_bytes / (self._pace.limit_mib_s * MIB)
            return 0.0

    def _leave(self, began_s: float) -> None:
        with self._lock:
            self._under_way -= 1
            if self._activity.is_busy:
                now_s, percent = self._clock.monotonic_s(), self._pace.busy_percent
                rest_s = min((now_s - began_s) * (100 - percent) / percent, REST_MAX_S)
                self._not_before_s = max(self._not_before_s, now_s + rest_s)
