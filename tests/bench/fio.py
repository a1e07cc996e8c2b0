"""What the drives themselves can do, by fio, in the same run as what is measured on them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.bench.drives import Drive

MIB: Final = 1024 * 1024
SEQUENTIAL: Final = ("--bs=1M", "--size=1G", "--ioengine=libaio", "--iodepth=4", "--end_fsync=1")
DURABLE: Final = (
    "--rw=write", "--bs=4k", "--size=64M", "--ioengine=sync", "--sync=dsync", "--time_based",
)  # fmt: skip
"""As a log appends: one write after the other, each on stable storage when it returns."""


def sequential_mib_per_second(drives: Sequence[Drive], kind: str) -> list[float]:
    """MiB/s of each drive past the page cache, all of them at once; ``kind`` is write or read, and
    a file must have been written before it is read."""
    found = _run(drives, f"--rw={kind}", *SEQUENTIAL)
    if kind == "read":
        for drive in drives:
            _file(drive).unlink()
    return [job[kind]["bw_bytes"] / MIB for job in found]


def durable_writes_per_second(drive: Drive, duration_s: int) -> float:
    """Durable writes of 4 KiB per second, into a file laid out before."""
    _run([drive], "--rw=write", "--bs=1M", "--size=64M", "--ioengine=sync", "--end_fsync=1")
    (found,) = _run([drive], *DURABLE, f"--runtime={duration_s}")
    _file(drive).unlink()
    return float(found["write"]["iops"])


def _file(drive: Drive) -> Path:
    return drive.mount / "fio"


def _run(drives: Sequence[Drive], *arguments: str) -> list[dict[str, Any]]:
    """One fio per drive, side by side; the job each reports."""
    running = [
        subprocess.Popen(
            ["fio", "--name=drive", f"--filename={_file(drive)}", "--direct=1", *arguments,
             "--output-format=json"],
            stdout=subprocess.PIPE,
        )
        for drive in drives
    ]  # fmt: skip
    found = []
    for process in running:
        text, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"cannot measure: fio ended with {process.returncode}")
        found.append(json.loads(text)["jobs"][0])
    return found
