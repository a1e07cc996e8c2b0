"""boto3's transfer manager: multipart up and down, in parallel."""

from __future__ import annotations

from pathlib import Path

import pytest
from boto3.s3.transfer import TransferConfig

from tests.clients import tree
from tests.development import Service

pytestmark = pytest.mark.timeout(900)


def test_boto3_transfer_manager(service: Service, source: Path, bucket: str, copy: Path) -> None:
    client = service.client()
    config = TransferConfig(
        multipart_threshold=5 * 1024 * 1024, multipart_chunksize=5 * 1024 * 1024, max_concurrency=8
    )
    large = [path for path in tree.files(source) if path.stat().st_size > 5 * 1024 * 1024]
    assert large
    for path in large:
        key = f"up/{path.name}"
        client.upload_file(str(path), bucket, key, Config=config)
        head = client.head_object(Bucket=bucket, Key=key)
        assert head["ContentLength"] == path.stat().st_size
        assert "-" in head["ETag"]
        client.download_file(bucket, key, str(copy / path.name), Config=config)
        assert (copy / path.name).read_bytes() == path.read_bytes()
