"""``python -m tests.mutants``: disable each safeguard of the engine in turn and see it noticed.

A mutant meets the tests that run its line, then crash states, and is caught by the first that
fails. One that survives is a missing test. ``.cache/mutants/results.json`` keeps what became of
each when it was last tried.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.crash.figures import publish
from tests.mutants.children import spread
from tests.mutants.chosen import chosen
from tests.mutants.measured import measure
from tests.mutants.session import Session, with_session
from tests.mutants.sites import Mutant, find
from tests.mutants.swap import Loaded, load_engine
from tests.mutants.trial import Bench, Verdict

ROOT: Final = Path(__file__).resolve().parents[2]
KEPT: Final = ROOT / ".cache" / "mutants"
RESULTS: Final = KEPT / "results.json"
SURVIVORS: Final = Path(__file__).with_name("survivors.txt")
"""Those known to survive, each a missing test. A share leaves them out, and says so."""
UNTRIED: Final = "# Never tried: their code is newer than the last run."


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if every mutant that was tried was caught."""
    options = _options(arguments)
    mutants = _picked(options)
    if options.list:
        for mutant in mutants:
            print(_told(mutant))
        return 0
    verdicts: list[Verdict] = []
    if mutants:
        with_session(lambda session: verdicts.extend(_try_all(session, mutants, options)))
    survivors = _tell_end(verdicts)
    if options.write_survivors:
        _write_survivors()
    if options.publish:
        _publish()
    return 1 if survivors else 0


def _write_survivors() -> None:
    """The list anew, from what became of every mutant when it was last tried."""
    results = _results()
    names = [mutant.name for mutant in (*find(ROOT), *chosen(ROOT))]
    survived = [name for name in names if name in results and not results[name].caught_by]
    untried = [name for name in names if name not in results]
    head = [line for line in SURVIVORS.read_text().splitlines() if line.startswith("#")][:4]
    lines = [*head, *survived]
    if untried:
        lines += ["", UNTRIED, *untried]
    SURVIVORS.write_text("\n".join(lines) + "\n")
    print(
        f"{len(survived)} survived, {len(untried)} were never tried: {SURVIVORS.relative_to(ROOT)}"
    )


def _publish() -> None:
    """What became of every mutant there is when it was last tried, in one run or in slices. Raises
    ``SystemExit`` if one was not."""
    results = _results()
    names = [mutant.name for mutant in (*find(ROOT), *chosen(ROOT))]
    untried = [name for name in names if name not in results]
    if untried:
        raise SystemExit(f"cannot publish: {len(untried)} mutants are untried; try --untried")
    publish("mutants", section([results[name] for name in names]))


def _tell_end(verdicts: Sequence[Verdict]) -> int:
    """How many survived that are not known to."""
    known = known_survivors()
    survivors = [each for each in verdicts if not each.caught_by]
    print(f"{len(verdicts) - len(survivors)} of {len(verdicts)} mutants caught")
    for each in survivors:
        if each.name in known:
            print(f"survived, as known  {each.place}  {each.name}")
    for each in verdicts:
        if each.name in known and each.caught_by:
            print(f"caught, take it off {SURVIVORS.name}: {each.name}")
    new = [each for each in survivors if each.name not in known]
    for each in new:
        print(
            f"SURVIVED  {each.place}  {each.name}\n"
            "          a test is missing that fails when this safeguard is disabled; again:\n"
            f"          .venv/bin/python -m tests.mutants --only {each.name}"
        )
    return len(new)


def known_survivors() -> set[str]:
    """The names in ``survivors.txt``."""
    lines = SURVIVORS.read_text().splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--list", action="store_true", help="name the mutants and stop")
    parser.add_argument(
        "--only", metavar="TEXT", action="append", help="those whose name or place contains it"
    )
    parser.add_argument(
        "--survivors", action="store_true", help="those that survived when last tried"
    )
    parser.add_argument("--untried", action="store_true", help="those that were never tried")
    parser.add_argument(
        "--share",
        type=int,
        metavar="N",
        help="a rotating N-th of all: which one follows the number of commits",
    )
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="how many at a time")
    parser.add_argument(
        "--quick",
        type=float,
        default=0,
        metavar="SECONDS",
        help="no crash states, and of the tests those that fit: survivors may be none",
    )
    parser.add_argument(
        "--write-survivors", action="store_true", help=f"write {SURVIVORS.name} anew at the end"
    )
    parser.add_argument("--publish", action="store_true", help="keep the figures in docs")
    return parser.parse_args(arguments)


def _picked(options: argparse.Namespace) -> list[Mutant]:
    mutants = [*find(ROOT), *chosen(ROOT)]
    if options.only:
        mutants = [each for each in mutants if any(text in _told(each) for text in options.only)]
    results = _results()
    if options.survivors or options.untried:
        mutants = [
            each
            for each in mutants
            if (options.untried and each.name not in results)
            or (options.survivors and each.name in results and not results[each.name].caught_by)
        ]
    if options.share:
        part = _commits() % options.share
        mutants = [each for each in mutants if each.share(options.share) == part]
        known = known_survivors()
        trying = [each for each in mutants if each.name not in known]
        print(
            f"part {part} of {options.share}: {len(trying)} mutants; {len(mutants) - len(trying)} "
            f"more are left out, for which a test is missing ({SURVIVORS.relative_to(ROOT)})",
            flush=True,
        )
        mutants = trying
    return mutants


def _told(mutant: Mutant) -> str:
    return f"{mutant.path}:{mutant.line}  {mutant.name}"


def _commits() -> int:
    told = subprocess.run(
        ["git", "rev-list", "--count", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return int(told.stdout)


def _results() -> dict[str, Verdict]:
    if not RESULTS.exists():
        return {}
    return {name: Verdict(**kept) for name, kept in json.loads(RESULTS.read_text()).items()}


def _try_all(
    session: Session, mutants: Sequence[Mutant], options: argparse.Namespace
) -> list[Verdict]:
    load_engine(ROOT)
    loaded = Loaded(ROOT)
    measured = measure(session, ROOT, KEPT / "measured", options.jobs)
    results = _results()
    caught = {
        name: verdict.caught_by for name, verdict in results.items() if verdict.caught_by in session
    }
    bench = Bench(session, loaded, measured, caught, quick_s=options.quick)
    tasks: list[Callable[[], dict[str, Any]]] = [
        partial(bench.try_one, mutant) for mutant in mutants
    ]
    began = time.monotonic()
    verdicts: list[Verdict] = []
    for _, told in spread(tasks, options.jobs):
        verdict = Verdict(**told)
        verdicts.append(verdict)
        _report(verdict, len(verdicts), len(mutants), time.monotonic() - began)
        _keep(verdict)
    return verdicts


def _keep(verdict: Verdict) -> None:
    """Beside what other runs keep meanwhile."""
    kept = {name: asdict(each) for name, each in {**_results(), verdict.name: verdict}.items()}
    unfinished = RESULTS.with_suffix(".new")
    unfinished.write_text(json.dumps(kept, indent=1))
    unfinished.rename(RESULTS)


def _report(verdict: Verdict, done: int, total: int, elapsed_s: float) -> None:
    left_s = elapsed_s / done * (total - done)
    said = f"caught by {verdict.caught_by}" if verdict.caught_by else "SURVIVED"
    how = " (hung)" if verdict.hung else ""
    print(
        f"[{done}/{total}, {left_s / 60:.0f} min left] {verdict.name} "
        f"({verdict.time_s:.1f} s, {verdict.tests} tests): {said}{how}",
        flush=True,
    )


def section(verdicts: Sequence[Verdict]) -> dict[str, object]:
    """For ``figures.publish``."""
    rules = Counter(rule_of(each.name) for each in verdicts)
    caught = [each for each in verdicts if each.caught_by]
    caught_rules = Counter(rule_of(each.name) for each in caught)
    stages = Counter(each.stage for each in caught)
    rows: dict[str, object] = {
        "mutants": len(verdicts),
        "caught": f"{len(caught):,} ({100 * len(caught) / len(verdicts):.1f} %)",
        **{
            f"rule *{rule}*": f"{caught_rules[rule]} of {count}"
            for rule, count in sorted(rules.items())
        },
        **{f"caught by: {stage}": count for stage, count in sorted(stages.items())},
        "of these by a test that hung or ended its process": sum(each.hung for each in caught),
        "minutes, all trials one after the other": round(sum(e.time_s for e in verdicts) / 60),
    }
    return {"title": "Mutants", "command": "make mutants", "rows": rows}


def rule_of(name: str) -> str:
    """The rule that made a mutant, by its name."""
    return "chosen by hand" if name.startswith("chosen:") else name.split(":")[1]


if __name__ == "__main__":
    sys.exit(main())
