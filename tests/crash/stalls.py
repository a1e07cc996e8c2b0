"""Calls that hang, without any clock: lanes that are told of a hang instead of waiting for it.

Owns the hanging. A stalled drive's call stays out until it is released, then does what it was to do
and comes back, however late that is. Lanes here give a call up as soon as it hangs, so that nothing
rests on how long anything takes. A call that hangs outside a lane fails the test: in the product
nobody would ever come back from it.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Mapping

from appliance.core.errors import DriveFault, DriveTimeout
from appliance.core.ports import Outcome
from tests.crash.simulated import Operation, SimulatedClock, SimulatedDisk

PATIENCE_S = 50.0
"""More than any test takes."""


class _Task:
    """One call on a lane."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None
        self.hangs = False

    @property
    def is_over(self) -> bool:
        return self.outcome is not None or self.error is not None


class StalledLanes:
    """``core.ports.Lanes`` on threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._last: dict[str, _Task] = {}
        self._of_thread: dict[int, _Task] = {}

    def run(
        self, calls: Mapping[str, Callable[[], object]], *, deadline_s: float
    ) -> Mapping[str, Outcome]:
        given: dict[str, _Task] = {}
        for lane, call in calls.items():
            before = self._last.get(lane)
            if before is None or before.is_over:
                given[lane] = self._last[lane] = _Task(call)
                threading.Thread(target=self._work, args=(given[lane],), daemon=True).start()
        with self._changed:
            tasks = list(given.values())
            assert self._changed.wait_for(
                lambda: all(task.is_over or task.hangs for task in tasks), PATIENCE_S
            ), "a call neither ends nor hangs"
        for task in given.values():
            if task.error is not None:
                raise task.error
        return {lane: self._outcome(lane, given.get(lane)) for lane in calls}

    def _outcome(self, lane: str, task: _Task | None) -> Outcome:
        if task is not None and task.outcome is not None:
            return task.outcome
        return Outcome(fault=DriveTimeout(lane, "a call", errno.ETIMEDOUT))

    def _work(self, task: _Task) -> None:
        self._of_thread[threading.get_ident()] = task
        try:
            outcome = Outcome(value=task.call())
        except DriveFault as fault:
            outcome = Outcome(fault=fault)
        except BaseException as error:  # noqa: BLE001 - raised where it was waited for
            with self._changed:
                task.error = error
                self._changed.notify_all()
            return
        finally:
            del self._of_thread[threading.get_ident()]
        with self._changed:
            task.outcome = outcome
            self._changed.notify_all()

    def hang(self, until: threading.Event, what: str) -> None:
        """The calling thread's call hangs."""
        task = self._of_thread.get(threading.get_ident())
        assert task is not None, f"{what} would hang outside the lanes, for ever"
        with self._changed:
            task.hangs = True
            self._changed.notify_all()
        assert until.wait(PATIENCE_S), "nobody let it go"
        with self._changed:
            task.hangs = False

    def settle(self) -> None:
        """Wait until every call that was let go is over."""
        with self._changed:
            assert self._changed.wait_for(
                lambda: all(task.is_over for task in self._last.values()), PATIENCE_S
            ), "a call does not end"

    def drop(self, drive: str) -> None:
        self._last.pop(drive, None)


class Watch:
    """Calls back at a drive's ``number``-th call from now on, and at every one after it: reads,
    writes, flushes and mere looks alike. 0: at none; they are counted."""

    def __init__(
        self,
        disk: SimulatedDisk,
        number: int = 0,
        strike: Callable[[str], None] = lambda what: None,
    ) -> None:
        """``strike`` is told what was called, on the thread that called it."""
        self.calls = 0
        self.has_struck = False
        self._number = number
        self._disk = disk
        self._strike = strike
        self._lock = threading.Lock()
        disk.hook, disk.look_hook = self._operation, self._pass

    def _operation(self, operation: Operation) -> None:
        self._pass(operation.kind, operation.path)

    def _pass(self, kind: str, path: str) -> None:
        with self._lock:
            self.calls += 1
            strikes = 0 < self._number <= self.calls
            self.has_struck |= strikes
        if strikes:
            self._strike(f"{kind} {path} on {self._disk.name}")

    def end(self) -> None:
        """Idempotent."""
        self._disk.hook = self._disk.look_hook = None


class Stall:
    """A drive hangs from its ``number``-th call on."""

    def __init__(self, lanes: StalledLanes, disk: SimulatedDisk, number: int) -> None:
        self._lanes = lanes
        self._until = threading.Event()
        self._watch = Watch(disk, number, self.hang)

    @property
    def has_struck(self) -> bool:
        """Whether any call hung."""
        return self._watch.has_struck

    def hang(self, what: str) -> None:
        """The calling thread's call does."""
        self._lanes.hang(self._until, what)

    def release(self) -> None:
        """What hung does what it was to do; nothing hangs any more. Idempotent."""
        self._watch.end()
        self._until.set()


class ReleasingClock(SimulatedClock):
    """Whoever sleeps finds the stalls over."""

    def __init__(self) -> None:
        super().__init__()
        self.release: Callable[[], None] = lambda: None

    def sleep_s(self, seconds: float) -> None:
        super().sleep_s(seconds)
        self.release()
