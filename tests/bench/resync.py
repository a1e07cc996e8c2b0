"""A full resync of a mixed load, and what clients notice of it.

    python -m tests.bench.resync [--gigabytes 10] [--times 3] [--saturate] [--scratch DIRECTORY]

Needs root and fio. Four XFS file systems on loop devices with direct I/O: a mirror of two, filled
with objects of which half the bytes are inline; then an empty drive is brought in again and again,
with nobody there, while clients read and write at a steady pace, and, with ``--saturate``, while
four writers never rest. Prints MiB/s, and as a share of what fio says that the slower drive does
just before, and the clients' p50 and p99 before and during: each time, and the medians. Asserts
nothing. ``--gigabytes 1 --times 1`` takes a minute or two; small figures suffer from what is to be
made once, the free segments of the log.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import psutil
import uvloop

from appliance.core.errors import NoSpace
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
DRIVES: Final = ("a", "b", "c", "d")
IDLE_AFTER_S: Final = 3.0
"""After the last request of a client: by then clients do not count as active any more."""
BEFORE_S: Final = 10.0
WRITERS: Final = 4
KEYS_AT_ONCE: Final = 100
"""Of a writer that never rests, which then writes over the first of them."""


@dataclass(slots=True)
class Latencies:
    """Seconds each operation took."""

    taken_s: dict[str, list[float]] = field(default_factory=lambda: {"put": [], "get": []})

    def percentile_ms(self, kind: str, share: float) -> float:
        """So many of this kind took no longer."""
        ordered = sorted(self.taken_s[kind])
        return 1000 * ordered[int(len(ordered) * share)]

    def words(self) -> str:
        """p50 and p99 of each kind."""
        return "; ".join(
            f"{kind} {len(taken)}: p50 {self.percentile_ms(kind, 0.5):.1f} ms, "
            f"p99 {self.percentile_ms(kind, 0.99):.1f} ms"
            for kind, taken in self.taken_s.items()
        )


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


@dataclass(slots=True)
class Bench:
    """An open mirror of drive ``a`` and another one, and two to be brought in in turn."""

    home: Path
    drives: Mapping[str, Drive]
    store: StoreProcess
    engine: MirrorEngine
    inline: int
    times: int
    count: int = 0

    def prepare(self) -> tuple[str, float]:
        """The next drive, emptied, and what the slower of it and its source does by itself in
        MiB/s. Blocking: nobody may be measured meanwhile."""
        new = ("c", "d")[self.count % 2]
        self.count += 1
        for path in self.drives[new].mount.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        speeds = [
            min(sequential_mib_per_second([self.drives[name]], kind))
            for name in (new, "a")
            for kind in ("write", "read")
        ]
        return new, min(speeds)

    async def bring_in(self, new: str) -> tuple[float, float]:
        """MiB that were to be moved at the beginning, and seconds."""
        message = assembly(self.home, {"a": self.drives["a"], new: self.drives[new]})
        last, took_s = await bring_in(self.store.socket, self.engine, message, new)
        return last.resync_total / MIB, took_s

    async def idle(self) -> None:
        """With nobody there."""
        shares, rates = [], []
        process = psutil.Process(self.store.pid)
        for _ in range(self.times):
            new, speed = self.prepare()
            await asyncio.sleep(IDLE_AFTER_S)
            spent_s = -sum(process.cpu_times()[:2])
            moved, took_s = await self.bring_in(new)
            spent_s += sum(process.cpu_times()[:2])
            rates.append(moved / took_s)
            shares.append(100 * moved / took_s / speed)
            print(
                f"resync, idle: {moved:.0f} MiB in {took_s:.1f} s, {rates[-1]:.0f} MiB/s, "
                f"{shares[-1]:.0f} % of the slower drive's {speed:.0f}; "
                f"{1000 * spent_s / moved:.1f} ms of processor time per MiB",
                flush=True,
            )
        print(f"median: {median(rates):.0f} MiB/s, {median(shares):.0f} %", flush=True)

    async def busy(self) -> None:
        """While clients work at their pace."""
        ratios: dict[str, list[float]] = {"put": [], "get": []}
        for _ in range(self.times):
            new, _ = self.prepare()
            async with Clients(self.engine, self.inline) as before:
                await asyncio.sleep(BEFORE_S)
            print(f"clients before: {before.words()}", flush=True)
            async with Clients(self.engine, self.inline) as during:
                moved, took_s = await self.bring_in(new)
            print(
                f"resync, clients active: {moved:.0f} MiB in {took_s:.1f} s, "
                f"{moved / took_s:.0f} MiB/s\nclients during: {during.words()}",
                flush=True,
            )
            for kind, found in ratios.items():
                found.append(during.percentile_ms(kind, 0.99) / before.percentile_ms(kind, 0.99))
        words = ", ".join(f"{kind} {median(found):.1f}" for kind, found in ratios.items())
        print(f"median of p99 during over p99 before: {words}", flush=True)

    async def saturated(self) -> None:
        """While writers never rest: how long it takes, and what they write meanwhile."""
        new, _ = self.prepare()
        over, written = asyncio.Event(), 0
        data = os.urandom(max(FILE_SIZES))

        async def write(number: int) -> None:
            nonlocal written
            for count in itertools.count():
                if over.is_set():
                    return
                size = (INLINE_BYTES, *FILE_SIZES)[count % (1 + len(FILE_SIZES))]
                key = b"saturate/%d/%08d" % (number, count % KEYS_AT_ONCE)
                try:
                    await _put(self.engine, key, data[:size])
                except NoSpace:  # what was written over is given back later only
                    await asyncio.sleep(EVERY_S)
                else:
                    written += size

        writers = [asyncio.create_task(write(number)) for number in range(WRITERS)]
        moved, took_s = await self.bring_in(new)
        over.set()
        await asyncio.gather(*writers)
        print(
            f"resync, {WRITERS} writers that never rest: in sync after {took_s:.1f} s, "
            f"{moved:.0f} MiB at its beginning, {written / MIB:.0f} MiB written meanwhile",
            flush=True,
        )


async def measure(home: Path, drives: Sequence[Drive], options: argparse.Namespace) -> None:
    """Everything, one line each."""
    named = dict(zip(DRIVES, drives, strict=True))
    total_bytes = int(options.gigabytes * 1e9)
    make_mirror(
        MIRROR_ID,
        [DrivePath(name, named[name].mount, name) for name in ("a", "b")],
        index_directory=home / "index",
        witness_file=home / "witness" / "w",
    )
    store = StoreProcess(home, assembly(home, {name: named[name] for name in ("a", "b")}))
    await store.start()
    engine = await connect_engine(store.socket, role="gateway")
    try:
        await engine.ready(60)
        began = time.monotonic()
        inline = await fill(engine, total_bytes)
        rate = total_bytes / MIB / (time.monotonic() - began)
        print(f"filled with {total_bytes / 1e9:.1f} GB at {rate:.0f} MiB/s", flush=True)
        bench = Bench(home, named, store, engine, inline, options.times)
        await bench.idle()
        await bench.busy()
        if options.saturate:
            await bench.saturated()
    finally:
        await engine.close()
        await store.stop()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--saturate", action="store_true")
    parser.add_argument("--scratch", type=Path, default=None)
    options = parser.parse_args()
    size_bytes = int(3 * options.gigabytes * 1e9) + 4 * 10**9
    with tempfile.TemporaryDirectory(prefix="bench-resync-", dir=options.scratch) as name:
        home = Path(name)
        with fresh_drives(home, DRIVES, size_bytes) as drives:
            uvloop.run(measure(home, drives, options))


if __name__ == "__main__":
    main()
