"""Crash states of the real engine on simulated drives, see ``episode``: a few, and many.

The many come from two rows of seeds that never change, so that a failure belongs to the change it
is seen with. ``STATES=`` says how many, ``SEED=`` from which seed on instead;
``PUBLISH_FIGURES=1`` keeps the figures for ``docs/RELIABILITY.md``. One seed replays a failure:
``python -m tests.crash.explore --seed N --episodes 1``.
"""

from __future__ import annotations

import os
import time

import pytest

from tests.crash.explore import explore, lacking, report, section
from tests.crash.figures import publish
from tests.crash.tally import WORK_SHARE_MIN
from tests.crash.workers import Crowd

FIRST_SEEDS = [2, 1_264_784_000_000]
FEW_FROM = 3
FEW_EPISODES = 2
MANY_STATES = 100_000
WORKERS = 2


def test_a_few_states() -> None:
    """One run with cuts and one with faults."""
    tally = explore(FEW_FROM, episodes=FEW_EPISODES)
    assert tally.states > 300
    assert tally.injected_runs > 10
    assert tally.copies_compared > tally.states // 4


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_every_fault_is_among_many_states() -> None:
    states = int(os.environ.get("STATES", MANY_STATES))
    chosen = os.environ.get("SEED")
    seeds = [int(chosen)] if chosen else FIRST_SEEDS
    began = time.monotonic()
    crowd = Crowd(WORKERS, states=-(-states // len(seeds)))
    print(f"\nseeds from {' and '.join(map(str, seeds))} on")
    for seed in seeds:
        crowd.run(seed)
    seconds = time.monotonic() - began
    told = " and ".join(map(str, seeds))
    print(report(crowd.tally, seconds, told))
    assert crowd.tally.states >= states
    print("\n".join(lacking(crowd.tally)) or "every class has its share")
    if states >= MANY_STATES:
        assert [name for name, share in crowd.tally.shares().items() if not share] == []
        assert crowd.tally.worked > WORK_SHARE_MIN * crowd.tally.states
    if os.environ.get("PUBLISH_FIGURES") == "1":
        command = f"STATES={states} .venv/bin/pytest -s tests/crash/test_states.py"
        publish("states", section(crowd.tally, seconds, seeds=told, command=command))
