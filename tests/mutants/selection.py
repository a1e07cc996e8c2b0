"""Which tests to try on a mutant, and in which order: those that run its line, quickest first.

Owns one measured run of the unharmed engine's tests. It must pass: a mutant is only caught by a
test that passes without it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from coverage import CoverageData

from tests.mutants.scratch import PYTEST, Scratch
from tests.mutants.sites import ENGINE, Mutant

TESTS: Final = ("tests/unit/mirror", "tests/conformance", "tests/crash")
CONFIGURATION: Final = f"""
[run]
dynamic_context = test_function
source = {ENGINE}
data_file = .coverage
"""


@dataclass(frozen=True, slots=True)
class Selection:
    """``tests`` by (path, line), and how long each takes, in seconds."""

    tests: Mapping[tuple[str, int], frozenset[str]]
    time_s: Mapping[str, float]

    def of(self, mutant: Mutant) -> list[str]:
        """Node ids of the tests that run the mutant's line, quickest first."""
        found = self.tests.get((mutant.path, mutant.line), frozenset())
        return sorted(found & self.time_s.keys(), key=lambda test: (self.time_s[test], test))


def measure(scratch: Scratch) -> Selection:
    """Run the tests once. Raises ``AssertionError`` if one fails."""
    (scratch.home / ".coveragerc").write_text(CONFIGURATION)
    report = scratch.home / "report.xml"
    outcome = scratch.run(["coverage", "run", "-m", *PYTEST, f"--junitxml={report}", *TESTS])
    assert not outcome.failed, f"without any mutant, {outcome.failed} fails:\n{outcome.output}"
    data = CoverageData(str(scratch.home / ".coverage"))
    data.read()
    tests: dict[tuple[str, int], frozenset[str]] = {}
    for file in data.measured_files():
        path = Path(file).relative_to(scratch.home).as_posix()
        for line, contexts in data.contexts_by_lineno(file).items():
            tests[path, line] = frozenset(_node_id(each) for each in contexts if each)
    return Selection(tests, _times(report))


def _node_id(context: str) -> str:
    """``tests.crash.test_log.test_x`` as pytest names it: ``tests/crash/test_log.py::test_x``."""
    module, _, function = context.rpartition(".")
    return f"{module.replace('.', '/')}.py::{function}"


def _times(report: Path) -> dict[str, float]:
    times: dict[str, float] = defaultdict(float)
    for case in ElementTree.parse(report).iter("testcase"):
        function = case.attrib["name"].partition("[")[0]
        times[_node_id(f"{case.attrib['classname']}.{function}")] += float(case.attrib["time"])
    return times
