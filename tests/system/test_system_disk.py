"""The system disk is gone: a new machine has everything again from the drives and a key."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import boto3
import pytest

from tests.system.drives import LoopDrive, attached, until
from tests.system.service import Appliance, appliance
from tests.system.test_service import DRIVE_BYTES, bring_up

pytestmark = [
    pytest.mark.usefixtures("udev"),
    pytest.mark.timeout(600),
    pytest.mark.needs("mkfs.xfs", "losetup", "xfs_metadump"),
]
RECOVERY: Final = re.compile(r"APPLIANCE-RECOVERY-1[-A-Z2-7]+")
PART_BYTES: Final = 5 * 1024 * 1024


def _client(machine: Appliance, account: Mapping[str, str]) -> Any:
    environment = machine.environment(account)
    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name=environment["AWS_DEFAULT_REGION"],
        verify=environment["AWS_CA_BUNDLE"],
        aws_access_key_id=account["access_key"],
        aws_secret_access_key=account["secret_key"],
    )


def _fill(client: Any, bucket: str, rng: Random) -> dict[str, bytes]:
    """Inline, large, empty and in parts; what was acknowledged, by key."""
    stored = {"small": rng.randbytes(900), "large": rng.randbytes(3_000_000), "empty": b""}
    for key, body in stored.items():
        client.put_object(Bucket=bucket, Key=key, Body=body, Metadata={"kept": key})
    upload = client.create_multipart_upload(Bucket=bucket, Key="in/parts")["UploadId"]
    where = {"Bucket": bucket, "Key": "in/parts", "UploadId": upload}
    parts = []
    pieces = [rng.randbytes(PART_BYTES), rng.randbytes(100_000)]
    for number, piece in enumerate(pieces, 1):
        etag = client.upload_part(**where, PartNumber=number, Body=piece)["ETag"]
        parts.append({"PartNumber": number, "ETag": etag})
    client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
    stored["in/parts"] = b"".join(pieces)
    return stored


def _read_all(client: Any, bucket: str) -> dict[str, bytes]:
    listed = client.list_objects_v2(Bucket=bucket).get("Contents", [])
    return {
        each["Key"]: client.get_object(Bucket=bucket, Key=each["Key"])["Body"].read()
        for each in listed
    }


def _start(machine: Appliance) -> None:
    machine.start_all("m0")
    until(machine.serves, "the new machine to serve", deadline_s=60)
    assert machine.mirror()["state"] == "in sync"


@dataclass(slots=True)
class Kept:
    """What the old machine's customers have, and its keys, which lie outside of it."""

    account: dict[str, Any]
    other: dict[str, Any]
    accounts: Any
    authority: bytes
    stored: dict[str, bytes]
    recovery_key: str

    def check(self, machine: Appliance) -> None:
        """All of it is there, and one more object from now on."""
        bucket, client = self.account["bucket"], _client(machine, self.account)
        assert _read_all(client, bucket) == self.stored
        head = client.head_object(Bucket=bucket, Key="large")
        assert head["Metadata"] == {"kept": "large"}
        buckets = {each["Name"] for each in client.list_buckets()["Buckets"]}
        assert buckets == {bucket, "office-more"}
        assert _read_all(_client(machine, self.other), self.other["bucket"]) == {"k": b"other"}
        assert machine.json("account", "list") == self.accounts
        assert Path(machine.json("status")["ca_file"]).read_bytes() == self.authority
        client.put_object(Bucket=bucket, Key=f"by {machine.home.name}", Body=b"new")
        self.stored[f"by {machine.home.name}"] = b"new"


def _live(old: Appliance, first: LoopDrive, second: LoopDrive) -> Kept:
    """The old machine's life, up to its sudden end."""
    account = bring_up(old, first, second)
    other = dict(old.json("account", "create", "archive"))
    client = _client(old, account)
    client.create_bucket(Bucket="office-more")
    stored = _fill(client, account["bucket"], Random(1))
    _client(old, other).put_object(Bucket=other["bucket"], Key="k", Body=b"other")
    authority = Path(old.json("status")["ca_file"]).read_bytes()
    accounts = old.json("account", "list")
    old.kill_all()
    recovery_key = RECOVERY.findall(old.setup_told)[0]
    return Kept(account, other, accounts, authority, stored, recovery_key)


def test_drives_and_a_key_are_all_that_a_new_machine_needs(tmp_path: Path) -> None:
    first = LoopDrive(tmp_path, "first", size_bytes=DRIVE_BYTES)
    second = LoopDrive(tmp_path, "second", size_bytes=DRIVE_BYTES)
    copy = tmp_path / "kept.key"
    with attached(first, second):
        with appliance(tmp_path / "old") as old:
            kept = _live(old, first, second)
        shutil.copy(old.home / "state/master.key", copy)
        shutil.rmtree(old.home)
        with appliance(tmp_path / "wrong-key") as machine:
            machine.start_all("m0")
            until(lambda: _complains(machine), "the wrong master key to be told")
            machine.stop_all()
        with appliance(tmp_path / "master-key") as machine:
            shutil.copy(copy, machine.home / "state/master.key")
            _start(machine)
            kept.check(machine)
            machine.kill_all()
        copy.unlink()
        with appliance(tmp_path / "recovery-key") as machine:
            target = machine.home / "state/master.key"
            target.unlink()
            paper = tmp_path / "paper.txt"
            paper.write_text(kept.recovery_key.lower())
            options = ("--recovery-key", str(paper), "--to", str(target))
            assert "Recovered" in machine.type("keys", "recover", first.node, *options)
            _start(machine)
            kept.check(machine)
            shutil.copy(target, copy)
            machine.stop_all()
        second.detach()
        with appliance(tmp_path / "one-drive", missing_s=2) as machine:
            shutil.copy(copy, machine.home / "state/master.key")
            _serve_from_one(machine)
            kept.check(machine)
            machine.stop_all()


def _serve_from_one(machine: Appliance) -> None:
    """A drive alone on a new machine serves only once an operator says so."""
    machine.start_all("m0")
    until(lambda: "is alone" in machine.mirror()["reason"], "the mirror to wait")
    machine.type("mirror", "resolve", "m0", "--force", "--confirm", "m0")
    until(lambda: machine.mirror()["state"] == "degraded", "the one drive to serve")
    until(lambda: len(machine.json("account", "list")) > 1, "the accounts")


def _complains(machine: Appliance) -> bool:
    status = machine.json("status")
    return not status["healthy"] and "put the right master key back" in str(status["summary"])
