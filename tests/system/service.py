"""The whole appliance as root on real drives: control, stores and gateways as separate processes,
started as their units start them, operated through the real command line.

Owns every process it starts. Their output goes to one file per role; a test that fails shows the
end of each.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.config import Config

from appliance.client.admin import Client
from appliance.core.documents import to_document
from tests.system.drives import unmount_all, until

PROJECT: Final = Path(__file__).resolve().parents[2]
PROGRAMS: Final = PROJECT / ".venv/bin"
START_S: Final = 60.0
STOP_S: Final = 60.0
GATEWAYS: Final = 2
LOG_END_BYTES: Final = 4000

CONFIGURATION: Final = """\
[paths]
state = "{home}/state"
runtime = "{home}/run"

[listen]
https = ["127.0.0.1:0"]

[gateway]
processes = {gateways}

[store]
drive_deadline_s = {deadline_s}
missing_drive_wait_s = {missing_s}
"""


@dataclass(slots=True)
class Appliance:
    """One machine's worth of processes."""

    home: Path
    gateways: int = GATEWAYS
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    setup_told: str = ""
    program: str = "appliance.daemon"
    """The module that every role is run by."""

    @property
    def config(self) -> Path:
        return self.home / "appliance.toml"

    @property
    def socket(self) -> Path:
        return self.home / "run" / "admin.sock"

    def start(self, *role: str) -> None:
        """Start a role, as its unit would."""
        name = "-".join(role)
        command = [sys.executable, "-m", self.program, *role, "--config", str(self.config)]
        with (self.home / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=PROJECT
            )

    def start_all(self, mirror: str | None = None) -> None:
        """Control and gateways, and the store of a mirror that is there already."""
        self.start("control")
        until(self.socket.exists, "control to serve its admin socket", deadline_s=START_S)
        if mirror is not None:
            self.start("store", mirror)
        for number in range(self.gateways):
            self.start("gateway", str(number))

    def stop_all(self) -> None:
        """SIGTERM, gateways first as systemd orders it; each must end by itself, with 0."""
        for name in reversed(list(self.processes)):
            process = self.processes.pop(name)
            process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
            assert code == 0, f"{name} ended with {code}"

    def kill_all(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.processes.clear()
        # Else the next start would be taken for done.
        self.socket.unlink(missing_ok=True)

    def type(self, *arguments: str) -> str:
        """Run the command line; what it prints."""
        finished = self.run(*arguments)
        assert finished.returncode == 0, f"appliance {' '.join(arguments)}: {finished.stderr}"
        return finished.stdout

    def json(self, *arguments: str) -> Any:
        """The same with ``--json``."""
        return json.loads(self.type(*arguments, "--json"))

    def refused(self, *arguments: str) -> tuple[int, str]:
        """A command that must fail: its exit code and sentence."""
        finished = self.run(*arguments)
        assert finished.returncode != 0, f"not refused: {finished.stdout}"
        assert "Traceback" not in finished.stderr
        return finished.returncode, finished.stderr

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line, however it ends."""
        return subprocess.run(
            [PROGRAMS / "appliance", "--socket", self.socket, *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=180,
        )

    def mirror(self, name: str = "m0") -> dict[str, Any]:
        """What ``mirror status --json`` tells of one mirror, without a command each time."""
        (report,) = (each for each in Client(self.socket).mirrors() if each.name == name)
        return dict(to_document(report))

    def status(self) -> dict[str, Any]:
        """The same of ``status``."""
        return dict(to_document(Client(self.socket).status()))

    def serves(self) -> bool:
        """Whether everything is well, by the appliance's own word."""
        return bool(self.status()["healthy"])

    def environment(self, account: Mapping[str, str]) -> dict[str, str]:
        """For aws-cli with three attempts per operation."""
        status = self.status()
        return {
            **os.environ,
            "AWS_ACCESS_KEY_ID": account["access_key"],
            "AWS_SECRET_ACCESS_KEY": account["secret_key"],
            "AWS_DEFAULT_REGION": status["region"],
            "AWS_CA_BUNDLE": status["ca_file"],
            "AWS_ENDPOINT_URL": status["endpoint"],
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "3",
            "AWS_RETRY_MODE": "standard",
        }

    def client(self, account: Mapping[str, str], **settings: Any) -> Any:
        """boto3 with three attempts per operation, unless ``settings`` say otherwise."""
        status = self.status()
        attempts = {"total_max_attempts": 3, "mode": "standard"}
        return boto3.client(
            "s3",
            endpoint_url=status["endpoint"],
            region_name=status["region"],
            verify=status["ca_file"],
            aws_access_key_id=account["access_key"],
            aws_secret_access_key=account["secret_key"],
            config=Config(**{"retries": attempts, **settings}),
        )

    def logs(self) -> str:
        """The end of every role's output."""
        ends = []
        for path in sorted(self.home.glob("*.log")):
            text = path.read_text(errors="replace")[-LOG_END_BYTES:]
            ends.append(f"==> {path.name}\n{text}")
        return "\n".join(ends)


@contextmanager
def appliance(
    home: Path,
    *,
    deadline_s: float = 30,
    missing_s: float = 90,
    gateways: int = GATEWAYS,
    more: str = "",
) -> Iterator[Appliance]:
    """A configured, set-up appliance without any process yet; all are killed at the end, and its
    drives unmounted. ``deadline_s`` of a drive; ``missing_s``: how long one is waited for;
    ``more``: keys of ``[store]``, and other sections."""
    home.mkdir(parents=True, exist_ok=True)
    machine = Appliance(home, gateways)
    # What RuntimeDirectory= of the store's unit makes.
    (home / "run" / "store").mkdir(parents=True, exist_ok=True)
    machine.config.write_text(
        CONFIGURATION.format(
            home=home, gateways=gateways, deadline_s=deadline_s, missing_s=missing_s
        )
        + more
    )
    setup = [sys.executable, "-m", "appliance.daemon", "setup", "--config", str(machine.config)]
    told = subprocess.run(
        setup, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=PROJECT
    )
    machine.setup_told = told.stdout
    try:
        yield machine
    except BaseException:
        print(machine.logs())
        raise
    finally:
        machine.kill_all()
        for node in mounted_nodes(home / "run" / "drives"):
            unmount_all(node)


def mounted_nodes(below: Path) -> list[str]:
    """Devices mounted inside a directory."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        if Path(before.split(" ")[4]).parent == below:
            found.append(after.split(" ")[1])
    return found


def digests(root: Path) -> dict[str, str]:
    """What must be the same on both drives, by path: the log's segments and the blobs. One that
    was being made at the end is no segment yet."""
    found = {}
    for part in ("log", "blob"):
        for path in sorted((root / part).rglob("*")):
            if path.is_file() and path.suffix != ".new":
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                found[str(path.relative_to(root))] = digest
    return found
