"""Halves that do not belong together, and a witness that is lost or of another day: as root on loop
devices with the whole appliance, one pair of drives from one trouble to the next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from botocore.exceptions import ClientError

from tests.system.drives import LoopDrive, settle, sh, unmount_all, until
from tests.system.service import Appliance, appliance, digests, mounted_nodes
from tests.system.test_service import DRIVE_BYTES, bring_up, places

pytestmark = [
    pytest.mark.usefixtures("udev"),
    pytest.mark.timeout(900),
    pytest.mark.needs("mkfs.xfs", "losetup"),
]
SETTLED_S: Final = 120.0


class Pair:
    """One machine, one mirror, and its drives to be plugged in and out between two runs."""

    def __init__(self, machine: Appliance, folder: Path) -> None:
        self.machine: Final = machine
        self.a: Final = LoopDrive(folder, "half-a", size_bytes=DRIVE_BYTES)
        self.b: Final = LoopDrive(folder, "half-b", size_bytes=DRIVE_BYTES)
        self.witness: Final = machine.home / "state/mirrors/m0/witness/witness"
        self.account: dict[str, Any] = {}

    def create(self) -> None:
        """Claim, join and serve once."""
        with self._plugged(self.a, self.b):
            self.account = bring_up(self.machine, self.a, self.b)
            self.put("first")
            self.machine.stop_all()

    @contextmanager
    def run(self, *drives: LoopDrive) -> Iterator[None]:
        """The machine runs with these drives until the block ends; everything must stop well."""
        with self._plugged(*drives):
            self.machine.start_all("m0")
            yield
            self.machine.stop_all()

    @contextmanager
    def _plugged(self, *drives: LoopDrive) -> Iterator[None]:
        with ExitStack() as stack:
            for drive in drives:
                stack.enter_context(drive)
            settle()
            try:
                yield
            finally:
                self.machine.kill_all()
                for node in mounted_nodes(self.machine.home / "run" / "drives"):
                    unmount_all(node)

    def becomes(self, *states: str) -> dict[str, Any]:
        """Wait for the mirror to be in one of these; what it then says."""
        until(
            lambda: self.machine.mirror()["state"] in states,
            f"the mirror to be {' or '.join(states)}",
            deadline_s=SETTLED_S,
        )
        return self.machine.mirror()

    def put(self, key: str) -> None:
        """Store an object that holds its own name."""
        client = self.machine.client(self.account)
        client.put_object(Bucket=self.account["bucket"], Key=key, Body=key.encode())

    def holds(self, *keys: str) -> None:
        """Exactly these are listed, and readable."""
        client = self.machine.client(self.account)
        bucket = self.account["bucket"]
        listed = {each["Key"] for each in client.list_objects_v2(Bucket=bucket)["Contents"]}
        assert listed == set(keys)
        for key in keys:
            assert client.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()

    def serves_nothing(self) -> None:
        """Not even what it may have."""
        with pytest.raises(ClientError) as caught:
            self.machine.client(self.account).get_object(Bucket=self.account["bucket"], Key="first")
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503


def test_halves_and_witnesses_that_do_not_belong_together(tmp_path: Path) -> None:
    with appliance(tmp_path / "machine", missing_s=1) as machine:
        pair = Pair(machine, tmp_path)
        pair.create()
        old_witness = pair.witness.read_bytes()
        _stale_half(pair)
        _witness_rolled_back_with_a_stale_drive(pair, old_witness)
        _witness_lost(pair)
        _clone(pair, tmp_path)


def _stale_half(pair: Pair) -> None:
    """The half that missed a write comes alone, and is not believed."""
    with pair.run(pair.a):
        pair.becomes("degraded")
        pair.put("second")
        pair.holds("first", "second")
    with pair.run(pair.b):
        said = pair.becomes("offline", "read-only")
        print(f"a stale half alone: {said['state']}: {said['reason']}")
        pair.serves_nothing()


def _witness_rolled_back_with_a_stale_drive(pair: Pair, old_witness: bytes) -> None:
    """Both remember the day before; the drive that went on is believed."""
    pair.witness.write_bytes(old_witness)
    with pair.run(pair.a, pair.b):
        pair.becomes("in sync")
        pair.holds("first", "second")
        roots = places(pair.machine)
        pair.machine.stop_all()
        assert digests(roots[pair.a.serial]) == digests(roots[pair.b.serial])


def _witness_lost(pair: Pair) -> None:
    """Two drives are two votes; the witness is made anew."""
    pair.witness.unlink()
    with pair.run(pair.a, pair.b):
        pair.becomes("in sync")
        pair.holds("first", "second")
        until(pair.witness.exists, "a new witness", deadline_s=SETTLED_S)


def _clone(pair: Pair, folder: Path) -> None:
    """One drive twice: neither is used, and neither is written to."""
    copy = LoopDrive(folder, "copy", size_bytes=DRIVE_BYTES)
    sh("cp", "--sparse=always", str(pair.a.image), str(copy.image))
    with pair.run(pair.a, copy, pair.b):
        pair.becomes("degraded")
        states = {
            each["drive"]["identity"]: each["state"] for each in pair.machine.json("drive", "list")
        }
        assert states[pair.a.identity] == states[copy.identity] == "clone", states
        pair.holds("first", "second")
        pair.put("third")
    with pair.run(pair.a, pair.b):
        pair.becomes("in sync")
        pair.holds("first", "second", "third")
