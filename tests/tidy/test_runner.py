"""The test run itself keeps its rules: a hole in the proof is a failure that everyone sees."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import SEED_VARIABLE
from tests.tidy.sources import ROOT


def _run(directory: Path, test: str) -> tuple[int, str]:
    """Run one test text under the project's conftest; exit code and output."""
    (directory / "test_sample.py").write_text(test)
    plugins = ("-p", "tests.conftest", "-p", "no:cacheprovider")
    settings = ("--rootdir", str(directory), "-c", str(ROOT / "pyproject.toml"))
    apart = ("--basetemp", str(directory / "temporary"))
    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, *settings, *apart, str(directory)],
        cwd=ROOT,
        env=os.environ | {SEED_VARIABLE: "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return outcome.returncode, outcome.stdout + outcome.stderr


HOLES = """
import unittest, warnings
import pytest

def test_skips():
    raise unittest.SkipTest("no reason is good enough")

@pytest.mark.needs("no-such-program")
def test_needs_what_is_missing():
    pass

def test_warns():
    warnings.warn("old")
"""


def test_skips_missing_programs_and_warnings_are_failures(tmp_path: Path) -> None:
    code, output = _run(tmp_path, HOLES)
    assert code == 1, output
    assert "2 failed, 1 error" in output  # what is missing fails in set-up
    assert "was skipped" in output
    assert "no-such-program missing" in output


CHANCE = """
import pytest

@pytest.mark.parametrize("turn", range(2))
def test_draws(chance, turn):
    print("drew", chance.random())
    assert False
"""


def test_the_seed_is_printed_and_repeats_a_run(tmp_path: Path) -> None:
    outputs = [_run(tmp_path, CHANCE)[1] for _ in range(2)]
    assert f"{SEED_VARIABLE}=1" in outputs[0]
    drawn, again = (
        [line for line in output.splitlines() if line.startswith("drew ")] for output in outputs
    )
    assert drawn == again
    assert len(set(drawn)) == 2
