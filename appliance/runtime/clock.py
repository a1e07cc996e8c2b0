"""The real clock and the real randomness."""

from __future__ import annotations

import secrets
import time


class SystemClock:
    """The operating system's clocks. ``monotonic_s`` is one clock for all processes."""

    def now_ns(self) -> int:
        """See ``core.ports.Clock``."""
        return time.time_ns()

    def monotonic_s(self) -> float:
        """See ``core.ports.Clock``."""
        return time.monotonic()

    def sleep_s(self, seconds: float) -> None:
        """See ``core.ports.Clock``."""
        time.sleep(seconds)


class SystemEntropy:
    """The operating system's random numbers."""

    def token(self, size_bytes: int) -> bytes:
        """See ``core.ports.Entropy``."""
        return secrets.token_bytes(size_bytes)
