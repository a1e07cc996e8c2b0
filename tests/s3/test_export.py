"""One drive, emptied into another endpoint: the same objects under the same names."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.core.errors import Unreachable
from appliance.daemon.offline_export import export
from appliance.system import remote_s3
from tests.s3.endpoint import Endpoint
from tests.unit.offline.house import House, build, digest, quiet


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return build(tmp_path_factory.mktemp("house") / "home", seed=5)


def _export(
    house: House, folder: Path, endpoint: Endpoint, to: str, **environment: str
) -> dict[str, Any]:
    """What the tool's last word is, a result or an error."""
    master, _ = house.keys(folder)
    account = endpoint.accounts["main"]
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "appliance.daemon", "offline", "export"),
            *(str(house.drives[0]), "--to", to, "--master-key", str(master)),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={
            "AWS_ACCESS_KEY_ID": account.access_key,
            "AWS_SECRET_ACCESS_KEY": account.secret_key,
            "AWS_REGION": endpoint.region,
            "AWS_CA_BUNDLE": str(endpoint.authority),
            **environment,
        },
    )
    words: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return words


def _stored(client: Any, bucket: str, prefix: str = "") -> dict[str, bytes]:
    found = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for each in page.get("Contents", []):
            body = client.get_object(Bucket=bucket, Key=each["Key"])["Body"].read()
            found[each["Key"].removeprefix(prefix)] = body
    return found


def test_a_drive_becomes_buckets_of_the_same_names(
    house: House, tmp_path: Path, endpoint: Endpoint, client_of: Callable[..., Any]
) -> None:
    before = digest(house.drives[0])
    result = _export(house, tmp_path, endpoint, endpoint.endpoint)["result"]
    assert digest(house.drives[0]) == before
    assert (result["copied"], result["unreadable_count"]) == (len(house.contents), 0)
    client = client_of()
    for bucket in {name for name, _ in house.contents}:
        expected = {key: data for (name, key), data in house.contents.items() if name == bucket}
        assert _stored(client, bucket) == expected
        odd = client.head_object(Bucket=bucket, Key="日本語/ファイル")
        assert odd["Metadata"] == house.metadata[bucket, "日本語/ファイル"]
        assert (odd["ContentType"], odd["CacheControl"]) == ("text/x-odd", "no-cache")
        tags = client.get_object_tagging(Bucket=bucket, Key="a")["TagSet"]
        assert tags == [{"Key": "tag", "Value": "1"}]
    again = _export(house, tmp_path, endpoint, endpoint.endpoint)["result"]
    # Two whose parts are too small for endpoints have another ETag there: they are sent again.
    assert (again["copied"], again["present"]) == (2, len(house.contents) - 2)


def test_everything_goes_below_a_prefix_of_one_bucket(
    house: House, tmp_path: Path, endpoint: Endpoint, client_of: Callable[..., Any]
) -> None:
    client = client_of()
    client.create_bucket(Bucket="rescued-things")
    to = f"{endpoint.endpoint}/rescued-things/from/drive"
    result = _export(house, tmp_path, endpoint, to)["result"]
    # Behind the prefix the longest key is longer than keys may be; it is named, the rest is there.
    too_long = {each["key"] for each in result["unreadable"]}
    assert too_long == {"x" * 1024}
    for bucket in {name for name, _ in house.contents}:
        expected = {
            key: data
            for (name, key), data in house.contents.items()
            if name == bucket and key not in too_long
        }
        assert _stored(client, "rescued-things", f"from/drive/{bucket}/") == expected


def test_refusals_are_told_in_the_endpoints_words(
    house: House, tmp_path: Path, endpoint: Endpoint
) -> None:
    wrong = _export(house, tmp_path, endpoint, endpoint.endpoint, AWS_SECRET_ACCESS_KEY="no" * 20)
    assert wrong["error"]["kind"] == "Refused"
    assert "refused HEAD" in wrong["error"]["text"]
    absent = _export(house, tmp_path, endpoint, f"{endpoint.endpoint}/never-made-bucket/x")
    assert "no such bucket" in absent["error"]["text"]
    nobody = _export(house, tmp_path, endpoint, endpoint.endpoint, AWS_ACCESS_KEY_ID="")
    assert nobody["error"]["kind"] == "InvalidInput"


def test_an_endpoint_that_is_away_ends_it(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_s3, "RETRY_S", (0.0, 0.0, 0.0))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    master, _ = house.keys(tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(Unreachable, match="tried 4 times"):
        quiet(
            lambda telling: export(
                house.drives[0],
                "http://127.0.0.1:9",
                scratch,
                telling,
                master_key=master,
                recovery_key=None,
            )
        )


def test_parts_as_large_as_endpoints_take_keep_the_etag(
    tmp_path: Path, endpoint: Endpoint, client_of: Callable[..., Any]
) -> None:
    house = build(tmp_path / "home", seed=6, part_bytes=5 * 1024 * 1024)
    result = _export(house, tmp_path, endpoint, endpoint.endpoint)["result"]
    assert result["unreadable_count"] == 0
    client = client_of()
    for bucket, key in house.contents:
        if key == "in/parts":
            copy = client.get_object(Bucket=bucket, Key=key, PartNumber=1)
            assert copy["PartsCount"] == 3
            whole = client.get_object(Bucket=bucket, Key=key)
            assert whole["Body"].read() == house.contents[bucket, key]
    again = _export(house, tmp_path, endpoint, endpoint.endpoint)["result"]
    assert (again["copied"], again["present"]) == (0, len(house.contents))


def test_what_cannot_be_read_is_not_stored(
    house: House, tmp_path: Path, endpoint: Endpoint, client_of: Callable[..., Any]
) -> None:
    broken = house.copied(tmp_path / "broken")
    for blob in (broken.drives[0] / "blob").rglob("*"):
        if blob.is_file() and blob.stat().st_size > 1_000_000:
            data = bytearray(blob.read_bytes())
            data[-10] ^= 1
            blob.chmod(0o640)
            blob.write_bytes(data)
    client = client_of()
    client.create_bucket(Bucket="rescued-parts")
    to = f"{endpoint.endpoint}/rescued-parts"
    result = _export(broken, tmp_path, endpoint, to)["result"]
    named = {each["key"]: each["reason"] for each in result["unreadable"]}
    assert named.keys() == {"large", "x" * 1024}
    assert "no drive holds a valid copy" in named["large"]
    listed = client.list_objects_v2(Bucket="rescued-parts")["Contents"]
    assert not any(each["Key"].endswith("/large") for each in listed)
