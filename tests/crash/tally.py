"""What exploring has seen: distinct states by fault class and by what recovery had to do.

Owns the count. Invariant: a state is counted once, whoever comes to it, and only after it was
recovered to serving (or to a refusal that is right) and judged.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from tests.crash.deeds import DEEDS
from tests.crash.injections import ATTACKS

_MASK: Final = (1 << 64) - 1
CLASS_SHARE_MIN: Final = 0.01
WORK_SHARE_MIN: Final = 0.30
INDEX_ROTS: Final = "index page flipped or torn"
SCENE_CLASSES: Final = (
    "bit rot",
    "both rotten apart",
    "both rotten together",
    "clone",
    "drive fails during recovery",
    "drive lost",
    "drive replaced by a blank one",
    "index lost",
    INDEX_ROTS,
    "index of another history",
    "index older",
    "power cut",
    "second fault during recovery",
    "stale half",
    "stale half and witness",
    "witness lost",
    "witness rolled back",
)
FAULT_PHASES: Final = ("resync", "recovery", "compaction", "scrub", "replacement")
"""Of ``barrage``, those that must have their share."""
NO_WORK: Final = {"refused", "left a drive out"}


def classes() -> list[str]:
    """Every fault class that must have its share."""
    cuts = [f"cut in {deed.name}" for deed in DEEDS.values() if deed.is_counted]
    attacks = {attack.label for attack in ATTACKS}
    phases = {f"fault in {name}" for name in FAULT_PHASES}
    return sorted([*SCENE_CLASSES, *cuts, *attacks, *phases])


@dataclass(slots=True)
class Tally:
    """Counts of one run, or of several merged."""

    sums: array[int] = field(default_factory=lambda: array("Q"))
    """64 bits of each state's checksum."""
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
        return len(self.sums)

    def count(self, checksum: int, labels: Iterable[str], work: Iterable[str]) -> None:
        """One state that was not counted before."""
        self.sums.append(checksum & _MASK)
        self.by_class.update(labels)
        done = set(work)
        self.by_work.update(done)
        self.worked += bool(done - NO_WORK)

    def check_distinct(self) -> None:
        """Runs of different seeds share no state, because every drive and every W carries random
        ids. Takes memory for all states at once, so call it in the end."""
        assert len(set(self.sums)) == len(self.sums), "a state was counted twice"

    def merge(self, other: Tally) -> None:
        """Add what a run of other seeds has seen."""
        self.sums.extend(other.sums)
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
