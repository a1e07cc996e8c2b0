"""restic: two backups of a tree that changes between them, verified and restored."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.clients import tree
from tests.clients.conftest import TREE_SEED, Runner
from tests.development import Service

pytestmark = pytest.mark.timeout(1800)


def test_restic_backup(
    service: Service, source: Path, bucket: str, copy: Path, tmp_path: Path
) -> None:
    extra = {
        "RESTIC_REPOSITORY": f"s3:{service.endpoint}/{bucket}/repository",
        "RESTIC_PASSWORD": "correct horse",
        "RESTIC_CACHE_DIR": str(tmp_path / "cache"),
    }
    run = Runner(tmp_path, service.aws_environment() | extra)
    ca = ("--cacert", str(service.ca_file))
    living = tmp_path / "living"
    shutil.copytree(source, living, copy_function=shutil.copy)
    run("restic", *ca, "init")
    run("restic", *ca, "backup", "--quiet", ".", cwd=living)
    tree.change(living, TREE_SEED + 1)
    run("restic", *ca, "backup", "--quiet", ".", cwd=living)
    assert "no errors were found" in run("restic", *ca, "check", "--read-data")
    run("restic", *ca, "restore", "--quiet", "latest", "--target", copy)
    tree.assert_same(living, copy)
