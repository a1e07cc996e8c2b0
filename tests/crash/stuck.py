"""One call of a simulated drive, or all from it on, that does not come back until it is let go."""

from __future__ import annotations

import threading

from appliance.core.errors import DriveFault
from tests.crash.simulated import Operation, SimulatedDisk


class Stuck:
    """The ``number``-th call of a drive does not come back before ``release``; for ever: nor do
    those behind it. Then it takes its effect, or none if the drive was ``pulled``."""

    def __init__(self, disk: SimulatedDisk, number: int, *, kinds: frozenset[str] | None) -> None:
        self.count = 0
        self.struck = threading.Event()
        self.pulled = False
        self.for_ever = False
        self._number = number
        self._kinds = kinds
        self._disk = disk
        self._release = threading.Event()
        self._lock = threading.Lock()

    def set(self) -> None:
        """From now on."""

        def numbered(operation: Operation) -> None:
            self._meet(operation.kind)

        self._disk.hook = numbered
        self._disk.look_hook = lambda kind, _path: self._meet(kind)

    def _meet(self, kind: str) -> None:
        if self._kinds is not None and kind not in self._kinds:
            return
        with self._lock:
            self.count += 1
            hangs = self.count == self._number or (self.for_ever and self.count > self._number)
        if hangs:
            self.struck.set()
            assert self._release.wait(250), "the test never let it go"
            if self.pulled:
                raise DriveFault(self._disk.name, kind, 5, "the drive is gone")

    def stop(self) -> None:
        """Later calls do not hang; those that do go on."""
        self._disk.hook = self._disk.look_hook = None

    def release(self) -> None:
        self.stop()
        self._release.set()
