"""Small durable puts by the number of connections: ``python -m tests.bench.puts``.

The service and MinIO in turn on the same two XFS loop drives with direct I/O, over HTTPS, by the
same load generator, at 1, 8, 32 and 128 connections: the median run of three each, and what fio
says the drives do in the same run. Needs root. Prints a table, and with ``--write`` puts it into
docs/PERFORMANCE.md; asserts nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.bench.__main__ import DRIVE_BYTES, PEERS, Start, unpack
from tests.bench.drives import Drive, two_drives
from tests.bench.fio import durable_writes_per_second, sequential_mib_per_second
from tests.bench.load import Load, Sample
from tests.bench.report import replace_figures, table_of
from tests.bench.targets import appliance, peer

CONNECTIONS: Final = (1, 8, 32, 128)
RUNS: Final = 3
MARK: Final = "puts"


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, default=PEERS)
    parser.add_argument("--duration", type=int, default=8, help="seconds of each run")
    parser.add_argument("--write", action="store_true", help="write docs/PERFORMANCE.md")
    parser.add_argument("--scratch", type=Path, default=Path("/var/tmp"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-puts-", dir=options.scratch) as name:
        home = Path(name)
        warp, minio = (unpack(options.peers, program, home) for program in ("warp", "minio"))
        starts: dict[str, Start] = {
            "appliance": appliance,
            "minio": lambda place, drives: peer(place, drives, minio),
        }
        found = {}
        for each, start in starts.items():
            (home / each).mkdir()
            with two_drives(home / each / "drives", DRIVE_BYTES) as drives:
                words = drive_words(drives)
                with start(home / each, [drive.mount for drive in drives]) as endpoint:
                    print(f"measuring {each}; {words}", file=sys.stderr, flush=True)
                    load = Load(warp, endpoint, drives, home / each)
                    found[each] = {n: median_run(load, n, options.duration) for n in CONNECTIONS}
    text = f"HTTPS, median of {RUNS} runs. By fio in the same run: {words}.\n\n{rows(found)}"
    print(text)
    if options.write:
        replace_figures(MARK, text)


def drive_words(drives: Sequence[Drive]) -> str:
    """What the drives can do, in a sentence."""
    writes = min(sequential_mib_per_second(drives, "write"))
    reads = min(sequential_mib_per_second(drives, "read"))
    durable = durable_writes_per_second(drives[0], 4)
    return (
        f"one drive writes {writes:,.0f} and reads {reads:,.0f} MiB/s in sequence, both drives at "
        f"once, and alone does {durable:,.0f} durable writes of 4 KiB per second"
    )


def median_run(load: Load, connections: int, duration_s: int) -> Sample:
    """The median of three by its operations per second."""
    runs = [load.put("4KiB", connections, duration_s, "bench-small") for _ in range(RUNS)]
    middle = statistics.median_low(run.per_second for run in runs)
    return next(run for run in runs if run.per_second == middle)


def rows(found: Mapping[str, Mapping[int, Sample]]) -> str:
    """A row for each number of connections and server."""
    lines = []
    for connections in CONNECTIONS:
        for name, samples in found.items():
            sample = samples[connections]
            lines.append(
                [
                    str(connections), name, f"{sample.per_second:,.0f}",
                    f"{sample.median_ms:.1f} / {sample.p99_ms:.1f}", f"{sample.flushes / 2:.2f}",
                    f"{sample.errors}",
                ]
            )  # fmt: skip
    header = [
        "connections", "server", "puts/s", "p50 / p99, ms", "flushes per object and drive",
        "errors",
    ]  # fmt: skip
    return table_of(header, lines)


if __name__ == "__main__":
    main()
