"""rclone, as a generic provider and with its AWS profile."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients import tree
from tests.clients.conftest import Runner
from tests.development import Service

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(params=["Other", "AWS"])
def rclone(request: pytest.FixtureRequest, service: Service, tmp_path: Path) -> Runner:
    """A runner whose remote ``box:`` is the service."""
    settings = {
        "TYPE": "s3",
        "PROVIDER": str(request.param),
        "ENDPOINT": service.endpoint,
        "REGION": service.region,
        "LOCATION_CONSTRAINT": service.region,
        "ACCESS_KEY_ID": service.main.access_key,
        "SECRET_ACCESS_KEY": service.main.secret_key,
        "FORCE_PATH_STYLE": "true",
    }
    extra = {f"RCLONE_CONFIG_BOX_{name}": value for name, value in settings.items()}
    extra["RCLONE_CA_CERT"] = str(service.ca_file)
    return Runner(tmp_path, extra)


def test_rclone_sync(rclone: Runner, source: Path, bucket: str, copy: Path) -> None:
    fast = ("--transfers", "8", "--checkers", "8")
    rclone("rclone", "sync", *fast, source, f"box:{bucket}/tree")
    rclone("rclone", "check", "--download", *fast, source, f"box:{bucket}/tree")
    rclone("rclone", "sync", *fast, f"box:{bucket}/tree", copy)
    tree.assert_same(source, copy)
