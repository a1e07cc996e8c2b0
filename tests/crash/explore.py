"""Explores crash states from the command line: so many, or those of one seed.

``python -m tests.crash.explore --states 3000 --seed 1`` visits 3,000 distinct states from seed 1
on; ``--seed 17 --episodes 1`` repeats the states of seed 17, and so whatever failed there.
``--workers`` spreads the seeds over processes, each for a few seeds only, so that hours of it need
no more memory than minutes. Ctrl-C ends it with the figures so far. ``--publish`` keeps the figures
for ``docs/RELIABILITY.md``. What failed first is kept in ``var/crash-failures``.
"""

from __future__ import annotations

import argparse
import logging
import pickle
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Final

from tests.crash.episode import Episode
from tests.crash.figures import publish
from tests.crash.machine import scratch_directory
from tests.crash.tally import WORK_SHARE_MIN, Tally
from tests.crash.visits import Broken
from tests.crash.workers import Crowd

LONG_COMMAND: Final = "make crash-long"


def explore(first_seed: int, *, states: int = 0, episodes: int = 0, show: bool = False) -> Tally:
    """Episodes from a seed on until there are so many distinct states or so many episodes. Raises
    ``Broken``."""
    tally, seed, began = Tally(), first_seed, time.monotonic()
    directory = scratch_directory()
    try:
        while (not states or tally.states < states) and (not episodes or tally.episodes < episodes):
            before = tally.states
            Episode(seed, directory / str(seed), tally).run()
            shutil.rmtree(directory / str(seed))
            if show:
                rate = tally.states / (time.monotonic() - began)
                print(
                    f"seed {seed}: {tally.states - before} states; {tally.states} so far, "
                    f"{rate:.0f} per second",
                    flush=True,
                )
            seed += 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return tally


def report(tally: Tally, seconds: float, seeds: str) -> str:
    """In words."""
    states = max(tally.states, 1)
    lines = [
        f"{tally.states:,} distinct states in {seconds:.0f} s "
        f"({tally.states / max(seconds, 1e-9):.0f} per second), seeds from {seeds} on, "
        f"{tally.episodes} episodes, {tally.injected_runs:,} runs with a fault in them",
        f"recovery had work in {100 * tally.worked / states:.0f} %;"
        f" copies compared in {tally.copies_compared:,}",
        *(f"  {share:5.1f} %  {name}" for name, share in tally.shares().items()),
        *(
            f"  {100 * count / states:5.1f} %  recovery: {name}"
            for name, count in sorted(tally.by_work.items())
        ),
    ]
    return "\n".join(lines)


def section(tally: Tally, seconds: float, *, seeds: str, command: str) -> dict[str, object]:
    """For ``figures.publish``."""
    rows = {
        "distinct states, each recovered and judged": tally.states,
        "states per second, on all cores together": round(tally.states / seconds),
        "acknowledged objects lost, mixed, or returned from the dead": 0,
        "states in which recovery had work": f"{100 * tally.worked / tally.states:.0f} %",
        "runs with a fault at the N-th operation of a drive": tally.injected_runs,
        "states in which both copies were compared in the end": tally.copies_compared,
        "double faults reported with what they cost": tally.losses_told,
        "right refusals to serve": tally.refused,
        "fault classes below their 1 %": ", ".join(tally.short()) or "none",
        "first seed": seeds,
    }
    return {
        "title": "Simulated drives",
        "command": command,
        "rows": rows,
        "shares": {name: round(share, 1) for name, share in tally.shares().items()},
    }


def lacking(tally: Tally) -> list[str]:
    """What a full run must show and this one does not."""
    wrong = [f"too few states of the class: {name}" for name in tally.short()]
    if tally.worked < WORK_SHARE_MIN * tally.states:
        wrong.append(f"recovery had work in only {tally.worked} of {tally.states} states")
    return wrong


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="tests.crash.explore", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--states", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--publish", action="store_true", help="keep the figures in docs")
    parser.add_argument("--tally", type=Path, help="write the counts there")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell has us ignore the first
        signal.signal(number, signal.default_int_handler)
    began = time.monotonic()
    crowd = Crowd(arguments.workers, states=arguments.states, show=True)
    try:
        if arguments.tally is None and not arguments.episodes:
            crowd.run(arguments.seed)
            tally = crowd.tally
        else:
            show = arguments.tally is None
            tally = explore(
                arguments.seed, states=arguments.states, episodes=arguments.episodes, show=show
            )
    except (Broken, KeyboardInterrupt) as broken:
        print(broken, file=sys.stderr)
        if crowd.tally.states:
            print(report(crowd.tally, time.monotonic() - began, str(arguments.seed)))
        return 1 if isinstance(broken, Broken) else 130
    seconds = time.monotonic() - began
    if arguments.tally is not None:
        arguments.tally.write_bytes(pickle.dumps(tally))
        return 0
    print(report(tally, seconds, str(arguments.seed)))
    if not arguments.publish:
        return 0
    seeds = str(arguments.seed)
    publish("states", section(tally, seconds, seeds=seeds, command=LONG_COMMAND))
    wrong = lacking(tally)
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
