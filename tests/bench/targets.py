"""What is measured: our service, the peer, or a server that somebody else started."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psutil

from tests.development import START_TIMEOUT_S, development_service

PEER_KEY: Final = "benchmark"
PEER_PORT: Final = 19000


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A serving S3 endpoint over HTTPS. ``pid`` is the root of its processes, None if not ours."""

    name: str
    host: str
    access_key: str
    secret_key: str
    region: str
    pid: int | None
    start_s: float

    def processes(self) -> list[psutil.Process]:
        """The server's processes, its root first."""
        if self.pid is None:
            return []
        root = psutil.Process(self.pid)
        return [root, *root.children(recursive=True)]

    def cpu_s(self) -> float:
        """User and system seconds used by the living processes so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self.processes())

    def resident_bytes(self) -> tuple[int, int]:
        """Sum of RSS, and of PSS (which counts a shared page once)."""
        memory = [process.memory_full_info() for process in self.processes()]
        return sum(each.rss for each in memory), sum(each.pss for each in memory)


@contextmanager
def appliance(home: Path, drives: Sequence[Path]) -> Iterator[Endpoint]:
    """Our service in development mode on two mounted drives."""
    options = []
    for drive in drives:
        (drive / "drive").mkdir()
        options += ["--drive", str(drive / "drive")]
    with development_service(home, options=options) as service:
        yield Endpoint(
            "appliance", urlsplit(service.endpoint).netloc, service.main.access_key,
            service.main.secret_key, service.region, service.process.pid, service.start_s,
        )  # fmt: skip


@contextmanager
def peer(home: Path, drives: Sequence[Path], program: Path) -> Iterator[Endpoint]:
    """MinIO on the same two drives."""
    certificates = home / "certs"
    certificates.mkdir()
    _self_signed(certificates)
    command = [
        str(program), "server", "--certs-dir", str(certificates),
        "--address", f"127.0.0.1:{PEER_PORT}", *(str(drive / "minio") for drive in drives),
    ]  # fmt: skip
    secrets = {"MINIO_ROOT_USER": PEER_KEY, "MINIO_ROOT_PASSWORD": PEER_KEY}
    with _process(command, home / "minio.log", secrets) as (process, started):
        _wait(process, started, lambda: _answers("127.0.0.1", PEER_PORT))
        yield Endpoint(
            "minio", f"127.0.0.1:{PEER_PORT}", PEER_KEY, PEER_KEY, "us-east-1",
            process.pid, time.monotonic() - started,
        )  # fmt: skip


@contextmanager
def _process(
    command: Sequence[str], log: Path, extra: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **(extra or {})}
    with log.open("wb") as output:
        started = time.monotonic()
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            yield process, started
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], started: float, serves: Callable[[], bool]) -> None:
    while not serves():
        if process.poll() is not None or time.monotonic() - started > START_TIMEOUT_S:
            raise SystemExit(f"cannot measure: {process.args!r} did not start")
        time.sleep(0.02)


def _answers(host: str, port: int) -> bool:
    """Whether an S3 request is answered over TLS with anything but "not ready"."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=2) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            secure.sendall(f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
            status = secure.recv(64).split(b" ", 2)
    except OSError:
        return False
    return len(status) > 1 and status[1] == b"403"


def _self_signed(certificates: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", str(certificates / "private.key"),
         "-out", str(certificates / "public.crt"), "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, stdout=sys.stderr, stderr=subprocess.DEVNULL,
    )  # fmt: skip
