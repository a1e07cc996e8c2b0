"""One writer thread per drive, so that a hung drive stalls only itself.

Owns the threads. Invariant: a lane runs one call at a time, in the order given; a call that missed
its deadline keeps its lane busy until it is back, and a busy lane takes nothing more, because what
an I/O call still does after its deadline cannot be known.
"""

from __future__ import annotations

import errno
import queue
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Final

from appliance.core.errors import DriveFault, DriveTimeout
from appliance.core.ports import Clock, Outcome

LAST_SHARE: Final = 0.1
"""Of a deadline, counted only once the rest is over. A host that stood still for longer than all of
it finds its calls late through nobody's fault: they get this much to come back in."""


class _Call:
    """One call handed to a lane, and its end."""

    def __init__(self, call: Callable[[], object], finished: queue.SimpleQueue[None]) -> None:
        self._call = call
        self._finished = finished
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """On the lane's thread. Anything but a ``DriveFault`` is our own bug and travels to the
        caller, who would otherwise wait for a dead thread."""
        try:
            self.outcome = Outcome(value=self._call())
        except DriveFault as fault:
            self.outcome = Outcome(fault=fault)
        except BaseException as error:  # noqa: BLE001 - handed to the caller and raised there
            self.error = error
        self._finished.put(None)


class _Lane:
    """A drive's thread: a daemon, for one stuck in a dead drive must not hold up the exit."""

    def __init__(self, drive: str) -> None:
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._last: _Call | None = None
        self._thread = threading.Thread(target=self._work, name=f"lane {drive}", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call.run()

    @property
    def busy(self) -> bool:
        """Whether a call that missed its deadline is still out."""
        last = self._last
        return last is not None and last.outcome is None and last.error is None

    def give(self, call: _Call) -> None:
        """Hand over a call; the lane must not be busy."""
        self._last = call
        self._calls.put(call)

    def close(self) -> None:
        """The thread ends after the call it is in."""
        self._calls.put(None)


class ThreadLanes:
    """``core.ports.Lanes`` on threads. Called from one thread at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lanes: dict[str, _Lane] = {}

    def run(
        self, calls: Mapping[str, Callable[[], object]], *, deadline_s: float
    ) -> Mapping[str, Outcome]:
        """See ``core.ports.Lanes``. A busy lane answers ``DriveTimeout`` at once."""
        finished: queue.SimpleQueue[None] = queue.SimpleQueue()  # the cheapest thing to wait on
        given: dict[str, _Call] = {}
        for drive, function in calls.items():
            lane = self._lanes.get(drive)
            if lane is None:
                lane = self._lanes[drive] = _Lane(drive)
            if not lane.busy:
                given[drive] = _Call(function, finished)
                lane.give(given[drive])
        self._wait(finished, len(given), deadline_s)
        outcomes = {}
        for drive in calls:
            call = given.get(drive)
            if call is not None and call.error is not None:
                raise call.error
            outcome = None if call is None else call.outcome
            outcomes[drive] = outcome or Outcome(fault=_late(drive, deadline_s))
        return outcomes

    def _wait(self, finished: queue.SimpleQueue[None], count: int, deadline_s: float) -> None:
        for share in (1 - LAST_SHARE, LAST_SHARE):
            end_s = self._clock.monotonic_s() + deadline_s * share
            while count:
                try:
                    finished.get(timeout=max(0.0, end_s - self._clock.monotonic_s()))
                except queue.Empty:
                    break
                count -= 1

    def busy(self, drive: str) -> bool:
        """Whether a call of this drive missed its deadline and is not back yet."""
        lane = self._lanes.get(drive)
        return lane is not None and lane.busy

    def drop(self, drive: str) -> None:
        """Forget a drive's lane; the next call gets a new thread. Only for a drive that is failed
        and mounted afresh: nothing may be outstanding on the new mount."""
        lane = self._lanes.pop(drive, None)
        if lane is not None:
            lane.close()

    def keep(self, names: Collection[str]) -> None:
        """Forget all other lanes, whatever hangs in them."""
        for name in self._lanes.keys() - set(names):
            self.drop(name)

    def close(self) -> None:
        """Ends the threads that are not stuck. Idempotent."""
        for drive in list(self._lanes):
            self.drop(drive)


def _late(drive: str, deadline_s: float) -> DriveTimeout:
    return DriveTimeout(
        drive, "a call", errno.ETIMEDOUT, f"it did not come back within {deadline_s:g} s"
    )
