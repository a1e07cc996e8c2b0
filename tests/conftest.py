"""Rules every test run keeps: seeds are printed, nothing is skipped silently.

Owns the hypothesis profiles, the run's seed, and what happens to tests that need root or programs:
without root they are left out with a printed line; as root a missing program is a failure.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
from collections.abc import Generator
from zlib import crc32

import hypothesis
import pytest

from tests.tidy.sources import size_summary

ROOT_FOLDERS = ("tests/clients/", "tests/system/")
SEED_VARIABLE = "APPLIANCE_TEST_SEED"
LEFT_OUT = pytest.StashKey[int]()

hypothesis.settings.register_profile("dev", max_examples=50, deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", max_examples=300, deadline=None, print_blob=True)


def _profile() -> str:
    return os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev")


def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed once per run; worker processes inherit it. A run that is told to end gives
    back what it holds, like one that is interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    seed = os.environ.setdefault(SEED_VARIABLE, str(secrets.randbits(32)))
    config.addinivalue_line("markers", "needs(*programs): fails when one of them is not installed")
    hypothesis.settings.load_profile(_profile())
    if getattr(config.option, "hypothesis_seed", None) is None:
        config.option.hypothesis_seed = seed


def pytest_report_header(config: pytest.Config) -> list[str]:
    """How to repeat this run, and how large the code is."""
    return [
        f"seed: {SEED_VARIABLE}={os.environ[SEED_VARIABLE]} (hypothesis profile {_profile()})",
        size_summary(),
    ]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs root by its folder, and leave it out, visibly, where there is no root."""
    for item in items:
        if item.nodeid.startswith(ROOT_FOLDERS):
            item.add_marker(pytest.mark.root)
    if os.geteuid() == 0:
        return
    left_out = [item for item in items if item.get_closest_marker("root")]
    if left_out:
        items[:] = [item for item in items if not item.get_closest_marker("root")]
        config.hook.pytest_deselected(items=left_out)
        files = sorted({item.nodeid.split("::")[0] for item in left_out})
        config.stash[LEFT_OUT] = len(left_out)
        print(f"\nleft out without root: {len(left_out)} tests of {', '.join(files)}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Where every test asked for needs root, leaving them all out is no error without it."""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and LEFT_OUT in session.config.stash:
        session.exitstatus = pytest.ExitCode.OK


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A program that a test needs is a prerequisite, so its absence is a failure."""
    for marker in item.iter_markers("needs"):
        missing = [program for program in marker.args if not find_program(program)]
        if missing:
            pytest.fail(f"cannot run: {', '.join(missing)} missing; 'make setup-test' installs it")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skip would be a hole in the proof that nobody sees: it counts as a failure."""
    report = yield
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped; a missing prerequisite is a failure"
    return report


def find_program(name: str) -> str | None:
    """The program's path; administrators' folders are searched too."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """This test's own seed: follows from the run's seed and the test's name. Printed, so that a
    failure shows it."""
    value = int(os.environ[SEED_VARIABLE]) ^ crc32(request.node.nodeid.encode())
    print(f"seed {value} (run with {SEED_VARIABLE}={os.environ[SEED_VARIABLE]})")
    return value


@pytest.fixture
def chance(seed: int) -> random.Random:
    """Repeatable randomness for one test."""
    return random.Random(seed)
