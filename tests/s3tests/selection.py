"""A pytest plugin for the suite's own process: keeps the listed tests and writes every outcome.

Loaded with ``-p selection``. ``S3TESTS_ONLY`` names a file of test names to keep (all if unset);
``S3TESTS_OUTCOMES`` names the file that receives ``outcome name`` lines.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_outcomes: dict[str, str] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what is not listed; a listed test that the suite lacks is a usage error."""
    listed = os.environ.get("S3TESTS_ONLY")
    if not listed:
        return
    names = {line for line in Path(listed).read_text().split() if line}
    missing = names - {item.name for item in items}
    if missing:
        raise pytest.UsageError(f"not in the suite: {', '.join(sorted(missing))}")
    config.hook.pytest_deselected(items=[item for item in items if item.name not in names])
    items[:] = [item for item in items if item.name in names]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A test passed only if set-up, call and teardown did; a skip is not a pass."""
    name = report.nodeid.rsplit("::", 1)[-1]
    before = _outcomes.get(name)
    if report.outcome != "passed":
        _outcomes[name] = report.outcome
    elif before is None:
        _outcomes[name] = "passed"


def pytest_sessionfinish() -> None:
    """Write what was seen. Workers of a parallel run report to the first process only."""
    target = os.environ.get("S3TESTS_OUTCOMES")
    if target and "PYTEST_XDIST_WORKER" not in os.environ:
        lines = (f"{outcome} {name}\n" for name, outcome in sorted(_outcomes.items()))
        Path(target).write_text("".join(lines))
