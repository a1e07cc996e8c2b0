"""The load: warp's runs, and what they cost the server and the drives."""

from __future__ import annotations

import json
import resource
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench.drives import Drive
from tests.bench.targets import Endpoint

MIB: Final = 1024 * 1024
LIST_OBJECTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Sample:
    """One run. ``per_second`` is operations (for LIST: keys), ``cpu_ms`` server CPU per operation,
    ``client_cpu_ms`` the load generator's, ``flushes`` per operation over both drives; latencies of
    a request in milliseconds."""

    per_second: float
    bytes_per_second: float
    operations: int
    errors: int
    cpu_ms: float
    client_cpu_ms: float
    flushes: float
    writes: float
    median_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Load:
    """Runs warp against one endpoint."""

    warp: Path
    endpoint: Endpoint
    drives: Sequence[Drive]
    scratch: Path

    def put(self, size: str, concurrent: int, duration_s: int, bucket: str) -> Sample:
        """PUT of single-part objects for a while; they stay for ``get``."""
        return self._measure(
            "PUT", "put", "--disable-multipart", f"--obj.size={size}", f"--bucket={bucket}",
            f"--concurrent={concurrent}", f"--duration={duration_s}s",
        )  # fmt: skip

    def get(self, size: str, concurrent: int, duration_s: int, bucket: str) -> Sample:
        """GET of what ``put`` left in the bucket, at random."""
        return self._measure(
            "GET", "get", "--list-existing", f"--obj.size={size}", f"--bucket={bucket}",
            f"--concurrent={concurrent}", f"--duration={duration_s}s",
        )  # fmt: skip

    def list(self, concurrent: int, duration_s: int, bucket: str) -> Sample:
        """LIST of 10,000 keys; its cost includes writing them first, so only its speed counts."""
        return self._measure(
            "LIST", "list", f"--objects={LIST_OBJECTS}", "--max-keys=1000", "--obj.size=1KiB",
            f"--bucket={bucket}", f"--concurrent={concurrent}", f"--duration={duration_s}s",
        )  # fmt: skip

    def _measure(self, operation: str, *arguments: str) -> Sample:
        cpu_s, client_cpu_s = self.endpoint.cpu_s(), _children_cpu_s()
        flushes = sum(drive.flushes() for drive in self.drives)
        writes = sum(drive.writes() for drive in self.drives)
        report = self._warp(*arguments)["by_op_type"][operation]
        cpu_s = self.endpoint.cpu_s() - cpu_s
        client_cpu_s = _children_cpu_s() - client_cpu_s
        flushes = sum(drive.flushes() for drive in self.drives) - flushes
        writes = sum(drive.writes() for drive in self.drives) - writes
        (spent,) = report["throughput_by_host"].values()
        seconds = spent["measure_duration_millis"] / 1000
        operations = int(report["total_requests"])
        latency = _latency(report)
        return Sample(
            per_second=spent["objects"] / seconds,
            bytes_per_second=spent["bytes"] / seconds,
            operations=operations,
            errors=int(report["total_errors"]),
            cpu_ms=1000 * cpu_s / operations,
            client_cpu_ms=1000 * client_cpu_s / operations,
            flushes=flushes / operations,
            writes=writes / operations,
            median_ms=latency[0],
            p99_ms=latency[1],
        )

    def _warp(self, *arguments: str) -> dict[str, Any]:
        end = self.endpoint
        command = [
            str(self.warp), *arguments, f"--host={end.host}", "--tls", "--insecure",
            f"--access-key={end.access_key}", f"--secret-key={end.secret_key}",
            f"--region={end.region}", "--lookup=path", "--noclear", "--json", "--no-color",
            f"--benchdata={self.scratch / 'warp'}",
        ]  # fmt: skip
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        start = done.stdout.find("\n{")
        if done.returncode or start < 0:
            tail = (done.stderr or done.stdout).strip()[-600:]
            raise SystemExit(f"cannot measure {end.name}: warp {arguments[0]}: {tail}")
        report: dict[str, Any] = json.loads(done.stdout[start:])
        return report


def _children_cpu_s() -> float:
    """CPU time of every child that has ended; the servers go on."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _latency(report: dict[str, Any]) -> tuple[float, float]:
    """Median and 99th percentile in milliseconds, averaged over warp's time slices."""
    slices = [
        entry["single_sized_requests"]
        for entries in report["requests_by_client"].values()
        for entry in entries
        if entry.get("single_sized_requests")
    ]
    total = sum(each["requests"] for each in slices) or 1
    return (
        sum(each["dur_median_millis"] * each["requests"] for each in slices) / total,
        sum(each["dur_99_millis"] * each["requests"] for each in slices) / total,
    )
