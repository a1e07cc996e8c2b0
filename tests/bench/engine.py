"""Durable small puts through the mirror engine: ``python -m tests.bench.engine [DIRECTORY]``.

A store process, this process as the gateway, many concurrent callers. Prints puts per second, the
processor time each side spent per put, and flushes per put; asserts nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import uvloop

from appliance.engine.interface import Batch, Charge, Limit, Partition, Put
from appliance.engine.mirror.client import MirrorEngine
from appliance.engine.mirror.connecting import connect_engine
from tests.conformance.mirrors import StoreProcess, lay_out

PARTITION = Partition("bench")


@dataclass(frozen=True, slots=True)
class Load:
    """What to do."""

    callers: int
    seconds: float
    blob_bytes: int


async def put_for(engine: MirrorEngine, load: Load, caller: int, end_s: float) -> int:
    """Put until the time is over; how many."""
    count = 0
    data = os.urandom(load.blob_bytes)
    while time.monotonic() < end_s:
        writer = engine.blob_writer(len(data))
        await writer.write(data)
        put = Put(
            b"object/%04d/%08d" % (caller, count),
            b"v" * 200,
            await writer.finish(),
            [Charge(b"bytes", len(data)), Charge(b"objects", 1)],
        )
        await engine.commit(PARTITION, Batch([put], (), [Limit(b"bytes", 10**15)]))
        count += 1
    return count


async def read_for(engine: MirrorEngine, load: Load, caller: int, end_s: float) -> int:
    """Read what ``put_for`` wrote, record and blob; how many."""
    count = 0
    while time.monotonic() < end_s:
        (record,) = await engine.read(PARTITION, [b"object/%04d/%08d" % (caller, count % 200)])
        assert record is not None and record.blob is not None
        async for piece in engine.blob_read(record.blob):
            assert piece
        count += 1
    return count


async def main(directory: Path, load: Load) -> None:
    """Run the load and print what came of it."""
    store = StoreProcess(directory, lay_out(directory))
    await store.start()
    engine = await connect_engine(store.socket, role="gateway")
    await engine.ready(20)
    process = psutil.Process(store.pid)
    try:
        for name, work in (("put", put_for), ("get", read_for)):
            before, own = process.cpu_times(), resource.getrusage(resource.RUSAGE_SELF)
            began = time.monotonic()
            end_s = began + load.seconds
            done = sum(
                await asyncio.gather(*(work(engine, load, n, end_s) for n in range(load.callers)))
            )
            took = time.monotonic() - began
            after, then = process.cpu_times(), resource.getrusage(resource.RUSAGE_SELF)
            spent = (after.user + after.system - before.user - before.system) / done
            mine = (then.ru_utime + then.ru_stime - own.ru_utime - own.ru_stime) / done
            print(
                f"{name}: {done / took:,.0f}/s, store {spent * 1e6:.0f} us, "
                f"gateway {mine * 1e6:.0f} us each"
            )
    finally:
        await engine.close()
        await store.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?")
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--blob-bytes", type=int, default=4096)
    chosen = parser.parse_args()
    place = Path(tempfile.mkdtemp(dir=chosen.directory, prefix="engine-bench-"))
    try:
        uvloop.run(main(place, Load(chosen.callers, chosen.seconds, chosen.blob_bytes)))
    finally:
        shutil.rmtree(place)
