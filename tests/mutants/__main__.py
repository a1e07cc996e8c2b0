"""``python -m tests.mutants``: disable each safeguard of the engine in turn and see it noticed.

A mutant first meets the tests that run its line, then all other tests of the engine. It is caught
by the first that fails. One that survives everything is a missing test.
"""

from __future__ import annotations

import argparse
import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.chosen import chosen
from tests.mutants.scratch import PYTEST, Scratch
from tests.mutants.selection import TESTS, Selection, measure
from tests.mutants.sites import Mutant, find

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Verdict:
    """``caught_by`` is empty for a survivor."""

    mutant: Mutant
    caught_by: str
    time_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if every mutant that was tried was caught."""
    options = _options(arguments)
    mutants = _picked(options)
    if options.list:
        for mutant in mutants:
            print(_place(mutant))
        return 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as home:
        verdicts = _try_all(mutants, Path(home), options.jobs)
    survivors = [verdict for verdict in verdicts if not verdict.caught_by]
    print(f"{len(verdicts) - len(survivors)} of {len(verdicts)} mutants caught")
    for verdict in survivors:
        print(f"SURVIVED  {_place(verdict.mutant)}")
    if options.results:
        _write_results(options.results, verdicts)
    return 1 if survivors else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--list", action="store_true", help="name the mutants and stop")
    parser.add_argument("--only", metavar="TEXT", help="those whose name or place contains it")
    parser.add_argument(
        "--share",
        type=int,
        metavar="N",
        help="a rotating N-th of all: which one follows the number of commits",
    )
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="how many at a time")
    parser.add_argument("--results", type=Path, metavar="FILE", help="write the figures, as JSON")
    return parser.parse_args(arguments)


def _picked(options: argparse.Namespace) -> list[Mutant]:
    mutants = [*find(ROOT), *chosen(ROOT)]
    if options.only:
        mutants = [
            each for each in mutants if options.only in f"{each.path}:{each.line} {each.name}"
        ]
    if options.share:
        part = _commits() % options.share
        mutants = [each for each in mutants if each.share(options.share) == part]
        print(f"part {part} of {options.share}: {len(mutants)} mutants", flush=True)
    return mutants


def _place(mutant: Mutant) -> str:
    return f"{mutant.path}:{mutant.line}  {mutant.name}"


def _commits() -> int:
    told = subprocess.run(
        ["git", "rev-list", "--count", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return int(told.stdout)


def _try_all(mutants: Sequence[Mutant], home: Path, jobs: int) -> list[Verdict]:
    scratches = [Scratch(ROOT, home / str(number)) for number in range(max(jobs, 1))]
    print("measuring which tests run which lines", flush=True)
    selection = measure(scratches[0])
    waiting: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
    for mutant in mutants:
        waiting.put(mutant)
    verdicts: list[Verdict] = []
    started = time.monotonic()

    def work(scratch: Scratch) -> None:
        while True:
            try:
                mutant = waiting.get_nowait()
            except queue.Empty:
                return
            verdicts.append(_try(scratch, selection, mutant))
            _report(verdicts[-1], len(verdicts), len(mutants), time.monotonic() - started)

    workers = [threading.Thread(target=work, args=(scratch,)) for scratch in scratches]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(verdicts) == len(mutants), "a worker failed"
    return verdicts


def _try(scratch: Scratch, selection: Selection, mutant: Mutant) -> Verdict:
    started = time.monotonic()
    direct = selection.of(mutant)
    with scratch.mutated(mutant):
        caught_by = scratch.run([*PYTEST, *direct]).failed if direct else ""
        if not caught_by:
            rest = [f"--deselect={test}" for test in direct]
            caught_by = scratch.run([*PYTEST, *rest, *TESTS]).failed
    return Verdict(mutant, caught_by, time.monotonic() - started)


def _report(verdict: Verdict, done: int, total: int, elapsed_s: float) -> None:
    left_s = elapsed_s / done * (total - done)
    said = f"caught by {verdict.caught_by}" if verdict.caught_by else "SURVIVED"
    print(
        f"[{done}/{total}, {left_s / 60:.0f} min left] {verdict.mutant.name} "
        f"({verdict.time_s:.0f} s): {said}",
        flush=True,
    )


def _write_results(file: Path, verdicts: Sequence[Verdict]) -> None:
    survivors = sorted(each.mutant.name for each in verdicts if not each.caught_by)
    figures = {
        "tried": len(verdicts),
        "caught": len(verdicts) - len(survivors),
        "survivors": survivors,
        "time_s": round(sum(each.time_s for each in verdicts)),
    }
    file.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
