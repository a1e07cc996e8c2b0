"""What a scrub has found so far, and how far it is: its running account.

Owns the counters and the cursor. Refuses nothing. Invariant: the cursor only passes what was
verified on every drive and, where it was bad, repaired or counted as lost.

Belongs to the scrub's thread; ``report`` may be called from any.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Final

from appliance.core.scrubs import DriveScrub, ScrubRun, ScrubState

LOST_NAMES_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where to go on: the log is done up to ``sequence``, or, with the proof of the index,
    altogether; all blobs up to ``blob`` (hexadecimal, by id) are. Both with every drive's copy."""

    sequence: int = 0
    log_done: bool = False
    blob: str = ""


@dataclass(slots=True)
class Tally:
    """The account of one run."""

    began_ns: int = 0
    worked_s: float = 0.0
    phase: str = ""
    done_bytes: int = 0
    total_bytes: int = 0
    cursor: Cursor = field(default_factory=Cursor)
    drives: dict[str, DriveScrub] = field(default_factory=dict)
    index: str = ""
    lost: list[str] = field(default_factory=list)
    lost_count: int = 0

    def of(self, drive: str) -> DriveScrub:
        """The counters of a drive."""
        return self.drives.setdefault(drive, DriveScrub(drive))

    def name_lost(self, name: str) -> None:
        """A record whose every copy is bad."""
        self.lost_count += 1
        if len(self.lost) < LOST_NAMES_MAX:
            self.lost.append(name)

    def report(self, state: ScrubState, *, ended_ns: int = 0, reason: str = "") -> ScrubRun:
        """As others are told. The estimate supposes that the rest goes as fast as what is done."""
        left = self.total_bytes - self.done_bytes
        eta_s = None
        if state is ScrubState.RUNNING and self.done_bytes > 0 and self.worked_s > 0 and left >= 0:
            eta_s = left * self.worked_s / self.done_bytes
        return ScrubRun(
            state,
            self.phase,
            self.began_ns,
            ended_ns,
            self.worked_s,
            self.done_bytes,
            max(self.total_bytes, self.done_bytes),
            eta_s,
            tuple(dataclasses.replace(found) for _, found in sorted(self.drives.copy().items())),
            self.index,
            tuple(self.lost),
            self.lost_count,
            reason,
        )

    @classmethod
    def resumed(cls, run: ScrubRun, cursor: Cursor) -> Tally:
        """The account of a run that a stop of the store cut short."""
        drives = {drive.drive_id: dataclasses.replace(drive) for drive in run.drives}
        return cls(
            run.began_ns,
            run.worked_s,
            run.phase,
            run.done_bytes,
            run.total_bytes,
            cursor,
            drives,
            run.index,
            list(run.lost),
            run.lost_count,
        )
