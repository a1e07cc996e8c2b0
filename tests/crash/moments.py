"""Moments: what a machine's drives were while each operation of a run was under way.

Owns the recording. A run is recorded once, and every crash it may meet is built from its moments
afterwards, as CrashMonkey and ALICE do, instead of being run again for every crash. Calls on
several lanes are concurrent: beside the order in which the simulation ran them, every pairing of
their points is a moment too, so that two drives may be torn at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from appliance.core.ports import Outcome
from tests.crash.images import Frozen
from tests.crash.simulated import SerialLanes, SimulatedDisk

PAIRINGS_MAX: Final = 6
"""Of one call on several lanes."""


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """All drives and the witness, while one operation was under way. ``note``: what the run's owner
    wanted to remember of it."""

    drives: Mapping[str, Frozen]
    operation: str
    note: object


@dataclass(slots=True)
class Recorder:
    """Records the moments of a machine. ``note`` is asked at each."""

    disks: Mapping[str, SimulatedDisk]
    note: Callable[[], object]
    moments: list[Moment] = field(default_factory=list)

    def start(self) -> None:
        """From now on."""
        for disk in self.disks.values():
            disk.power.observer = self._observe

    def mark(self, operation: str) -> None:
        """One moment: now."""
        drives = {name: one.frozen() for name, one in self.disks.items()}
        self.moments.append(Moment(drives, operation, self.note()))

    def _observe(self, disk: SimulatedDisk, kind: str, path: str) -> None:
        self.mark(f"{kind} {path} on {disk.name}")

    def pair(self, lanes: Mapping[str, list[Moment]], rng: random.Random) -> None:
        """Add pairings of what concurrent calls did, each list one lane's moments in order."""
        busy = [name for name, moments in lanes.items() if moments and name in self.disks]
        if len(busy) < 2:
            return
        first, second = busy[:2]
        pairs = [(one, other) for one in lanes[first] for other in lanes[second]]
        for one, other in rng.sample(pairs, min(len(pairs), PAIRINGS_MAX)):
            drives = {**one.drives, second: other.drives[second]}
            operation = f"{one.operation} beside {other.operation}"
            self.moments.append(Moment(drives, operation, one.note))


class RecordedLanes(SerialLanes):
    """Simulated lanes that tell a recorder what belongs together."""

    def __init__(self, rng: random.Random, recorder: Recorder) -> None:
        super().__init__(rng)
        self._pairing = random.Random(rng.random())
        self._recorder = recorder

    def run(
        self, calls: Mapping[str, Callable[[], object]], *, deadline_s: float
    ) -> Mapping[str, Outcome]:
        recorder = self._recorder
        ran: dict[str, list[Moment]] = {}

        def recorded(name: str, call: Callable[[], object]) -> Callable[[], object]:
            def run() -> object:
                start = len(recorder.moments)
                try:
                    return call()
                finally:
                    ran[name] = recorder.moments[start:]

            return run

        outcomes = super().run(
            {name: recorded(name, call) for name, call in calls.items()}, deadline_s=deadline_s
        )
        recorder.pair(ran, self._pairing)
        return outcomes
