"""What exploring has seen: distinct states by fault class and by what recovery had to do.

Owns the count. Invariant: a state is counted once, whoever comes to it, and only after it was
recovered to serving (or to a refusal that is right) and judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from tests.crash.deeds import DEEDS
from tests.crash.injections import KINDS

CLASS_SHARE_MIN: Final = 0.01
WORK_SHARE_MIN: Final = 0.30
SCENE_CLASSES: Final = (
    "bit rot",
    "both rotten apart",
    "both rotten together",
    "clone",
    "drive fails during recovery",
    "drive lost",
    "drive replaced by a blank one",
    "index lost",
    "index of another history",
    "index older",
    "power cut",
    "second fault during recovery",
    "stale half",
    "stale half and witness",
    "witness fails",
    "witness lost",
    "witness rolled back",
)
NO_WORK: Final = {"refused", "left a drive out"}


def classes() -> list[str]:
    """Every fault class that must have its share."""
    cuts = [f"cut in {deed.name}" for deed in DEEDS.values() if deed.is_counted]
    injected = [
        f"{kind.name}, {how}" if kind.may_persist else kind.name
        for kind in KINDS
        for how in (("once", "persistent") if kind.may_persist else ("",))
    ]
    return sorted([*SCENE_CLASSES, *cuts, *injected])


@dataclass(slots=True)
class Tally:
    """Counts of one run, or of several merged."""

    checksums: set[int] = field(default_factory=set)
    by_class: Counter[str] = field(default_factory=Counter)
    by_work: Counter[str] = field(default_factory=Counter)
    worked: int = 0
    refused: int = 0
    losses_told: int = 0
    copies_compared: int = 0
    episodes: int = 0
    injected_runs: int = 0

    @property
    def states(self) -> int:
        """Distinct ones."""
        return len(self.checksums)

    def count(self, checksum: int, labels: Iterable[str], work: Iterable[str]) -> bool:
        """One state; False if it was counted before."""
        if checksum in self.checksums:
            return False
        self.checksums.add(checksum)
        self.by_class.update(labels)
        done = set(work)
        self.by_work.update(done)
        self.worked += bool(done - NO_WORK)
        return True

    def merge(self, other: Tally) -> None:
        """Add what another run has seen. Runs of different seeds share no state: every drive and
        every W carries random ids."""
        assert self.checksums.isdisjoint(other.checksums), "the same seeds were run twice"
        self.checksums |= other.checksums
        self.by_class += other.by_class
        self.by_work += other.by_work
        for name in (
            "worked",
            "refused",
            "losses_told",
            "copies_compared",
            "episodes",
            "injected_runs",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def shares(self) -> dict[str, float]:
        """Fault class → percent of the states."""
        return {name: 100 * self.by_class[name] / max(self.states, 1) for name in classes()}

    def short(self) -> list[str]:
        """Fault classes below their share."""
        return [name for name, share in self.shares().items() if share < 100 * CLASS_SHARE_MIN]
