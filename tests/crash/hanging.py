"""Calls on simulated drives that do not come back until a test says so."""

from __future__ import annotations

import errno
import threading

from appliance.core.errors import DriveFault
from tests.crash.machine import Machine
from tests.crash.simulated import Operation


class Hang:
    """Calls on one drive that do not come back before ``end``."""

    def __init__(self, machine: Machine, drive: str) -> None:
        self._disk = machine.disks[drive]
        self._over = threading.Event()
        self.struck = threading.Event()
        self.strikes = 0
        """Calls that hung."""

    def on(self, kind: str, path: str = "") -> None:
        """From now on, for operations of this kind (empty: of all) on paths that begin so."""

        def numbered(operation: Operation) -> None:
            looking(operation.kind, operation.path)

        def looking(found: str, where: str) -> None:
            if kind in {"", found} and where.startswith(path):
                self._wait()

        self._disk.hook, self._disk.look_hook = numbered, looking

    def _wait(self) -> None:
        self.strikes += 1
        self.struck.set()
        self._over.wait(50)
        raise DriveFault(self._disk.name, "a call that hung", errno.EIO)

    def over_for_new_calls(self) -> None:
        """Those that hang go on hanging."""
        self._disk.hook = self._disk.look_hook = None

    def end(self) -> None:
        self.over_for_new_calls()
        self._over.set()
