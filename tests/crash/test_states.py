"""Crash states of the real engine on simulated drives, see ``episode``: a few, and many.

One seed replays a failure: ``python -m tests.crash.explore --seed N --episodes 1``.
"""

from __future__ import annotations

import time

import pytest

from tests.crash.explore import explore, explore_beside, report
from tests.crash.tally import WORK_SHARE_MIN

FEW_STATES = 400
MANY_STATES = 4_000
WORKERS = 2


def test_a_few_states() -> None:
    tally = explore(1, states=FEW_STATES)
    assert tally.states >= FEW_STATES
    assert tally.copies_compared > FEW_STATES // 4


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_thousands_of_states() -> None:
    began = time.monotonic()
    tally = explore_beside(1, states=MANY_STATES, workers=WORKERS)
    print(report(tally, time.monotonic() - began))
    assert tally.states >= MANY_STATES
    assert tally.worked > WORK_SHARE_MIN * tally.states
