"""rclone: path style as a generic provider, and virtual-host style with its AWS profile.

Names with a bucket in them resolve through a hosts file, as they do at a customer's; the file is
laid over the machine's in a mount namespace that ends with the command.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from tests.clients import tree
from tests.clients.conftest import Runner
from tests.development import Service

pytestmark = pytest.mark.timeout(1800)

ZONE: Final = "s3.localhost"
FAST: Final = ("--transfers", "8", "--checkers", "8")
EXACT: Final = ("--no-unicode-normalization",)
"""Names in both normal forms are different names to us; rclone would take them for one."""


def _variables(service: Service, provider: str, endpoint: str) -> Mapping[str, str]:
    """The remote ``box:``, and the authority to trust."""
    settings = {
        "TYPE": "s3",
        "PROVIDER": provider,
        "ENDPOINT": endpoint,
        "REGION": service.region,
        "LOCATION_CONSTRAINT": service.region,
        "ACCESS_KEY_ID": service.main.access_key,
        "SECRET_ACCESS_KEY": service.main.secret_key,
    }
    variables = {f"RCLONE_CONFIG_BOX_{name}": value for name, value in settings.items()}
    return variables | {"RCLONE_CA_CERT": str(service.ca_file)}


def _sync_and_compare(
    run: Runner, begin: tuple[str, ...], source: Path, bucket: str, copy: Path
) -> None:
    command = (*begin, "rclone")
    run(*command, "sync", *FAST, *EXACT, source, f"box:{bucket}/tree")
    run(*command, "check", "--download", *FAST, *EXACT, source, f"box:{bucket}/tree")
    run(*command, "sync", *FAST, *EXACT, f"box:{bucket}/tree", copy)
    tree.assert_same(source, copy)


def test_rclone_path_style(
    service: Service, source: Path, bucket: str, copy: Path, tmp_path: Path
) -> None:
    run = Runner(tmp_path, _variables(service, "Other", service.endpoint))
    _sync_and_compare(run, (), source, bucket, copy)


def test_rclone_virtual_host_style(
    service: Service, source: Path, bucket: str, copy: Path, tmp_path: Path
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(f"127.0.0.1 localhost {ZONE} {bucket}.{ZONE}\n")
    endpoint = f"https://{ZONE}:{urlsplit(service.endpoint).port}"
    run = Runner(tmp_path, _variables(service, "AWS", endpoint))
    script = 'mount --bind "$0" /etc/hosts && exec "$@"'
    begin = ("unshare", "--mount", "sh", "-c", script, str(hosts))
    _sync_and_compare(run, begin, source / "odd %names+", bucket, copy)
