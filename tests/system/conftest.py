"""Fixtures of the system tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.drives import udev_daemon


@pytest.fixture(scope="session")
def udev() -> Iterator[None]:
    """A running systemd-udevd with the appliance's rules."""
    with udev_daemon():
        yield
