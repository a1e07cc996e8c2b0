"""Runs the suite once per engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.rigs import OPENERS, Rig


@pytest.fixture(scope="session", params=sorted(OPENERS))
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    name: str = request.param
    opened = Rig(OPENERS[name], tmp_path_factory.mktemp(name))
    yield opened
    opened.close()
