"""How fast a scrub is, as a share of what the drives give, and what clients notice of it.

    python -m tests.bench.scrub [--gigabytes 10] [--quick] [--scratch DIRECTORY]

Needs root and fio. Two XFS file systems on loop devices with direct I/O, a mirror on them with a
mixed load of which half the bytes are inline. Three times over: what fio reads of both drives at
once, a scrub with nobody there, clients without one, clients with one. Prints each run and the
medians; asserts nothing but that the scrubs find nothing. Only ratios within one run mean anything.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import uvloop

from appliance.core.scrubs import ScrubOrder, ScrubRun
from appliance.engine.mirror.client import MirrorEngine
from appliance.engine.mirror.connecting import connect_engine
from appliance.engine.mirror.launch import DrivePath, make_mirror
from tests.bench.drives import Drive, two_drives
from tests.bench.fio import MIB, sequential_mib_per_second
from tests.bench.resync import Clients, Latencies, assembly, fill
from tests.conformance.mirrors import MIRROR_ID, StoreProcess

RUNS: Final = 3
POLL_S: Final = 0.05
SETTLE_S: Final = 3.0
"""Clients count as active for a while after the last one went."""
QUANTILES: Final = (0.5, 0.99)


@dataclass(frozen=True, slots=True)
class Sizes:
    """What ``--quick`` makes smaller."""

    total_bytes: int
    runs: int
    clients_s: float


@dataclass(frozen=True, slots=True)
class Result:
    """One of the runs. ``quantiles_ms``: of puts and gets, before and during the scrub."""

    drive_mib_s: float
    scrub_mib_s: float
    cpu_ms_per_mib: float
    quantiles_ms: tuple[float, ...]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=10.0, help="to fill, half of it inline")
    parser.add_argument("--quick", action="store_true", help="a twentieth of it, and one run")
    parser.add_argument("--scratch", type=Path, default=Path("/var/tmp"))
    chosen = parser.parse_args()
    total_bytes = int(chosen.gigabytes * 1e9)
    sizes = Sizes(total_bytes // 20, 1, 5.0) if chosen.quick else Sizes(total_bytes, RUNS, 30.0)
    with tempfile.TemporaryDirectory(prefix="bench-scrub-", dir=chosen.scratch) as name:
        home = Path(name)
        with two_drives(home / "drives", 2 * sizes.total_bytes + 4 * 10**9) as drives:
            uvloop.run(_measure(home, drives, sizes))


async def _measure(home: Path, drives: Sequence[Drive], sizes: Sizes) -> None:
    first, second = drives
    make_mirror(
        MIRROR_ID,
        [DrivePath("a", first.mount, "a"), DrivePath("b", second.mount, "b")],
        index_directory=home / "index",
        witness_file=home / "witness" / "w",
    )
    store = StoreProcess(home, assembly(home, {"a": first, "b": second}))
    await store.start()
    engine = await connect_engine(store.socket, role="gateway")
    try:
        await engine.ready(60)
        inline = await fill(engine, sizes.total_bytes)
        print(f"filled with {sizes.total_bytes / 1e9:.1f} GB", flush=True)
        process = psutil.Process(store.pid)
        results = [
            await _run(engine, process, drives, inline, sizes.clients_s) for _ in range(sizes.runs)
        ]
        _print_medians(results)
    finally:
        await engine.close()
        await store.stop()


async def _run(
    engine: MirrorEngine,
    process: psutil.Process,
    drives: Sequence[Drive],
    inline: int,
    clients_s: float,
) -> Result:
    await asyncio.sleep(SETTLE_S)
    sequential_mib_per_second(drives, "write")
    speed = min(sequential_mib_per_second(drives, "read"))
    spent_s = -sum(process.cpu_times()[:2])
    run, took_s = await _scrub(engine)
    spent_s += sum(process.cpu_times()[:2])
    moved = min(drive.read_bytes for drive in run.drives) / MIB
    rate, cost = moved / took_s, 1000 * spent_s / moved
    print(
        f"fio, both drives at once: {speed:.0f} MiB/s of the slower one; scrub, idle: "
        f"{moved:.0f} MiB of each drive in {took_s:.1f} s, {rate:.0f} MiB/s, "
        f"{100 * rate / speed:.0f} %; {cost:.2f} ms of processor time per MiB",
        flush=True,
    )
    async with Clients(engine, inline) as before:
        await asyncio.sleep(clients_s)
    print(f"  clients before: {before.words()}", flush=True)
    await engine.scrub(ScrubOrder.START)
    async with Clients(engine, inline) as during:
        await asyncio.sleep(clients_s)
    report = await engine.scrub(ScrubOrder.LOOK)
    ended = report.current or report.last
    assert ended is not None
    share = 100 * ended.done_bytes / max(ended.total_bytes, 1)
    print(f"  clients during: {during.words()}; it did {share:.0f} % meanwhile", flush=True)
    if report.current is not None:
        await engine.scrub(ScrubOrder.CANCEL)
        await _ended(engine)
    return Result(speed, rate, cost, (*_quantiles(before), *_quantiles(during)))


async def _scrub(engine: MirrorEngine) -> tuple[ScrubRun, float]:
    """A scrub from begin to end, and its seconds."""
    began_s = time.monotonic()
    await engine.scrub(ScrubOrder.START)
    run = await _ended(engine)
    assert run.found == 0, run
    return run, time.monotonic() - began_s


async def _ended(engine: MirrorEngine) -> ScrubRun:
    while True:
        report = await engine.scrub(ScrubOrder.LOOK)
        if report.current is None:
            assert report.last is not None
            return report.last
        await asyncio.sleep(POLL_S)


def _quantiles(found: Latencies) -> list[float]:
    """p50 and p99 of puts, then of gets, in ms."""
    values = []
    for taken in (found.taken_s["put"], found.taken_s["get"]):
        ordered = sorted(taken) or [0.0]
        values += [ordered[int(len(ordered) * share)] * 1000 for share in QUANTILES]
    return values


def _print_medians(results: Sequence[Result]) -> None:
    shares = [100 * each.scrub_mib_s / each.drive_mib_s for each in results]
    rates = [each.scrub_mib_s for each in results]
    print(
        f"median of {len(results)}: scrub {statistics.median(rates):.0f} MiB/s of each drive,"
        f" {statistics.median(shares):.0f} % of its speed,"
        f" {statistics.median(each.cpu_ms_per_mib for each in results):.2f} ms per MiB"
    )
    columns = list(zip(*(each.quantiles_ms for each in results), strict=True))
    half = len(columns) // 2
    for number, name in enumerate(("put p50", "put p99", "get p50", "get p99")):
        before, during = (statistics.median(columns[number + at]) for at in (0, half))
        times = f", {during / before:.1f} times" if before else ""
        print(f"  {name}: {before:.1f} ms before, {during:.1f} ms during{times}")


if __name__ == "__main__":
    main()
