"""How fast a scrub is, as a share of what the drives give, and what clients feel of it.

    python -m tests.bench.scrub --gib 2

Root is needed for the loop drives. The store runs in a process of its own; the load is small
durable puts and reads of what was put, over the engine's client. Drive speed is fio's, sequential,
direct, both drives at once, in the same run. Only ratios within one run mean something.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from appliance.core.scrubs import ScrubOrder, ScrubRun
from appliance.engine.interface import Batch, Engine, Partition, Put
from appliance.engine.mirror.client import MirrorEngine
from appliance.engine.mirror.connecting import connect_engine
from appliance.engine.mirror.launch import DrivePath, make_mirror
from tests.bench.drives import Drive, two_drives
from tests.bench.fio import MIB, sequential_mib_per_second
from tests.conformance.deeds import one, read_blob, write_blob
from tests.conformance.mirrors import MIRROR_ID, StoreProcess

PARTITION: Final = Partition("bench")
INLINE_BYTES: Final = 64 * 1024
LARGE_BYTES: Final = 8 * MIB
SMALL_BYTES: Final = 4096
FILLERS: Final = 8
POLL_S: Final = 0.2


@dataclass
class Latencies:
    """Of one kind of call, in seconds."""

    puts: list[float] = field(default_factory=list)
    gets: list[float] = field(default_factory=list)

    def row(self, name: str) -> str:
        """As a line of the table."""
        cells = [_quantiles(self.puts), _quantiles(self.gets)]
        return f"{name:<18} puts {len(self.puts):>6}  {cells[0]}   gets {cells[1]}"


def _quantiles(samples: Sequence[float]) -> str:
    ordered = sorted(samples)
    if not ordered:
        return "-"
    p50, p99 = (ordered[int(len(ordered) * share)] * 1000 for share in (0.5, 0.99))
    return f"p50 {p50:6.2f} ms p99 {p99:7.2f} ms"


def main() -> None:
    """Measure and print."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="bench-scrub-", dir=options.scratch) as name:
        home = Path(name)
        size_bytes = int(options.gib * 1024**3 * 1.5) + 4 * 1024**3
        with two_drives(home / "drives", size_bytes) as drives:
            asyncio.run(_measure(home, drives, options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gib", type=float, default=2.0, help="to fill, half of it inline")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--duration", type=float, default=10.0, help="seconds of load alone")
    parser.add_argument("--scratch", type=Path, default=Path("/var/tmp"))
    return parser.parse_args()


async def _measure(home: Path, drives: Sequence[Drive], options: argparse.Namespace) -> None:
    process = StoreProcess(home, _lay_out(home, drives))
    await process.start()
    engine = await connect_engine(process.socket, role="bench")
    try:
        await engine.ready(60)
        await _fill(engine, int(options.gib * 1024**3))
        speed = _drive_speed(drives)
        idle, idle_s = await _scrub(engine)
        print(f"drives, sequential, both at once: {speed:.0f} MiB/s each")
        _print_scrub("scrub, no clients", idle, idle_s, speed)
        quiet = await _load(engine, options.clients, asyncio.sleep(options.duration))
        under_way: list[tuple[ScrubRun, float]] = []

        async def scrub() -> None:
            under_way.append(await _scrub(engine))

        busy = await _load(engine, options.clients, scrub())
        _print_scrub("scrub, clients", *under_way[0], speed)
        print(quiet.row("without a scrub"))
        print(busy.row("during a scrub"))
    finally:
        await engine.close()
        await process.stop()


def _lay_out(home: Path, drives: Sequence[Drive]) -> dict[str, object]:
    paths = [DrivePath(f"drive-{d.mount.parent.name}", d.mount) for d in drives]
    index, witness = home / "index", home / "witness" / "w"
    make_mirror(MIRROR_ID, paths, index_directory=index, witness_file=witness)
    members = [{"drive": p.drive_id, "path": str(p.path), "serial": ""} for p in paths]
    return {
        "mirror": "bench",
        "members": members,
        "index_directory": str(index),
        "witness_file": str(witness),
    }


async def _fill(engine: Engine, size_bytes: int) -> None:
    """Half inline, half as files."""
    small, large = os.urandom(INLINE_BYTES), os.urandom(LARGE_BYTES)

    async def put(kind: bytes, data: bytes, numbers: range) -> None:
        for number in numbers:
            blob = await write_blob(engine, data)
            await engine.commit(PARTITION, Batch([Put(b"%s %d" % (kind, number), b"", blob)]))

    for kind, data in ((b"small", small), (b"large", large)):
        count = size_bytes // 2 // len(data)
        await asyncio.gather(
            *(put(kind, data, range(first, count, FILLERS)) for first in range(FILLERS))
        )


def _drive_speed(drives: Sequence[Drive]) -> float:
    """MiB/s of the slower one, both at once, of a file that was just written."""
    sequential_mib_per_second(drives, "write")
    return min(sequential_mib_per_second(drives, "read"))


async def _scrub(engine: MirrorEngine) -> tuple[ScrubRun, float]:
    """A scrub from begin to end, and its seconds."""
    began_s = time.monotonic()
    await engine.scrub(ScrubOrder.START)
    while True:
        report = await engine.scrub(ScrubOrder.LOOK)
        if report.current is None:
            break
        await asyncio.sleep(POLL_S)
    assert report.last is not None
    assert report.last.found == 0, report.last
    return report.last, time.monotonic() - began_s


def _print_scrub(name: str, run: ScrubRun, took_s: float, speed: float) -> None:
    rate = min(drive.read_bytes for drive in run.drives) / MIB / took_s
    print(
        f"{name}: {rate:.0f} MiB/s of each drive, {100 * rate / speed:.0f} % of its speed, "
        f"{took_s:.1f} s for {run.done_bytes / MIB:.0f} MiB; index {run.index}"
    )


async def _load(engine: Engine, clients: int, until: Awaitable[object]) -> Latencies:
    """Small durable puts, each read back, until the awaitable is over."""
    found = Latencies()
    ended = asyncio.Event()
    data = os.urandom(SMALL_BYTES)

    async def client(number: int) -> None:
        turn = 0
        while not ended.is_set():
            key = b"client %d/%d" % (number, turn % 1000)
            began_s = time.monotonic()
            blob = await write_blob(engine, data)
            await engine.commit(PARTITION, Batch([Put(key, b"", blob)]))
            put_s = time.monotonic()
            await read_blob(engine, (await one(engine, PARTITION, key)).blob)
            found.gets.append(time.monotonic() - put_s)
            found.puts.append(put_s - began_s)
            turn += 1

    tasks = [asyncio.create_task(client(number)) for number in range(clients)]
    await until
    ended.set()
    await asyncio.gather(*tasks)
    return found


if __name__ == "__main__":
    main()
