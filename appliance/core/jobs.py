"""A job: long work with a title, steps, progress, and an end that is told.

Owns the value only; who runs it keeps the book. Invariant: ``done`` never passes ``total``, and a
job that ended carries no estimate.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class JobState(enum.Enum):
    """Where a job stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Job:
    """A snapshot of a job. ``step`` says what it does now; ``eta_s`` is an estimate, None while
    nothing can be said; ``result`` names what came of it; ``error`` is a sentence."""

    id: str
    title: str
    state: JobState
    step: str = ""
    done: int = 0
    total: int = 0
    eta_s: float | None = None
    result: str = ""
    error: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state is not JobState.RUNNING


def estimate_s(done: int, total: int, elapsed_s: float) -> float | None:
    """Seconds that remain if the pace so far is kept."""
    if done <= 0 or total <= 0 or elapsed_s <= 0:
        return None
    return max(0.0, (total - done) * elapsed_s / done)
