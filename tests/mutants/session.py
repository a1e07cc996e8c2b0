"""The engine's tests, collected once, and run one at a time in forked children.

Owns the pytest session and what a test's failure looks like. Refuses tests that cannot be
collected. Seeds are fixed, and hypothesis does not shrink what it finds: a mutant that is caught is
caught, and a survivor survives again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import hypothesis
import pytest

from tests.crash.explore import explore

TESTS: Final = (
    "tests/unit/mirror",
    "tests/unit/offline/test_inspect.py",
    "tests/unit/offline/test_verify.py",
    "tests/unit/offline/test_readonly.py",
    "tests/conformance",
    "tests/crash",
)
SEED: Final = "1"
STATES: Final = 1_000
EXPLORER: Final = "crash states"
"""The last stage, by the name it has among the tests."""
FIRST_SEED: Final = 1_000

ARGUMENTS: Final = (
    "-q", "-q", "--capture=no", "--no-header", "--tb=short", "-p", "no:cacheprovider",
    "-p", "no:faulthandler", "-W", "ignore::pytest.PytestAssertRewriteWarning", "--timeout=0",
    "-m", "not root and not long",
)  # fmt: skip


class Session:
    """The collected tests, by node id, in pytest's order."""

    def __init__(self, items: Sequence[pytest.Item], reports: _Reports) -> None:
        self._items = {item.nodeid: item for item in items}
        self._reports = reports
        self.by_file: dict[str, list[str]] = {}
        for test in self._items:
            self.by_file.setdefault(test.partition("::")[0], []).append(test)

    def __contains__(self, test: str) -> bool:
        return test in self._items or test == EXPLORER

    def run(self, tests: Sequence[str]) -> Iterator[tuple[str, str]]:
        """(test, why it failed, or nothing) for each in turn. The caller may stop at any."""
        for test, following in zip(tests, [*tests[1:], ""], strict=True):
            self._reports.failure = ""
            item = self._items[test]
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=self._items.get(following))
            yield test, self._reports.failure

    @staticmethod
    def explore(states: int = STATES) -> None:
        """Visit so many crash states. Raises whatever is wrong with one."""
        explore(FIRST_SEED, states=states)


class _Reports:
    """The pytest plugin: hands the collected tests over in place of running them."""

    def __init__(self, use: Callable[[Session], None]) -> None:
        self._use = use
        self.failure = ""
        self.used = False
        self.trouble: BaseException | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if not session.testsfailed:
            self.used = True
            try:
                self._use(Session(session.items, self))
            except BaseException as trouble:  # noqa: BLE001 - pytest would only print it
                self.trouble = trouble
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failure:
            self.failure = report.longreprtext.strip()[-300:] or "it failed"


def with_session(use: Callable[[Session], None]) -> None:
    """Collect the tests and call ``use`` with them. Raises what it raises, and ``SystemExit`` if
    they cannot be collected."""
    hypothesis.settings.register_profile(
        "mutants", max_examples=50, deadline=None, database=None, print_blob=False,
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
    )  # fmt: skip
    os.environ |= {"HYPOTHESIS_PROFILE": "mutants", "APPLIANCE_TEST_SEED": SEED}
    os.environ.pop("PYTEST_ADDOPTS", None)
    reports = _Reports(use)
    pytest.main([*ARGUMENTS, *TESTS], plugins=[reports])
    if reports.trouble:
        raise reports.trouble
    if not reports.used:
        raise SystemExit("cannot try mutants: the engine's tests cannot be collected, see above")
