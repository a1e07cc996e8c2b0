"""One machine to do harm to: the whole appliance on two XFS drives that are mounted for it, so that
a test can stop everything, look at the drives' files, change them, and start again.

The drives are mounted loop devices which the appliance is told of as directories: nothing here is
announced by udev, so these tests run beside others. What plugging in and out means to the real
appliance is shown by ``test_histories``.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from appliance.client.admin import Client
from tests.system.drives import DyingDrive, LoopDrive, sh, until
from tests.system.service import Appliance, appliance

DRIVE_BYTES: Final = 2 * 1024**3
NAMES: Final = ("a", "b")
WITNESS_PLACE: Final = "state/mirrors/m0/witness"
SETTLED_S: Final = 60.0
DEVELOPMENT: Final = """{more}
[development]
enabled = true
drives = ["{home}/drives/a", "{home}/drives/b"]
"""


class Workbench:
    """The machine, its two drives, and one account."""

    def __init__(self, machine: Appliance, drives: dict[str, LoopDrive]) -> None:
        self.machine: Final = machine
        self.drives: Final = drives
        self.account: dict[str, Any] = {}
        self.stored: dict[str, bytes] = {}
        """What was acknowledged."""
        self.state: Final = machine.home / "state/mirrors/m0"
        self.witness: Final = machine.home / WITNESS_PLACE / "witness"
        self._told_before = 0
        self._client: Any = None

    # -- drives

    def root(self, name: str) -> Path:
        """Where drive ``a`` or ``b`` is mounted, or would be."""
        return self.machine.home / "drives" / name

    @property
    def roots(self) -> tuple[Path, Path]:
        """Of both."""
        return self.root("a"), self.root("b")

    def plug(self, name: str) -> None:
        """The drive appears, mounted."""
        drive = self.drives[name]
        drive.attach()
        self.root(name).mkdir(parents=True, exist_ok=True)
        # As the appliance does it: its processes may hold files on the drive's dead former self.
        sh("mount", "-o", "nouuid", drive.node, str(self.root(name)))

    def unplug(self, name: str) -> None:
        """The drive goes; the processes should be gone before. Idempotent."""
        self.drives[name].close()

    def pull(self, name: str) -> None:
        """The drive fails every call from now on, under processes that use it."""
        drive = self.drives[name]
        assert isinstance(drive, DyingDrive), "only such a drive can die"
        drive.die()

    def push_back(self, name: str) -> None:
        """A pulled drive is there again, on a fresh mount, and control saw it go and come."""
        self.unplug(name)
        self._look()
        until(lambda: not self._is_seen(name), "the drive's absence to be noticed")
        self.plug(name)
        self._look()
        until(lambda: self._is_seen(name), "the drive's return to be noticed")

    def _look(self) -> None:
        """Directories send no events, so control is told."""
        self.machine.processes["control"].send_signal(signal.SIGHUP)

    def _is_seen(self, name: str) -> bool:
        drives = Client(self.machine.socket).drives()
        return any(each.drive.serial == name and each.drive.drive_id for each in drives)

    # -- processes

    def start(self, *names: str) -> None:
        """All processes, with these drives."""
        for name in NAMES:
            if name not in names:
                self.unplug(name)
            elif not self.drives[name].node:
                self.plug(name)
        self.start_processes()

    def start_processes(self) -> None:
        """The same with the drives as they are."""
        self._client = None
        self._told_before = len(self._store_log())
        self.machine.start_all("m0")

    def power_cut(self, *, keep_index: bool = False) -> None:
        """Nobody says goodbye, and what the index had not flushed is gone. The drives stay where
        they are, on a fresh mount, for a test to look at and to change."""
        self.machine.kill_all()
        for name in NAMES:
            if self.drives[name].node:
                self.unplug(name)
                self.plug(name)
        for path in () if keep_index else self.state.glob("index/index-*.db-*"):
            path.unlink()

    def restart(self, role: str, *arguments: str, crash: bool = False) -> None:
        """End one process, by SIGKILL if it is to be a crash, and start it anew."""
        name = "-".join((role, *arguments))
        process = self.machine.processes.pop(name)
        process.send_signal(signal.SIGKILL if crash else signal.SIGTERM)
        process.wait(60)
        self.machine.start(role, *arguments)

    # -- what is seen

    def becomes(self, *states: str, deadline_s: float = SETTLED_S) -> dict[str, Any]:
        """Wait for the mirror to be in one of these; what it then says."""
        found: dict[str, Any] = {}

        def there() -> bool:
            found.update(self.machine.mirror())
            return found["state"] in states

        until(there, f"the mirror to be {' or '.join(states)}", deadline_s=deadline_s)
        return found

    def member(self, name: str) -> dict[str, Any]:
        """What the mirror's status says of one drive."""
        drive = self.drive_id(name)
        (found,) = (m for m in self.machine.mirror()["members"] if m["drive_id"] == drive)
        return dict(found)

    def drive_id(self, name: str) -> str:
        """The appliance's name of a mounted drive."""
        return (self.root(name) / "drive-id").read_text().strip()

    def told(self) -> str:
        """What the store has written to its journal since it was started."""
        return self._store_log()[self._told_before :]

    def verify(self) -> tuple[int, dict[str, Any]]:
        """``mirror verify`` of the drives as they lie there: its exit code and report."""
        done = self.machine.run("mirror", "verify", *map(str, self.roots), "--json")
        return done.returncode, json.loads(done.stdout)

    def _store_log(self) -> str:
        path = self.machine.home / "store-m0.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # -- a customer

    @property
    def client(self) -> Any:
        """boto3 as the account, which does not try again."""
        if self._client is None:
            until(lambda: bool(self.machine.status()["endpoint"]), "an endpoint")
            once = {"total_max_attempts": 1, "mode": "standard"}
            self._client = self.machine.client(self.account, retries=once)
        return self._client

    @property
    def bucket(self) -> str:
        """The account's."""
        return str(self.account["bucket"])

    def put(self, key: str, body: bytes | None = None) -> None:
        """Store an object; unless told it holds its own name."""
        body = key.encode() if body is None else body
        self.client.put_object(Bucket=self.bucket, Key=key, Body=body)
        self.stored[key] = body

    def get(self, key: str) -> bytes:
        """Read one."""
        return bytes(self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def delete(self, key: str) -> None:
        """Delete one."""
        self.client.delete_object(Bucket=self.bucket, Key=key)
        del self.stored[key]

    def check(self) -> None:
        """Exactly what was acknowledged is listed, and each reads back equal."""
        found = self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        assert {each["Key"] for each in found} == set(self.stored)
        for key, body in self.stored.items():
            assert self.get(key) == body, key


@contextmanager
def workbench(
    folder: Path,
    drives: type[LoopDrive] = LoopDrive,
    *,
    deadline_s: float = 30,
    more: str = "",
    witness: LoopDrive | None = None,
    program: str = "appliance.daemon",
) -> Iterator[Workbench]:
    """A machine that serves; nothing of it is left behind. ``more``: keys of ``[store]``;
    ``witness``: the device its witness lies on, else a directory; ``program``: see ``Appliance``.
    """
    home = folder / "machine"
    with ExitStack() as stack:
        made = {name: drives(folder, name, size_bytes=DRIVE_BYTES) for name in NAMES}
        for drive in made.values():
            sh("mkfs.xfs", "-q", "-f", "-m", "reflink=0", str(drive.image))
            stack.callback(drive.close)
        sections = DEVELOPMENT.format(more=more, home=home)
        machine = stack.enter_context(
            appliance(home, deadline_s=deadline_s, missing_s=1, gateways=1, more=sections)
        )
        machine.program = program
        bench = Workbench(machine, made)
        if witness is not None:
            sh("mkfs.xfs", "-q", "-f", str(witness.image))
            stack.callback(witness.close)
            place = home / WITNESS_PLACE
            place.mkdir(parents=True)
            sh("mount", witness.attach().node, str(place))
        bench.start("a", "b")
        bench.becomes("in sync")
        until(machine.serves, "the appliance to serve")
        bench.account = dict(machine.json("account", "create", "office"))
        yield bench
        machine.kill_all()
