"""One service and one tree for all client tests; each client works in a bucket of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import boto3
import pytest

from tests.clients import tree
from tests.development import PROJECT, Service, development_service

TREE_SEED: Final = 20260401
COMMAND_TIMEOUT_S: Final = 1500


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with room for several copies of the tree; removed at the end."""
    home = tmp_path_factory.mktemp("clients")
    yield home
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def service(workplace: Path) -> Iterator[Service]:
    """The whole service in development mode on two directories."""
    with development_service(workplace / "service") as running:
        yield running


@pytest.fixture(scope="session")
def source(workplace: Path) -> Path:
    """The tree to be stored; tests must not change it."""
    root = workplace / "tree"
    root.mkdir()
    print(f"tree seed {TREE_SEED}")
    tree.build(root, TREE_SEED)
    return root


@pytest.fixture
def copy(workplace: Path) -> Iterator[Path]:
    """An empty directory to restore into."""
    target = workplace / "restored"
    target.mkdir()
    yield target
    shutil.rmtree(target)


@pytest.fixture
def bucket(service: Service, request: pytest.FixtureRequest) -> Iterator[str]:
    """A bucket named after the test; emptied and deleted at the end, through the S3 API."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:60].strip("-")
    s3 = boto3.resource(
        "s3",
        endpoint_url=service.endpoint,
        region_name=service.region,
        verify=str(service.ca_file),
        aws_access_key_id=service.main.access_key,
        aws_secret_access_key=service.main.secret_key,
    )
    made = s3.create_bucket(
        Bucket=name, CreateBucketConfiguration={"LocationConstraint": service.region}
    )
    yield name
    made.objects.all().delete()
    made.delete()


class Runner:
    """Runs client programs with a small environment and a home directory of their own."""

    def __init__(self, home: Path, variables: Mapping[str, str]) -> None:
        self.environment = {
            "PATH": f"{PROJECT / '.venv/bin'}:{os.environ['PATH']}",
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
            **variables,
        }

    def __call__(self, *command: str | Path, cwd: Path | None = None) -> str:
        """Output of a command that must succeed."""
        done = subprocess.run(
            [str(part) for part in command],
            env=self.environment,
            cwd=cwd,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        output = (done.stdout + done.stderr).decode(errors="replace")
        assert done.returncode == 0, f"{command[0]} failed:\n{output[-3000:]}"
        return output


@pytest.fixture
def run(service: Service, tmp_path: Path) -> Runner:
    """Runs a client program that takes the service's credentials from AWS's variables."""
    return Runner(tmp_path, service.aws_environment())
