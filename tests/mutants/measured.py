"""Which tests run which lines of the engine, and how long each takes: measured once, then kept.

Owns ``.cache/mutants/measured``, one file per test module, each good for exactly the code it was
measured with. Leaves out tests that fail twice without any mutant: they can catch nothing.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from coverage import Coverage

from tests.mutants.children import Tell, spread, watched
from tests.mutants.session import EXPLORER, TESTS, Session
from tests.mutants.sites import Mutant

TEST_LIMIT_S: Final = 300.0
"""For a test that was never measured."""
EXPLORER_LIMIT_S: Final = 1200.0
SLACK_S: Final = 20.0
SLACK: Final = 10
"""A mutant's tests may take so many times as long as measured, and ``SLACK_S``."""
FAILURES_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Measured:
    """``tests`` by (path, line), and how long each takes, in seconds."""

    tests: dict[tuple[str, int], set[str]]
    time_s: dict[str, float]

    def of(self, mutant: Mutant) -> set[str]:
        """The tests that run any line of the mutant."""
        return set().union(
            *(self.tests.get((mutant.path, line), ()) for line in mutant.lines),
        )

    def limit_s(self, test: str) -> float:
        """After which a test that does not end is said to hang."""
        return SLACK_S + SLACK * self.time_s[test]


def measure(session: Session, root: Path, kept: Path, jobs: int) -> Measured:
    """From what is kept, as far as it is of this code, else by running the tests. Raises
    ``SystemExit`` if more than a few fail."""
    kept.mkdir(parents=True, exist_ok=True)
    shared = _digest_of_the_rest(root)
    files = {
        file: kept / f"{Path(file).stem}-{_digest(shared, (root / file).read_bytes())}.json"
        for file in session.by_file
    }
    files[EXPLORER] = kept / f"explorer-{_digest(shared)}.json"
    for stale in set(kept.iterdir()) - set(files.values()):
        stale.unlink()
    new = {file: place for file, place in files.items() if not place.exists()}
    tasks: list[Callable[[], dict[str, Any]]] = [
        partial(_measure_file, session, root, file, place) for file, place in new.items()
    ]
    if new:
        print(f"measuring which lines the tests of {len(new)} modules run", flush=True)
    failed = [test for _, found in spread(tasks, jobs) for test in found["failed"]]
    for test in failed:
        print(f"left out, for it fails without any mutant: {test}", flush=True)
    if len(failed) > FAILURES_MAX:
        raise SystemExit("cannot try mutants: too many tests fail without any")
    measured = _read(place if place.exists() else _partial(place) for place in files.values())
    for place in files.values():
        _partial(place).unlink(missing_ok=True)
    return measured


def measure_only(session: Session, tests: dict[tuple[str, int], set[str]], jobs: int) -> Measured:
    """How long these take, of those that there are and that pass; which lines they run is given."""
    every = sorted({test for each in tests.values() for test in each if test in session})
    tasks: list[Callable[[], dict[str, Any]]] = [partial(_time, session, test) for test in every]
    time_s = dict(told["took"] for _, told in spread(tasks, jobs) if told["took"])
    return Measured({at: found & time_s.keys() for at, found in tests.items()}, time_s)


def _time(session: Session, test: str) -> dict[str, Any]:
    """``took`` is empty for a test that fails."""
    if test == EXPLORER:
        return {"took": [EXPLORER, EXPLORER_LIMIT_S / SLACK]}
    began = time.monotonic()
    outcome = watched(partial(_run_alone, session, test))
    bad = outcome.first("failed") or outcome.lost_in or outcome.raised
    return {"took": [] if bad else [test, time.monotonic() - began]}


def _run_alone(session: Session, test: str, tell: Tell) -> None:
    tell(step=test, limit_s=TEST_LIMIT_S)
    for _, why in session.run([test]):
        if why:
            tell(failed=test)


def _partial(place: Path) -> Path:
    """For what lacks a test that failed: good for this run alone."""
    return place.with_suffix(".partial")


def _digest_of_the_rest(root: Path) -> bytes:
    """Of all that tests are made of but the modules that only hold tests."""
    every = [*(root / "appliance").rglob("*.py"), *(root / "tests").glob("*.py")]
    for directory in {test.split("/")[1] for test in TESTS}:
        every += (root / "tests" / directory).rglob("*.py")
    digest = hashlib.sha256()
    for file in sorted(every):
        if not file.name.startswith("test_"):
            digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return digest.digest()


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def _measure_file(session: Session, root: Path, file: str, place: Path) -> dict[str, Any]:
    """Which tests failed, twice."""
    if file == EXPLORER:
        outcome = watched(_explore)
    else:
        outcome = watched(partial(_cover, session, root, session.by_file[file]))
    if outcome.raised or outcome.lost_in:
        why = outcome.raised or f"{outcome.lost_in} hangs, or ends the process"
        raise AssertionError(f"cannot measure {file}: {why}")
    failed = [each["failed"] for each in outcome.told if "failed" in each]
    unfinished = place.with_suffix(".new")
    unfinished.write_text(json.dumps([each for each in outcome.told if "test" in each]))
    unfinished.rename(_partial(place) if failed else place)
    return {"failed": failed}


def _explore(tell: Tell) -> None:
    tell(step=EXPLORER, limit_s=EXPLORER_LIMIT_S)
    began = time.monotonic()
    try:
        Session.explore()
    except Exception as error:  # noqa: BLE001 - whatever it is, they can catch nothing then
        tell(failed=f"{EXPLORER}: {error}")
        return
    tell(test=EXPLORER, time_s=time.monotonic() - began, lines={})


def _cover(session: Session, root: Path, tests: list[str], tell: Tell) -> None:
    coverage = Coverage(data_file=None, include=[f"{root}/appliance/*"], config_file=False)
    coverage.set_option("run:disable_warnings", ["no-data-collected"])
    coverage.start()
    coverage.switch_context(tests[0])
    tell(step=tests[0], limit_s=TEST_LIMIT_S)
    time_s: dict[str, float] = {}
    began = time.monotonic()
    for (test, why), following in zip(session.run(tests), [*tests[1:], "the end"], strict=True):
        if why and (again := next(iter(session.run([test])))[1]):
            tell(failed=f"{test}: {again}")
        else:
            time_s[test] = time.monotonic() - began
        coverage.switch_context(following)
        tell(step=following, limit_s=TEST_LIMIT_S)
        began = time.monotonic()
    coverage.stop()
    data = coverage.get_data()
    lines: dict[str, dict[str, list[int]]] = {test: {} for test in tests}
    for path in data.measured_files():
        short = Path(path).relative_to(root).as_posix()
        for line, contexts in data.contexts_by_lineno(path).items():
            for test in contexts:
                if test in lines:
                    lines[test].setdefault(short, []).append(line)
    for test, took_s in time_s.items():
        tell(test=test, time_s=took_s, lines=lines[test])


def _read(files: Any) -> Measured:
    tests: dict[tuple[str, int], set[str]] = defaultdict(set)
    time_s: dict[str, float] = {}
    for file in files:
        for told in json.loads(file.read_text()):
            time_s[told["test"]] = told["time_s"]
            for path, lines in told["lines"].items():
                for line in lines:
                    tests[path, line].add(told["test"])
    return Measured(dict(tests), time_s)
