"""What a scrub of a mirror did and found, as the store tells it and people read it.

Owns the shapes; no behaviour but sums. Counts are of things, not of differing bytes: every one of
them was judged by a checksum, so each says which copy was wrong and what became of it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class ScrubOrder(enum.Enum):
    """What an operator may say about a scrub."""

    LOOK = "look"
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"


class ScrubState(enum.Enum):
    """How a scrub stands. ``WAITING``: it goes on by itself when what holds it up is over."""

    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    FINISHED = "finished"
    CANCELLED = "cancelled"


@dataclass(slots=True)
class DriveScrub:
    """What was found on one drive so far; a report holds a copy. ``bad_segments`` are headers and
    whole files of log segments; ``repaired`` and ``unrepairable`` say what became of everything bad
    or missing."""

    drive_id: str = ""
    read_bytes: int = 0
    bad_batches: int = 0
    bad_segments: int = 0
    bad_blobs: int = 0
    missing_files: int = 0
    orphan_files: int = 0
    repaired: int = 0
    unrepairable: int = 0

    @property
    def found(self) -> int:
        """How many things were bad or missing."""
        return self.bad_batches + self.bad_segments + self.bad_blobs + self.missing_files


@dataclass(frozen=True, slots=True)
class ScrubRun:
    """One scrub. Bytes are of one copy; times in nanoseconds since 1970, 0 while not known.
    ``index``: what became of its proof. ``lost`` names, cut to a bound, records whose every copy is
    bad; ``lost_count`` counts all of them. ``reason``: what holds it up."""

    state: ScrubState
    phase: str = ""
    began_ns: int = 0
    ended_ns: int = 0
    worked_s: float = 0.0
    done_bytes: int = 0
    total_bytes: int = 0
    eta_s: float | None = None
    drives: tuple[DriveScrub, ...] = ()
    index: str = ""
    lost: tuple[str, ...] = ()
    lost_count: int = 0
    reason: str = ""

    @property
    def found(self) -> int:
        """How many things were bad or missing on all drives."""
        return sum(drive.found for drive in self.drives)

    @property
    def repaired(self) -> int:
        """How many of them were repaired."""
        return sum(drive.repaired for drive in self.drives)

    @property
    def unrepairable(self) -> int:
        """How many of them no good copy was found for."""
        return sum(drive.unrepairable for drive in self.drives)


@dataclass(frozen=True, slots=True)
class ScrubReport:
    """The scrub that is under way, if one is, and the last one that ended. ``next_in_s``: when the
    schedule begins one, None when it never does."""

    mirror: str = ""
    current: ScrubRun | None = None
    last: ScrubRun | None = None
    next_in_s: float | None = None
