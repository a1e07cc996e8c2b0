"""A full resync of a mixed load, and what clients notice of it.

    python -m tests.bench.resync [--gigabytes 10] [--scratch DIRECTORY]

Needs root and fio. Four XFS file systems on loop devices with direct I/O: a mirror of two, filled
with objects of which half the bytes are inline, then an empty drive is brought in twice, once with
nobody there and once while clients read and write. Prints MiB/s as a share of what fio says the
drives do in the same run, and the clients' p50 and p99 before and during; asserts nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import uvloop

from appliance.engine.interface import Batch, Health, Partition, Put
from appliance.engine.mirror.client import MirrorEngine
from appliance.engine.mirror.connecting import connect_engine
from appliance.engine.mirror.launch import DrivePath, make_mirror
from appliance.runtime.ipc import connect
from tests.bench.drives import Drive, fresh_drives
from tests.bench.fio import MIB, sequential_mib_per_second
from tests.conformance.mirrors import MIRROR_ID, StoreProcess

PARTITION: Final = Partition("bench")
INLINE_BYTES: Final = 100_000
FILE_SIZES: Final = (300_000, 1_000_000, 8_000_000)
FILLERS: Final = 12
CLIENTS: Final = 8
EVERY_S: Final = 0.02
"""How often each client asks for something."""


@dataclass(slots=True)
class Latencies:
    """Seconds each operation took."""

    taken_s: dict[str, list[float]] = field(default_factory=lambda: {"put": [], "get": []})

    def words(self) -> str:
        """p50 and p99 of each kind."""
        found = []
        for kind, taken in self.taken_s.items():
            ordered = sorted(taken) or [0.0]
            p50, p99 = (ordered[int(len(ordered) * share)] * 1000 for share in (0.5, 0.99))
            found.append(f"{kind} {len(taken)}: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
        return "; ".join(found)


async def _put(engine: MirrorEngine, key: bytes, data: bytes) -> None:
    writer = engine.blob_writer(len(data))
    await writer.write(data)
    await engine.commit(PARTITION, Batch([Put(key, b"v" * 200, await writer.finish())]))


async def fill(engine: MirrorEngine, total_bytes: int) -> int:
    """Half of the bytes inline, half in files; how many inline objects there are."""
    inline = total_bytes // 2 // INLINE_BYTES
    sizes = [INLINE_BYTES] * inline
    files, at = total_bytes // 2, 0
    while files > 0:
        sizes.append(FILE_SIZES[at % len(FILE_SIZES)])
        files -= sizes[-1]
        at += 1
    feed = iter(enumerate(sizes))
    data = os.urandom(max(FILE_SIZES))

    async def work() -> None:
        for number, size in feed:
            await _put(engine, b"object/%08d" % number, data[:size])

    await asyncio.gather(*(work() for _ in range(FILLERS)))
    return inline


async def client(
    engine: MirrorEngine, number: int, inline: int, until: asyncio.Event, found: Latencies
) -> None:
    """Reads, and every fourth time writes, at a steady pace."""
    chance, count, data = random.Random(number), 0, os.urandom(4096)
    while not until.is_set():
        began = time.monotonic()
        count += 1
        if count % 4 == 0:
            await _put(engine, b"client/%02d/%06d" % (number, count), data)
            found.taken_s["put"].append(time.monotonic() - began)
        else:
            key = b"object/%08d" % chance.randrange(inline)
            (record,) = await engine.read(PARTITION, [key])
            assert record is not None and record.blob is not None
            async for piece in engine.blob_read(record.blob):
                assert piece
            found.taken_s["get"].append(time.monotonic() - began)
        await asyncio.sleep(max(0.0, EVERY_S - (time.monotonic() - began)))


class Clients:
    """``CLIENTS`` of them for as long as it is entered."""

    def __init__(self, engine: MirrorEngine, inline: int) -> None:
        self.found = Latencies()
        self._over = asyncio.Event()
        self._engine, self._inline = engine, inline
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Latencies:
        self._tasks = [
            asyncio.create_task(client(self._engine, n, self._inline, self._over, self.found))
            for n in range(CLIENTS)
        ]
        return self.found

    async def __aexit__(self, *_error: object) -> None:
        self._over.set()
        await asyncio.gather(*self._tasks)


def assembly(home: Path, drives: Mapping[str, Drive]) -> dict[str, Any]:
    """Control's message for these drives."""
    return {
        "mirror": "m0",
        "members": [{"drive": name, "path": str(d.mount)} for name, d in drives.items()],
        "index_directory": str(home / "index"),
        "witness_file": str(home / "witness" / "w"),
    }


async def bring_in(
    socket: Path, engine: MirrorEngine, message: Mapping[str, Any], new: str
) -> tuple[Health, float]:
    """Tell the store of its drives, and wait until the new one is in sync: the last health in which
    it was not, and how long that took."""
    peer = await connect(socket, role="control", handlers={})
    try:
        began = time.monotonic()
        await peer.call("assembly_changed", message)
        last = await engine.health()
        while True:
            health = await engine.health()
            if any(each.drive_id == new and each.in_sync for each in health.members):
                return last, time.monotonic() - began
            last = health if health.resync_total else last
            await asyncio.sleep(0.1)
    finally:
        peer.close()


async def measure(home: Path, drives: Sequence[Drive], total_bytes: int) -> None:
    """Everything, one line each."""
    a, b, c, d = drives
    (writes,), (reads,) = (sequential_mib_per_second([c], kind) for kind in ("write", "read"))
    speed = min(writes, reads)
    print(f"fio, one drive alone: write {writes:.0f} MiB/s, read {reads:.0f} MiB/s", flush=True)
    make_mirror(
        MIRROR_ID,
        [DrivePath("a", a.mount, "a"), DrivePath("b", b.mount, "b")],
        index_directory=home / "index",
        witness_file=home / "witness" / "w",
    )
    store = StoreProcess(home, assembly(home, {"a": a, "b": b}))
    await store.start()
    engine = await connect_engine(store.socket, role="gateway")
    try:
        await engine.ready(60)
        began = time.monotonic()
        inline = await fill(engine, total_bytes)
        rate = total_bytes / MIB / (time.monotonic() - began)
        print(f"filled with {total_bytes / 1e9:.1f} GB at {rate:.0f} MiB/s", flush=True)
        async with Clients(engine, inline) as before:
            await asyncio.sleep(20)
        print(f"clients before: {before.words()}", flush=True)
        await asyncio.sleep(5)
        process = psutil.Process(store.pid)
        spent_s = -sum(process.cpu_times()[:2])
        last, took_s = await bring_in(store.socket, engine, assembly(home, {"a": a, "c": c}), "c")
        spent_s += sum(process.cpu_times()[:2])
        moved = last.resync_total / MIB
        print(
            f"resync, idle: {moved:.0f} MiB in {took_s:.1f} s, {moved / took_s:.0f} MiB/s, "
            f"{100 * moved / took_s / speed:.0f} % of the drive's {speed:.0f}; "
            f"{1000 * spent_s / moved:.1f} ms of processor time per MiB",
            flush=True,
        )
        async with Clients(engine, inline) as during:
            await asyncio.sleep(2)
            message = assembly(home, {"a": a, "d": d})
            last, took_s = await bring_in(store.socket, engine, message, "d")
        moved = last.resync_total / MIB
        print(f"resync, clients active: {moved:.0f} MiB in {took_s:.1f} s, "
              f"{moved / took_s:.0f} MiB/s")  # fmt: skip
        print(f"clients during: {during.words()}")
    finally:
        await engine.close()
        await store.stop()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--scratch", type=Path, default=None)
    chosen = parser.parse_args()
    total_bytes = int(chosen.gigabytes * 1e9)
    with tempfile.TemporaryDirectory(prefix="bench-resync-", dir=chosen.scratch) as name:
        home = Path(name)
        with fresh_drives(home, ("a", "b", "c", "d"), 2 * total_bytes + 4 * 10**9) as drives:
            uvloop.run(measure(home, drives, total_bytes))


if __name__ == "__main__":
    main()
