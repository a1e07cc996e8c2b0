"""Runs the S3 conformance suite against the development service, over HTTP and over HTTPS.

    .venv/bin/python -m tests.s3tests.run SUITE               the gate: every listed test must pass
    .venv/bin/python -m tests.s3tests.run SUITE --all         the whole goal set, with a summary
    .venv/bin/python -m tests.s3tests.run SUITE --all --keep  the same, and keep the new list

SUITE is a checkout of ceph/s3-tests; it gets a virtual environment of its own. The lists of passing
tests are ``passing-http.txt`` and ``passing-https.txt`` beside this file. A listed test that fails
is tried once more alone (a bucket left behind by another test must not accuse it) and only then
counts as broken.
"""

from __future__ import annotations

import argparse
import configparser
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tests.development import Service, development_service

HERE: Final = Path(__file__).resolve().parent
PROJECT: Final = HERE.parents[1]
CACHE: Final = PROJECT / ".cache" / "s3tests"
SCHEMES: Final = ("http", "https")
TEST_TIMEOUT_S: Final = 90
MODULES: Final = ("s3tests/functional/test_s3.py", "s3tests/functional/test_headers.py")
SELECTED_MARKS: Final = (
    "not (iam_account or iam_cross_account or iam_role or iam_user or iam_tenant or user_policy"
    " or role_policy or session_policy or group or group_policy or test_of_sts"
    " or webidentity_test or abac_test or sns or s3select or cloud_transition or cloud_restore"
    " or target_by_bucket or fails_on_rgw or lifecycle_transition or auth_aws2"
    " or bucket_logging)"
)
SELECTED_NAMES: Final = "not kms"


@dataclass(frozen=True, slots=True)
class Result:
    """One pass over the suite: names by outcome."""

    passed: frozenset[str]
    failed: frozenset[str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and return the exit status: 0 if nothing that is listed broke."""
    options = _options(arguments)
    if not (options.suite / "s3tests").is_dir():
        print(f"cannot run: {options.suite} is not a checkout of the suite", file=sys.stderr)
        return 2
    python = _environment(options.suite)
    schemes = SCHEMES if options.scheme == "both" else (options.scheme,)
    broken: list[str] = []
    with tempfile.TemporaryDirectory(prefix="s3tests-") as name:
        home = Path(name)
        plain = ["--plain-http", "0"]
        with development_service(home, accounts="main,alt,tenant", options=plain) as service:
            _forget_initial_buckets(service)
            for scheme in schemes:
                suite = Suite(options.suite, python, home, service, scheme, options.workers)
                broken += _one_scheme(suite, options)
    if broken:
        print(f"broken: {len(broken)} listed tests no longer pass:", *broken, sep="\n  ")
    return 1 if broken else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the S3 conformance suite.")
    parser.add_argument("suite", type=lambda text: Path(text).resolve(), help="suite checkout")
    parser.add_argument("--scheme", choices=(*SCHEMES, "both"), default="both")
    parser.add_argument("--all", action="store_true", help="the whole goal set")
    parser.add_argument("--keep", action="store_true", help="write the list of passing tests")
    parser.add_argument("--workers", type=int, default=3, help="processes side by side")
    return parser.parse_args(arguments)


def _one_scheme(suite: Suite, options: argparse.Namespace) -> list[str]:
    """Run one scheme; returns the listed tests that are broken."""
    listing = HERE / f"passing-{suite.scheme}.txt"
    listed = frozenset(listing.read_text().split()) if listing.exists() else frozenset()
    started = time.monotonic()
    result = suite.run(None if options.all else listed)
    suspects = (result.failed & listed) | (listed - result.passed - result.failed)
    again = suite.run(suspects).passed if suspects else frozenset()
    passed = result.passed | again
    elapsed_s = time.monotonic() - started
    total = len(result.passed) + len(result.failed)
    print(
        f"{suite.scheme}: {len(passed)} of {total} passed, {len(listed)} listed, "
        f"{len(passed - listed)} not listed yet, {elapsed_s:.0f} s",
        flush=True,
    )
    if options.keep:
        listing.write_text("".join(f"{name}\n" for name in sorted(passed | (listed & again))))
    if options.all:
        (CACHE / f"failed-{suite.scheme}.txt").write_text(
            "".join(f"{name}\n" for name in sorted(result.failed - again))
        )
    return [f"{suite.scheme} {name}" for name in sorted(listed - passed)]


@dataclass(frozen=True, slots=True)
class Suite:
    """The suite, ready to be run against one front of the service."""

    checkout: Path
    python: Path
    scratch: Path
    service: Service
    scheme: str
    workers: int

    def run(self, only: frozenset[str] | None) -> Result:
        """Run all of the goal set, or only the named tests; a skip counts as failed."""
        if only is not None and not only:
            return Result(frozenset(), frozenset())
        outcomes = self.scratch / f"outcomes-{self.scheme}.txt"
        outcomes.unlink(missing_ok=True)
        environment = os.environ | {
            "S3TEST_CONF": str(self._configuration()),
            "S3TESTS_OUTCOMES": str(outcomes),
            "PYTHONPATH": str(HERE),
            "SSL_CERT_FILE": str(self.service.ca_file),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        workers = self.workers
        if only is not None:
            names = self.scratch / "only.txt"
            names.write_text("\n".join(sorted(only)))
            environment["S3TESTS_ONLY"] = str(names)
            workers = min(workers, max(1, len(only) // 20))
        log = CACHE / f"{self.scheme}.log"
        with log.open("w") as output:
            subprocess.run(
                self._command(workers),
                cwd=self.checkout,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if not outcomes.exists():
            raise SystemExit(f"cannot run the suite; its output is in {log}")
        return _read_outcomes(outcomes)

    def _command(self, workers: int) -> list[str]:
        return [
            str(self.python), "-m", "pytest", "-p", "no:cacheprovider", "-p", "selection",
            "-n", str(workers), "--dist", "load", f"--timeout={TEST_TIMEOUT_S}", "-q",
            "-rA", "--tb=short", *MODULES,
            "-m", SELECTED_MARKS, "-k", SELECTED_NAMES,
        ]  # fmt: skip

    def _configuration(self) -> Path:
        service = self.service
        endpoint = service.endpoint if self.scheme == "https" else service.plain_endpoint
        address = urlsplit(str(endpoint))
        config = configparser.RawConfigParser()
        config["DEFAULT"] = {
            "host": str(address.hostname),
            "port": str(address.port),
            "is_secure": str(self.scheme == "https"),
            "ssl_verify": "False",
        }
        config["fixtures"] = {"bucket prefix": "suite-{random}-"}
        roles = {
            "s3 main": "main",
            "s3 alt": "alt",
            "s3 tenant": "tenant",
            "iam": "main",
            "iam root": "main",
            "iam alt root": "alt",
        }
        for section, name in roles.items():
            account = service.accounts[name]
            config[section] = {
                "display_name": account.display_name,
                "user_id": account.user_id,
                "email": f"{name}@example.com",
                "access_key": account.access_key,
                "secret_key": account.secret_key,
                "api_name": service.region,
                "tenant": "",
            }
        config["webidentity"] = {
            "token": "none",
            "aud": "none",
            "thumbprint": "none",
            "KC_REALM": "none",
        }
        path = self.scratch / f"suite-{self.scheme}.conf"
        with path.open("w") as file:
            config.write(file)
        return path


def _read_outcomes(path: Path) -> Result:
    pairs = [line.split(maxsplit=1) for line in path.read_text().splitlines()]
    return Result(
        frozenset(name for outcome, name in pairs if outcome == "passed"),
        frozenset(name for outcome, name in pairs if outcome != "passed"),
    )


def _forget_initial_buckets(service: Service) -> None:
    """The suite counts an account's buckets from none, and ours get one at registration."""
    for account in service.accounts.values():
        client = service.client(account)
        client.delete_bucket(Bucket=account.bucket)


def _environment(suite: Path) -> Path:
    """The suite's own virtual environment, made once; returns its interpreter."""
    home = CACHE / "venv"
    python = home / "bin" / "python"
    stamp = home / "complete"
    if not stamp.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "-q", "-r", str(suite / "requirements.txt"),
             "pytest-timeout", "pytest-xdist"],
            check=True,
        )  # fmt: skip
        stamp.touch()
    return python


if __name__ == "__main__":
    sys.exit(main())
