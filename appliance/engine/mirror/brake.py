"""Holds commits back to a rate, so that a drive that is brought in can catch up with them.

Owns how long the next commit has to wait. Refuses nothing. Invariant: from ``hold`` on until
``release`` no more is committed than its rate allows, but for what one batch exceeds it by, and
that is waited for afterwards. While the transfer is paused nobody waits, and what is committed then
is not waited for later either: the transfer copies it as it copies what came before the brake. No
commit waits longer than ``WAIT_S_MAX`` after the one before, whatever that wrote: what is left of
the debt stays, and who writes nothing but objects of many gigabytes may keep a transfer waiting.

Committer thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from appliance.core.ports import Clock

WAIT_S_MAX: Final = 20.0
"""Clients give a request up after a minute."""


def _never() -> bool:
    return False


class Brake:
    """``written``: how many bytes were committed so far; what lies in blob files counts too."""

    def __init__(self, clock: Clock, written: Callable[[], int]) -> None:
        self._clock = clock
        self._written = written
        self._bytes_per_s = 0.0
        """0: nothing is held."""
        self._is_void: Callable[[], bool] = _never
        self._debt_s = 0.0
        """To be waited for as of the last look; negative: what may be written at once."""
        self._looked_s = 0.0
        self._looked_bytes = 0
        self._written_s = 0.0
        """When that last grew."""

    def hold(self, bytes_per_s: float, is_void: Callable[[], bool] = _never) -> None:
        """From now on. What was written too much at an earlier rate is still to be waited for."""
        self._look()
        self._debt_s = max(self._debt_s, 0.0)
        self._bytes_per_s, self._is_void = bytes_per_s, is_void

    def release(self) -> None:
        """Nobody waits any more. Idempotent."""
        self._bytes_per_s, self._is_void = 0.0, _never

    @property
    def wait_s(self) -> float:
        """How long until the next commit may be made; 0 while nothing is held. To be asked before
        each batch: what was written since the last time counts as written under the pause, if
        there is one now."""
        if not self._bytes_per_s:
            return 0.0
        self._look()
        if self._is_void():
            return 0.0
        return max(min(self._debt_s, self._written_s + WAIT_S_MAX - self._looked_s), 0.0)

    def _look(self) -> None:
        """Bring the debt up to now."""
        now_s, written = self._clock.monotonic_s(), self._written()
        if not self._bytes_per_s:
            self._debt_s = 0.0
        elif not self._is_void():
            self._debt_s += (written - self._looked_bytes) / self._bytes_per_s
            self._debt_s -= now_s - self._looked_s
        if written != self._looked_bytes:
            self._written_s = now_s
        self._looked_s, self._looked_bytes = now_s, written
