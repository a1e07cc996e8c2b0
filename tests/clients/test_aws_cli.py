"""aws-cli: sync of the whole tree up and down."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients import tree
from tests.clients.conftest import Runner

pytestmark = pytest.mark.timeout(1800)


def test_aws_sync(run: Runner, source: Path, bucket: str, copy: Path) -> None:
    run("aws", "s3", "sync", "--only-show-errors", source, f"s3://{bucket}/tree")
    again = run("aws", "s3", "sync", source, f"s3://{bucket}/tree")
    assert again.strip() == "", "a second sync must find nothing to do"
    run("aws", "s3", "sync", "--only-show-errors", f"s3://{bucket}/tree", copy)
    tree.assert_same(source, copy)


def test_aws_odd_keys(run: Runner, bucket: str, tmp_path: Path) -> None:
    """Keys that are no file names: double, leading and trailing slashes, dots."""
    keys = ("a//b", "/leading", "folder/", "x/../y", "./dot", "trailing//", "a b+c%2Fd")
    for number, key in enumerate(keys):
        body = tmp_path / "body"
        body.write_text(f"{number}")
        run("aws", "s3api", "put-object", "--bucket", bucket, "--key", key, "--body", body)
    for number, key in enumerate(keys):
        back = tmp_path / "back"
        run("aws", "s3api", "get-object", "--bucket", bucket, "--key", key, back)
        assert back.read_text() == f"{number}", key
    listed = run("aws", "s3api", "list-objects-v2", "--bucket", bucket, "--output", "text",
                 "--query", "Contents[].[Key]")  # fmt: skip
    assert sorted(listed.splitlines()) == sorted(keys)
