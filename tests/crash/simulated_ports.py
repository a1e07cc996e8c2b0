"""Lanes, a clock and randomness that a seed replays, to go with ``simulated`` drives."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from appliance.core.errors import DriveFault
from appliance.core.ports import Outcome


class SerialLanes:
    """``core.ports.Lanes`` one call after the other, in an order drawn from the seed."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def run(
        self, calls: Mapping[str, Callable[[], object]], *, deadline_s: float
    ) -> Mapping[str, Outcome]:
        order = sorted(calls)
        self._rng.shuffle(order)
        outcomes = {}
        for drive in order:
            try:
                outcomes[drive] = Outcome(value=calls[drive]())
            except DriveFault as fault:
                outcomes[drive] = Outcome(fault=fault)
        return outcomes

    def drop(self, drive: str) -> None:
        """Nothing ever hangs here."""


class SimulatedClock:
    """Time that passes only when somebody sleeps, or a little at each look. The wall clock may
    jump; the monotonic one begins anew when the machine does."""

    def __init__(self, now_ns: int = 1_700_000_000_000_000_000) -> None:
        self._now_ns = now_ns
        self._wall_ahead_ns = 0
        self._booted_ns = 0

    def jump_s(self, seconds: float) -> None:
        """Somebody sets the wall clock, forwards or backwards."""
        self._wall_ahead_ns += int(seconds * 1e9)

    def reboot(self) -> None:
        """The machine is started anew: its monotonic clock begins at zero."""
        self._booted_ns = self._now_ns

    def peek_ns(self) -> int:
        """The time, without any passing."""
        return self._now_ns

    def now_ns(self) -> int:
        self._now_ns += 1_000
        return self._now_ns + self._wall_ahead_ns

    def monotonic_s(self) -> float:
        self._now_ns += 1_000
        return (self._now_ns - self._booted_ns) / 1e9

    def sleep_s(self, seconds: float) -> None:
        self._now_ns += int(seconds * 1e9)


class SeededEntropy:
    """Randomness that a seed replays."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def token(self, size_bytes: int) -> bytes:
        return self._rng.randbytes(size_bytes)
