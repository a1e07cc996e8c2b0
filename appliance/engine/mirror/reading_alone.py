"""An open mirror that takes no writes: why, what is answered meanwhile, and when it is over.

Owns the reasons: records lost on every drive, too many crashes on the same data, and a witness that
does not take the vote it is needed for. Invariant: what an earlier attempt of a commit came to is
never denied.

Committer thread only, but for ``reason`` and ``question``.
"""

from __future__ import annotations

from typing import Final

from appliance.core.errors import EngineError, ReadOnly, Unavailable
from appliance.engine.interface import Question
from appliance.engine.mirror.lost import LostRecord
from appliance.engine.mirror.messages import CommitOrder
from appliance.engine.mirror.opening import Opened
from appliance.engine.mirror.starts import Starts
from appliance.engine.mirror.state import MirrorState

HELD_RETRY_S: Final = 10
WITNESS_RETRY_S: Final = 10.0


class ReadingAlone:
    """Of one open store; ``reason`` is empty for one that takes writes."""

    def __init__(self, opened: Opened, starts: Starts) -> None:
        self._state: Final[MirrorState] = opened.state
        self._starts = starts
        self._opened_for = opened.read_only
        self._contradiction = opened.recovery.contradiction
        self.losses: Final = opened.losses
        self.lost: Final[list[LostRecord]] = opened.lost
        """The records in the losses, as far as their names are known."""
        self._witness_at_s = 0.0
        self._proven_at_s = self._state.clock.monotonic_s() + self._state.settings.crash_window_s

    @property
    def reason(self) -> str:
        """Why; empty for one that takes writes, or is to be closed. Any thread."""
        return self._opened_for or self._state.held

    @property
    def question(self) -> Question:
        """What an operator may decide about it. Any thread."""
        if not self.reason:
            return Question.NONE
        if self._state.held:
            return Question.FORCE
        if self._contradiction:
            return Question.CHOOSE
        return Question.LOSSES if self.losses else Question.RESUME

    def refuse(self, order: CommitOrder) -> int | EngineError:
        """What to answer: the outcome, if an earlier attempt had one. While the witness is waited
        for nobody knows about the last batch."""
        earlier = self._state.index.request_outcome(order.request_id)
        if earlier is not None:
            return earlier
        reason = self._state.stopped
        return Unavailable(reason, HELD_RETRY_S) if self._state.held else ReadOnly(reason)

    def step(self) -> None:
        """Whatever may end it. A store without a crash for long enough has forgotten earlier ones,
        and is opened in full; one that waits for its witness tries again."""
        now_s = self._state.clock.monotonic_s()
        if now_s >= self._proven_at_s:
            self._proven_at_s = float("inf")
            self._starts.forget()
            if self.question is Question.RESUME:
                self.end("it ran long enough to take writes again")
        if self._state.held and now_s >= self._witness_at_s:
            self._witness_at_s = now_s + WITNESS_RETRY_S
            if self._state.votes.settle():
                self.end("the witness took its vote")

    def end(self, reason: str) -> None:
        """The store is to be closed and opened anew."""
        self._opened_for = self._state.held = ""
        self._state.stopped = reason
