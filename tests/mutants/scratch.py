"""A copy of the project in which one file at a time is mutated, and the tests are run.

Owns the copy. Invariant: between two runs it equals the original.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutants.sites import Mutant

COPIED: Final = ("appliance", "tests", "docs", "pyproject.toml")
TEST_TIMEOUT_S: Final = 60
RUN_TIMEOUT_S: Final = 600
PYTEST: Final = (
    "pytest", "-q", "-x", "--no-header", "--tb=no", "-p", "no:cacheprovider",
    f"--timeout={TEST_TIMEOUT_S}", "-m", "not root and not long",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: ``failed`` names what noticed, empty if everything passed."""

    failed: str
    output: str


class Scratch:
    """One copy; one run at a time."""

    def __init__(self, root: Path, home: Path) -> None:
        self._root = root
        self.home = home
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        for name in COPIED:
            source = root / name
            if source.is_dir():
                shutil.copytree(source, home / name, ignore=ignored)
            else:
                shutil.copy2(source, home / name)
        (home / ".venv").symlink_to(root / ".venv")
        self._edits = 0

    @contextmanager
    def mutated(self, mutant: Mutant) -> Iterator[None]:
        """The copy has this mutant while the block runs."""
        file = self.home / mutant.path
        original = file.read_bytes()
        self._write(file, mutant.apply(original))
        try:
            yield
        finally:
            self._write(file, original)

    def _write(self, file: Path, content: bytes) -> None:
        """Kept byte code is told by the source's size and whole second: give each edit its own."""
        file.write_bytes(content)
        self._edits += 1
        os.utime(file, (self._edits, self._edits))

    def run(self, arguments: Sequence[str]) -> Outcome:
        """Run a module with arguments, at most ``RUN_TIMEOUT_S``; see ``Outcome``."""
        environment = {**os.environ, "PYTHONPATH": str(self.home), "HYPOTHESIS_DERANDOMIZE": "1"}
        environment.pop("PYTEST_ADDOPTS", None)
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=self.home,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=RUN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            output = "it did not end in time"
        finally:
            _end(process)
        if process.returncode == 0:
            return Outcome("", output)
        return Outcome(_first_failure(output), output)


def _end(process: subprocess.Popen[str]) -> None:
    """A mutant may leave processes of its own behind."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _first_failure(output: str) -> str:
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    if found:
        return found.group(1)
    found = re.search(r"^\S*(tests/\S+\.py)", output, re.MULTILINE)
    return f"{found.group(1)} (hung or crashed)" if found else "the run itself"
