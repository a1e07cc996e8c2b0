"""One mirror for all tests of the offline tools; who breaks it copies it first."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.offline.house import House, build


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return build(tmp_path_factory.mktemp("offline") / "home", seed=1)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    path = tmp_path / "scratch"
    path.mkdir()
    return path
