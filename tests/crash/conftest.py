"""What the crash tests share: a directory in memory, and a machine in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.machine import Machine, scratch_directory


@pytest.fixture
def scratch() -> Iterator[Path]:
    directory = scratch_directory()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def machine(scratch: Path) -> Iterator[Machine]:
    made = Machine(7, scratch)
    yield made
    made.drop_store()
