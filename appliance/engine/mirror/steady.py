"""How long the wall clock has gone on as the monotonic one does.

Owns that one judgement. What was stamped with the wall clock can be told to be old only by a clock
that nobody has set since; a start counts as a jump, for nobody knows what happened before it.

One thread.
"""

from __future__ import annotations

from typing import Final

from appliance.core.ports import Clock

TOLERANCE_S: Final = 5.0
"""More than slewing makes between two looks; less than anything that matters here."""


class SteadyTime:
    """Watches the two clocks; look at it often."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead_s = self._wall_ahead_s()
        self._since_s = clock.monotonic_s()
        self._untold_s = 0.0

    def steady_for_s(self) -> float:
        """Since when, in monotonic seconds, the wall clock has not been set."""
        self._look()
        return self._clock.monotonic_s() - self._since_s

    def set_by_s(self) -> float:
        """By how much the wall clock was set, forwards or back, since this was asked last."""
        self._look()
        set_by_s, self._untold_s = self._untold_s, 0.0
        return set_by_s

    def _look(self) -> None:
        ahead_s = self._wall_ahead_s()
        if abs(ahead_s - self._ahead_s) > TOLERANCE_S:
            self._since_s = self._clock.monotonic_s()
            self._untold_s += ahead_s - self._ahead_s
        self._ahead_s = ahead_s

    def _wall_ahead_s(self) -> float:
        return self._clock.now_ns() / 1e9 - self._clock.monotonic_s()
