"""One mutant against the tests: first those that run its line, then crash states.

Owns in which order a mutant meets the tests (quick ones and those that caught much come first) and
what counts as caught: a test that fails, ends the process, or takes far longer than it should, and
that passes when it is run once more without the mutant.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from itertools import accumulate
from typing import Any, Final

from tests.mutants.children import Outcome, Tell, watched
from tests.mutants.measured import Measured
from tests.mutants.session import EXPLORER, Session
from tests.mutants.sites import Mutant
from tests.mutants.swap import Loaded

FAILURES_BELIEVED: Final = 5
"""So many tests of one mutant may fail without it too before the run is given up."""
TIME_MIN_S: Final = 0.005


@dataclass(frozen=True, slots=True)
class Verdict:
    """``caught_by`` is empty for a survivor; ``why`` is what the test said, ``hung`` that it said
    nothing."""

    name: str
    place: str
    caught_by: str
    why: str
    hung: bool
    tests: int
    time_s: float

    @property
    def stage(self) -> str:
        """Which kind of test caught it."""
        if self.caught_by == EXPLORER:
            return EXPLORER
        return "/".join(self.caught_by.split("/")[1:2])


class Bench:
    """Everything that trials share. ``caught_before``: mutant → test, of earlier runs;
    ``explore``: end with crash states; ``quick_s``: leave out tests beyond so many seconds."""

    def __init__(
        self,
        session: Session,
        loaded: Loaded,
        measured: Measured,
        caught_before: dict[str, str],
        *,
        explore: bool = True,
        quick_s: float = 0,
    ) -> None:
        self._session = session
        self._loaded = loaded
        self._measured = measured
        self._before = caught_before
        self._catches = Counter(caught_before.values())
        self._quick_s = quick_s
        self._last = [EXPLORER] if explore and EXPLORER in measured.time_s else []

    def try_one(self, mutant: Mutant) -> dict[str, Any]:
        """The fields of its ``Verdict``."""
        began = time.monotonic()
        tests = self._in_order(mutant)
        caught_by, outcome = self._caught_by(mutant, tests)
        if caught_by:
            self._catches[caught_by] += 1
        verdict = Verdict(
            mutant.name,
            f"{mutant.path}:{mutant.line}",
            caught_by,
            outcome.first("why"),
            bool(outcome.lost_in),
            len(tests) - len(self._last),
            round(time.monotonic() - began, 2),
        )
        return asdict(verdict)

    def _in_order(self, mutant: Mutant) -> list[str]:
        before = self._before.get(mutant.name, "")

        def rank(test: str) -> tuple[bool, float, str]:
            time_s = max(self._measured.time_s[test], TIME_MIN_S)
            return test != before, time_s / (1 + self._catches[test]), test

        found = sorted(self._measured.of(mutant), key=rank)
        if self._quick_s:
            spent_s = accumulate(self._measured.time_s[test] for test in found)
            found = [test for test, s in zip(found, spent_s, strict=True) if s < self._quick_s]
        return [*self._last, *found] if before == EXPLORER else [*found, *self._last]

    def _caught_by(self, mutant: Mutant, tests: list[str]) -> tuple[str, Outcome]:
        for _ in range(FAILURES_BELIEVED):
            outcome = watched(partial(self._meet, mutant, tests))
            assert not outcome.raised, f"{mutant.name}: {outcome.raised}"
            caught_by = outcome.first("failed") or outcome.lost_in
            if not caught_by or caught_by == EXPLORER or self._passes(caught_by):
                return caught_by, outcome
            tests = [test for test in tests if test != caught_by]
        raise AssertionError(f"the tests of {mutant.name} fail without it too")

    def _meet(self, mutant: Mutant, tests: list[str], tell: Tell) -> None:
        """In a child."""
        self._loaded.disable(mutant)
        while tests:
            if tests[0] == EXPLORER:
                tests = tests[1:]
                tell(step=EXPLORER, limit_s=self._measured.limit_s(EXPLORER))
                try:
                    self._session.explore()
                except BaseException as error:  # noqa: BLE001 - whatever it is, it was noticed
                    tell(failed=EXPLORER, why=f"{type(error).__name__}: {error}"[-300:])
                    return
                continue
            run = tests[: tests.index(EXPLORER)] if EXPLORER in tests else tests
            if self._one_fails(run, tell):
                return
            tests = tests[len(run) :]

    def _one_fails(self, tests: list[str], tell: Tell) -> bool:
        tell(step=tests[0], limit_s=self._measured.limit_s(tests[0]))
        for (test, why), after in zip(
            self._session.run(tests), [*tests[1:], tests[-1]], strict=True
        ):
            if why:
                tell(failed=test, why=why)
                return True
            tell(step=after, limit_s=self._measured.limit_s(after))
        return False

    def _passes(self, test: str) -> bool:
        """Without any mutant."""
        outcome = watched(partial(self._one_fails_alone, test))
        return not (outcome.first("failed") or outcome.lost_in or outcome.raised)

    def _one_fails_alone(self, test: str, tell: Tell) -> None:
        self._one_fails([test], tell)
