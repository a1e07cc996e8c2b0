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
from tests.mutants import known
from tests.mutants.children import spread
from tests.mutants.chosen import chosen
from tests.mutants.measured import measure, measure_only
from tests.mutants.session import Session, with_session
from tests.mutants.sites import Mutant, find
from tests.mutants.swap import Loaded, load_engine
from tests.mutants.trial import Bench, Verdict

ROOT: Final = Path(__file__).resolve().parents[2]
KEPT: Final = ROOT / ".cache" / "mutants"
RESULTS: Final = KEPT / "results.json"


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
    if options.write:
        known.write([mutant.name for mutant in _all()], _results())
    if options.publish:
        _publish()
    return 1 if survivors else 0


def _publish() -> None:
    """What became of every mutant there is when it was last tried, in one run or in slices. Raises
    ``SystemExit`` if one was not."""
    results = _results()
    names = [mutant.name for mutant in _all()]
    untried = [name for name in names if name not in results]
    if untried:
        raise SystemExit(f"cannot publish: {len(untried)} mutants are untried; try --untried")
    publish("mutants", section([results[name] for name in names]))


def _tell_end(verdicts: Sequence[Verdict]) -> int:
    """How many survived that are not known to."""
    listed = known.survivors()
    survivors = [each for each in verdicts if not each.caught_by]
    print(f"{len(verdicts) - len(survivors)} of {len(verdicts)} mutants caught")
    for each in survivors:
        if each.name in listed:
            print(f"survived, as known  {each.place}  {each.name}")
    for each in verdicts:
        if each.name in listed and each.caught_by:
            print(f"caught, take it off {known.SURVIVORS.name}: {each.name}")
    new = [each for each in survivors if each.name not in listed]
    for each in new:
        print(
            f"SURVIVED  {each.place}  {each.name}\n"
            "          a test is missing that fails when this safeguard is disabled; again:\n"
            f"          .venv/bin/python -m tests.mutants --only {each.name}"
        )
    return len(new)


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
    parser.add_argument("--part", type=int, metavar="K", help="this one, of the shares")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="how many at a time")
    parser.add_argument(
        "--quick",
        type=float,
        default=0,
        metavar="SECONDS",
        help="no crash states, and of the tests those that fit: survivors may be none",
    )
    parser.add_argument(
        "--write", action="store_true", help="write survivors.txt and caught.txt anew at the end"
    )
    parser.add_argument("--publish", action="store_true", help="keep the figures in docs")
    return parser.parse_args(arguments)


def _all() -> list[Mutant]:
    return [*find(ROOT), *chosen(ROOT)]


def _picked(options: argparse.Namespace) -> list[Mutant]:
    mutants = _all()
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
        part = _commits() % options.share if options.part is None else options.part
        mutants = _known_ones([m for m in mutants if m.share(options.share) == part], part)
    return mutants


def _known_ones(mutants: Sequence[Mutant], part: int) -> list[Mutant]:
    """Those that a test is known to catch: a share must not fail for what somebody else's change
    brought, but say what it leaves out."""
    survivors, catchers = known.survivors(), known.catchers()
    trying = [each for each in mutants if each.name in catchers]
    listed = sum(each.name in survivors for each in mutants)
    print(
        f"part {part}: {len(trying)} mutants; left out are {listed} for which a test is missing "
        f"({known.SURVIVORS.relative_to(ROOT)}) and {len(mutants) - len(trying) - listed} to "
        "be tried by the next run of all",
        flush=True,
    )
    return trying


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
    verdicts: list[Verdict] = []
    if options.share:
        measured = measure_only(session, known.tests_of(mutants), options.jobs)
        bench = Bench(session, loaded, measured, _caught(session), explore=False)
        verdicts = [each for each in _try_each(bench, mutants, options.jobs) if each.caught_by]
        caught = {each.name for each in verdicts}
        mutants = [each for each in mutants if each.name not in caught]
    if mutants:
        measured = measure(session, ROOT, KEPT / "measured", options.jobs)
        bench = Bench(
            session, loaded, measured, _caught(session),
            explore=not options.quick, quick_s=options.quick,
        )  # fmt: skip
        verdicts += _try_each(bench, mutants, options.jobs)
    return verdicts


def _caught(session: Session) -> dict[str, str]:
    """Mutant → test, as last known, of tests that there still are."""
    last = {name: verdict.caught_by for name, verdict in _results().items() if verdict.caught_by}
    return {name: test for name, test in {**known.catchers(), **last}.items() if test in session}


def _try_each(bench: Bench, mutants: Sequence[Mutant], jobs: int) -> list[Verdict]:
    tasks: list[Callable[[], dict[str, Any]]] = [
        partial(bench.try_one, mutant) for mutant in mutants
    ]
    began = time.monotonic()
    verdicts: list[Verdict] = []
    for _, told in spread(tasks, jobs):
        verdict = Verdict(**told)
        verdicts.append(verdict)
        _report(verdict, len(verdicts), len(mutants), time.monotonic() - began)
        _keep(verdict)
    return verdicts


def _keep(verdict: Verdict) -> None:
    """Beside what other runs keep meanwhile."""
    kept = {name: asdict(each) for name, each in {**_results(), verdict.name: verdict}.items()}
    KEPT.mkdir(parents=True, exist_ok=True)
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
