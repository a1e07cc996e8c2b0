"""Which starts of the store ended in a crash: so that one which crashes on what it finds is not
begun for ever.

Owns one file of two slots beside the index, on the machine, not on the drives: it says nothing of
the data. A start is noted before recovery touches anything and struck out by an orderly end; what
stands there at the next start was cut short. Invariant: crashes count only while no client's commit
came between them, and only for a while, so that a service that makes progress goes on, and one that
was killed a few times by an operator does too.

No clock is believed alone. While the machine has not been restarted its monotonic clock tells how
long ago a crash was; after a restart the wall clock does, and a time in the future counts as now.

Crash points: (1) before the note: as if there was no start; (2) after it: counted. A note that
cannot be written or read costs only this protection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgpack

from appliance.core.errors import DriveFault
from appliance.core.ports import Clock, Volume
from appliance.engine.mirror.slots import SlotFile, create_slots

STARTS_PATH: Final = "starts"
CRASH_LIMIT_DEFAULT: Final = 3
CRASH_WINDOW_S_DEFAULT: Final = 300.0
STARTS_KEPT: Final = 16
_KIND: Final = 4


class _Start(NamedTuple):
    """When a start was begun, by both clocks."""

    monotonic_s: float
    now_ns: int


@dataclass(frozen=True, slots=True)
class _Noted:
    """``sequence``: of the newest commit of a client, as the last start that got so far saw it."""

    sequence: int = 0
    starts: tuple[_Start, ...] = ()


class Starts:
    """One life's note among the earlier ones. Committer thread only."""

    def __init__(
        self,
        directory: Volume,
        clock: Clock,
        *,
        limit: int,
        window_s: float,
        alert: Callable[[str], None],
    ) -> None:
        """``limit``: how many crashes within ``window_s`` are too many; 0: any number is fine, and
        nothing is noted."""
        self._directory = directory
        self._clock = clock
        self._limit = limit
        self._window_s = window_s
        self._alert = alert
        self._noted = _Noted()
        self._is_noted = False

    def begin(self) -> None:
        """Note this start. Durable on return, as far as the directory can be written. Idempotent:
        one start may count the votes more than once."""
        if not self._limit or self._is_noted:
            return
        now = _Start(self._clock.monotonic_s(), self._clock.now_ns())
        before = self._read()
        recent = [start for start in before.starts if self._age_s(start, now) <= self._window_s]
        self._noted = _Noted(before.sequence, (*recent, now)[-STARTS_KEPT:])
        self._is_noted = self._write()

    def judge(self, sequence: int) -> str:
        """The log is recovered, and a client's newest commit has this sequence: why the store
        should take no writes, or nothing. Call once, after ``begin``."""
        if not self._is_noted:
            return ""
        if sequence != self._noted.sequence:
            self._noted = _Noted(sequence, self._noted.starts[-1:])
            self._write()
            return ""
        crashes = len(self._noted.starts) - 1
        if crashes < self._limit:
            return ""
        return (
            f"the store ended without warning {crashes} times within"
            f" {self._window_s / 60:g} minutes, each time on the same data"
        )

    def forget(self) -> None:
        """All is well: the operator's word, or it ran long enough. Earlier crashes, and one of this
        life, do not count."""
        self._noted = _Noted(self._noted.sequence)
        if self._is_noted:
            self._is_noted = self._write()

    def end(self) -> None:
        """An orderly end: this start does not count, and breaks the row. Idempotent."""
        self.forget()
        self._is_noted = False

    def give_up(self) -> None:
        """The store did not open, for a reason it told: this start was no crash; earlier ones
        were."""
        if self._is_noted:
            self._noted = _Noted(self._noted.sequence, self._noted.starts[:-1])
            self._write()
            self._is_noted = False

    def _age_s(self, start: _Start, now: _Start) -> float:
        if start.monotonic_s <= now.monotonic_s:
            return now.monotonic_s - start.monotonic_s
        return max(0.0, (now.now_ns - start.now_ns) / 1e9)

    def _read(self) -> _Noted:
        try:
            opened = SlotFile.open(self._directory, STARTS_PATH, _KIND, write=False)
        except DriveFault:
            return _Noted()
        if not isinstance(opened, SlotFile):
            return _Noted()
        opened.close()
        try:
            sequence, starts = msgpack.unpackb(opened.payload)
            return _Noted(int(sequence), tuple(_Start(float(m), int(n)) for m, n in starts))
        except (ValueError, TypeError):
            return _Noted()

    def _write(self) -> bool:
        packed = msgpack.packb([self._noted.sequence, list(self._noted.starts)])
        try:
            create_slots(self._directory, STARTS_PATH, _KIND, packed)
        except DriveFault as fault:
            self._alert(f"the store's starts cannot be noted beside the index: {fault}")
            return False
        return True
