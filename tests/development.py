"""Starts the whole service in development mode as its own processes, for tests of every kind."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import boto3
from botocore import UNSIGNED
from botocore.config import Config

PROJECT: Final = Path(__file__).resolve().parents[1]
START_TIMEOUT_S: Final = 120
STOP_TIMEOUT_S: Final = 60
PATIENT: Final = {"max_attempts": 5, "mode": "standard"}


@dataclass(frozen=True, slots=True)
class Account:
    """One account the service made at its first start."""

    name: str
    user_id: str
    display_name: str
    access_key: str
    secret_key: str
    bucket: str


@dataclass(frozen=True, slots=True)
class Service:
    """What the ready file told, and the supervisor's process."""

    endpoint: str
    plain_endpoint: str | None
    region: str
    ca_file: Path
    accounts: Mapping[str, Account]
    pids: Mapping[str, Any]
    process: subprocess.Popen[bytes]
    start_s: float
    log: Path

    @property
    def main(self) -> Account:
        """The first account."""
        return next(iter(self.accounts.values()))

    def client(
        self, account: Account | None = None, *, endpoint: str | None = None, **settings: Any
    ) -> Any:
        """boto3 as an account, the first unless told, with settings of ``Config``.

        It tries five times unless told, as a backup program would.
        """
        account = account or self.main
        return self._client(
            endpoint,
            settings,
            aws_access_key_id=account.access_key,
            aws_secret_access_key=account.secret_key,
        )

    def anonymous_client(self, **settings: Any) -> Any:
        """boto3 without credentials."""
        return self._client(None, {"signature_version": UNSIGNED, **settings})

    def _client(self, endpoint: str | None, settings: Mapping[str, Any], **signing: str) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=endpoint or self.endpoint,
            region_name=self.region,
            verify=str(self.ca_file),
            config=Config(**{"retries": PATIENT, **settings}),
            **signing,
        )

    def aws_environment(self) -> dict[str, str]:
        """The variables that aws-cli and most SDKs understand."""
        return {
            "AWS_ACCESS_KEY_ID": self.main.access_key,
            "AWS_SECRET_ACCESS_KEY": self.main.secret_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_CA_BUNDLE": str(self.ca_file),
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def development_service(
    home: Path, *, accounts: str = "main", options: Sequence[str] = ()
) -> Iterator[Service]:
    """Run ``appliance dev`` below ``home`` until the block ends; SIGTERM then.

    Its output goes to ``home/service.log``. A second call with the same ``home`` continues with the
    same state. Fails with that log's end if the service does not serve in time.
    """
    home.mkdir(parents=True, exist_ok=True)
    ready = home / "ready.json"
    ready.unlink(missing_ok=True)
    command = [
        str(PROJECT / ".venv/bin/appliance"), "dev", "--state", str(home / "state"),
        "--port", "0", "--accounts", accounts, "--ready-file", str(ready), *options,
    ]  # fmt: skip
    log = home / "service.log"
    with log.open("ab") as output:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            _wait_ready(process, ready, started, log)
            yield _service(process, ready, time.monotonic() - started, log)
        finally:
            _stop(process)


def _wait_ready(process: subprocess.Popen[bytes], ready: Path, started: float, log: Path) -> None:
    while not ready.exists():
        if process.poll() is not None or time.monotonic() - started > START_TIMEOUT_S:
            end = log.read_text(errors="replace")[-2000:]
            raise AssertionError(f"the service did not start:\n{end}")
        time.sleep(0.02)


def _service(process: subprocess.Popen[bytes], ready: Path, start_s: float, log: Path) -> Service:
    told = json.loads(ready.read_text())
    accounts = {each["name"]: Account(**each) for each in told["accounts"]}
    return Service(
        endpoint=told["endpoint"],
        plain_endpoint=told.get("plain_endpoint"),
        region=told["region"],
        ca_file=Path(told["ca_file"]),
        accounts=accounts,
        pids=told["pids"],
        process=process,
        start_s=start_s,
        log=log,
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise
