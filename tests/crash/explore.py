"""Explores crash states from the command line: so many, or those of one seed.

``python -m tests.crash.explore --states 3000 --seed 1`` visits 3,000 distinct states from seed 1
on; ``--seed 17 --episodes 1`` repeats the states of seed 17, and so whatever failed there.
``--workers`` spreads the seeds over processes; ``--json`` keeps the figures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time

from tests.crash.episode import Broken, Episode, Tally
from tests.crash.machine import scratch_directory


def explore(
    first_seed: int, *, step: int = 1, states: int = 0, episodes: int = 0, show: bool = False
) -> Tally:
    """Episodes from a seed on, every ``step``-th, until there are so many distinct states or so
    many episodes. Raises ``Broken``."""
    tally, seed, began = Tally(), first_seed, time.monotonic()
    directory = scratch_directory()
    try:
        while (not states or tally.states < states) and (not episodes or tally.episodes < episodes):
            before = tally.states
            place = directory / str(seed)
            Episode(seed, place, tally).run()
            shutil.rmtree(place)
            if show:
                rate = tally.states / (time.monotonic() - began)
                print(
                    f"seed {seed}: {tally.states - before} states; {tally.states} in all, "
                    f"{rate:.0f} per second",
                    flush=True,
                )
            seed += step
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return tally


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="tests.crash.explore", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--states", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=0)
    arguments = parser.parse_args()
    try:
        tally = explore(
            arguments.seed, states=arguments.states, episodes=arguments.episodes, show=True
        )
    except Broken as broken:
        print(broken, file=sys.stderr)
        return 1
    print(json.dumps(tally_figures(tally), indent=2))
    return 0


def tally_figures(tally: Tally) -> dict[str, object]:
    return {
        "states": tally.states,
        "by_class": dict(sorted(tally.by_class.items())),
        "by_work": tally.by_work,
        "worked": tally.worked,
        "refused": tally.refused,
        "losses told": tally.losses_told,
        "copies compared": tally.copies_compared,
    }


if __name__ == "__main__":
    sys.exit(main())
