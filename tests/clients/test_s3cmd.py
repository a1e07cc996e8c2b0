"""s3cmd: put, get, ls, del, with its own configuration file."""

from __future__ import annotations

import random
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.clients.conftest import TREE_SEED, Runner
from tests.development import Service

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def s3cmd(service: Service, tmp_path: Path) -> Runner:
    """A runner with ``~/.s3cfg`` for the service."""
    address = urlsplit(service.endpoint).netloc
    (tmp_path / ".s3cfg").write_text(
        "[default]\n"
        f"access_key = {service.main.access_key}\n"
        f"secret_key = {service.main.secret_key}\n"
        f"host_base = {address}\nhost_bucket = {address}\n"
        f"bucket_location = {service.region}\nuse_https = True\n"
        f"ca_certs_file = {service.ca_file}\n"
    )
    return Runner(tmp_path, {})


@pytest.mark.parametrize("name", ["plain.bin", "two words+plus%41.txt", "日本語.txt"])
def test_s3cmd_round_trip(s3cmd: Runner, bucket: str, tmp_path: Path, name: str) -> None:
    data = random.Random(TREE_SEED).randbytes(40_000_000)
    (tmp_path / name).write_bytes(data)
    url = f"s3://{bucket}/folder/{name}"
    s3cmd("s3cmd", "put", tmp_path / name, url)
    assert name in s3cmd("s3cmd", "ls", f"s3://{bucket}/folder/")
    s3cmd("s3cmd", "get", url, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    s3cmd("s3cmd", "del", url)
    assert name not in s3cmd("s3cmd", "ls", f"s3://{bucket}/folder/")
