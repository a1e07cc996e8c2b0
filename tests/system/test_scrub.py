"""A scrub of the whole service: told by the command, done by the store, seen by the operator."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.development import PROJECT, Service, development_service
from tests.system.drives import until

DEADLINE_S = 60.0


def _appliance(service: Service, *arguments: str) -> Any:
    """The command with ``--json``."""
    socket = service.log.parent / "state/run/admin.sock"
    command = [
        str(PROJECT / ".venv/bin/appliance"), "--socket", str(socket), *arguments, "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _blob_files(home: Path) -> list[Path]:
    """Of both drives, sorted by drive."""
    return sorted(path for path in home.glob("state/**/blob/*/*") if path.is_file())


@pytest.mark.long
def test_a_blob_that_rots_on_one_drive_is_found_and_repaired(tmp_path: Path) -> None:
    with development_service(tmp_path) as service:
        client, bucket = service.client(), service.main.bucket
        body = os.urandom(3_000_000)
        client.put_object(Bucket=bucket, Key="large", Body=body)
        client.put_object(Bucket=bucket, Key="small", Body=body[:1000])
        ours, theirs = _blob_files(tmp_path)
        assert ours.name == theirs.name
        good = ours.read_bytes()
        ours.chmod(0o640)
        with ours.open("r+b") as file:
            file.seek(1_000_000)
            file.write(bytes(100))
        assert ours.read_bytes() != good
        report = _appliance(service, "mirror", "scrub", "--wait")
        assert report["current"] is None
        last = report["last"]
        assert last["state"] == "finished"
        assert last["index"] == "proven equal to the log"
        assert sorted(drive["bad_blobs"] for drive in last["drives"]) == [0, 1]
        assert sum(drive["repaired"] for drive in last["drives"]) == 1
        assert sum(drive["unrepairable"] for drive in last["drives"]) == 0
        assert ours.read_bytes() == theirs.read_bytes() == good
        (mirror,) = _appliance(service, "mirror", "status")
        assert mirror["scrub"]["last"] == last
        assert sum(member["repaired"] for member in mirror["members"]) == 1
        assert client.get_object(Bucket=bucket, Key="large")["Body"].read() == body


@pytest.mark.long
def test_a_scrub_is_paused_over_a_restart_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPLIANCE_STORE_SCRUB_LIMIT_MIB_S", "1")
    with development_service(tmp_path) as service:
        client, bucket = service.client(), service.main.bucket
        client.put_object(Bucket=bucket, Key="large", Body=os.urandom(6_000_000))
        _appliance(service, "mirror", "scrub")
        until(lambda: _has_begun(service), "the scrub reads", deadline_s=DEADLINE_S)
        paused = _appliance(service, "mirror", "scrub", "--pause")
        assert paused["current"]["state"] == "paused"
    monkeypatch.setenv("APPLIANCE_STORE_SCRUB_LIMIT_MIB_S", "0")
    with development_service(tmp_path) as service:
        (mirror,) = _appliance(service, "mirror", "status")
        current = mirror["scrub"]["current"]
        assert current["state"] == "paused"
        assert current["done_bytes"] > 0
        report = _appliance(service, "mirror", "scrub", "--resume", "--wait")
        assert report["last"]["state"] == "finished"
        assert report["last"]["began_ns"] == current["began_ns"]


def _has_begun(service: Service) -> bool:
    """What is waited for happens in another process."""
    (mirror,) = _appliance(service, "mirror", "status")
    current = mirror["scrub"]["current"]
    assert current is not None, "it is over before it could be paused"
    return bool(current["done_bytes"])
