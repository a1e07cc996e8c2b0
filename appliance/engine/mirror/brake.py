"""Holds commits back to a rate, so that a drive that is brought in can catch up with them.

Owns how long the next commit has to wait. Refuses nothing. Invariant: from ``hold`` on until
``release`` no more is committed than its rate allows, but for what one batch exceeds it by, and
that is waited for afterwards. While the transfer is paused nobody waits.

Set by the thread of a state transfer, asked by the committer's.
"""

from __future__ import annotations

from collections.abc import Callable

from appliance.core.ports import Clock


def _never() -> bool:
    return False


class Brake:
    """``written``: how many bytes were committed so far; what lies in blob files counts too."""

    def __init__(self, clock: Clock, written: Callable[[], int]) -> None:
        self._clock = clock
        self._written = written
        self._held: tuple[float, float, float, Callable[[], bool]] | None = None
        """Rate, since when, what was written then, and whether it is void for now."""

    def hold(self, bytes_per_s: float, is_void: Callable[[], bool] = _never) -> None:
        """From now on. What was written too much at an earlier rate is still to be waited for."""
        debt = self._debt_s() * bytes_per_s
        self._held = (bytes_per_s, self._clock.monotonic_s(), self._written() - debt, is_void)

    def release(self) -> None:
        """Nobody waits any more. Idempotent."""
        self._held = None

    @property
    def wait_s(self) -> float:
        """How long until the next commit may be made; 0 while nothing is held."""
        held = self._held
        return 0.0 if held is None or held[3]() else self._debt_s()

    def _debt_s(self) -> float:
        if self._held is None:
            return 0.0
        bytes_per_s, since_s, base, _ = self._held
        passed_s = self._clock.monotonic_s() - since_s
        return max((self._written() - base) / bytes_per_s - passed_s, 0.0)
