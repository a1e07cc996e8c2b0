"""Calls on drives that somebody watches: one that does not come back is noticed, and whoever made
it is left behind.

Owns the list of the calls that one piece of work has out. Refuses, with ``Unavailable``, every call
that begins after the work was ended. Invariant: once ``end`` has returned, nothing of the work
reaches a drive but the calls that are out by then, and ``is_out`` tells of each of them until it is
back.

Any thread.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable
from typing import TypeVar

from appliance.core.errors import DriveTimeout, Unavailable
from appliance.core.ports import Volume
from appliance.engine.mirror.mediated import MediatedVolume

T = TypeVar("T")


class Watch:
    """The calls of one piece of work on however many drives."""

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        """How long one call may take. Whatever lies between two calls has no end by this."""
        self._numbers = itertools.count()
        self._out: dict[int, tuple[str, str]] = {}
        self._seen_s: dict[int, float] = {}
        self._ended = ""

    def volume(self, volume: Volume) -> Volume:
        """The same volume, its calls watched. Closing this one closes nothing: its owner does."""
        return MediatedVolume(volume, self)

    def call(self, drive: str, operation: str, call: Callable[[], T]) -> T:
        """Make it. Raises ``Unavailable`` once ended, and what it raises."""
        number = next(self._numbers)
        # Listed before it asks: so an end either stops it or sees it.
        self._out[number] = (drive, operation)
        try:
            if self._ended:
                raise Unavailable(self._ended)
            return call()
        finally:
            self._out.pop(number, None)

    def overdue(self, now_s: float) -> DriveTimeout | None:
        """The call that was seen out for longest, if that is over the deadline. To be asked again
        and again, by one thread: a call counts from when it was first seen."""
        out = self._out.copy()
        self._seen_s = {number: self._seen_s.get(number, now_s) for number in out}
        number = min(out, default=None)
        if number is None or now_s - self._seen_s[number] < self.deadline_s:
            return None
        return self._late(number, out)

    def oldest(self) -> DriveTimeout | None:
        """The call that is out for longest, of whom somebody knows that it takes too long."""
        out = self._out.copy()
        return self._late(min(out), out) if out else None

    def _late(self, number: int, out: dict[int, tuple[str, str]]) -> DriveTimeout:
        drive, operation = out[number]
        text = f"it did not come back within {self.deadline_s:g} s"
        return DriveTimeout(drive, operation, errno.ETIMEDOUT, text)

    def end(self, reason: str) -> None:
        """Whoever makes one more call gets ``Unavailable`` with this reason. Idempotent."""
        self._ended = self._ended or reason

    def forget(self, drive: str) -> None:
        """What is out on this drive harms nobody any more: its mount is gone, and the drive has a
        fresh one."""
        for number, (name, _) in self._out.copy().items():
            if name == drive:
                self._out.pop(number, None)

    def is_out(self, drive: str = "") -> bool:
        """Whether a call on this drive, or on any, is not back."""
        return any(drive in {"", name} for name, _ in self._out.copy().values())
