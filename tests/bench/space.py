"""Room on nearly full drives: ``python -m tests.bench.space [--gigabytes 4] [--share 80]``.

Two XFS loop drives with direct I/O are filled to a share of the mirror's capacity, half of the
bytes inline and half in files, then random objects are overwritten until so many times the capacity
is written. Prints what was refused, what lies on a drive for a byte that lives (at most, and when
the store has come to rest), and what was written to a drive for a byte put. Needs root; asserts
nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import uvloop

from appliance.core.errors import NoSpace
from appliance.engine.interface import Batch, Partition, Put
from appliance.engine.mirror.client import MirrorEngine
from appliance.engine.mirror.connecting import connect_engine
from appliance.engine.mirror.launch import DrivePath, make_mirror
from tests.bench.drives import Drive, two_drives
from tests.bench.fio import MIB
from tests.conformance.mirrors import MIRROR_ID, StoreProcess

PARTITION: Final = Partition("bench")
INLINE_BYTES: Final = 100_000
FILE_BYTES: Final = 4_000_000
SEGMENT_BYTES: Final = 16 * MIB
WRITERS: Final = 8
LOOK_EVERY_S: Final = 0.5
REST_S: Final = 90.0
"""Longer than a freed segment's grace; what is left then waits for the grace of released files."""
SECTOR_BYTES: Final = 512


class Tenant:
    """Overwrites a fixed set of objects."""

    def __init__(self, engine: MirrorEngine, drives: Sequence[Drive], live_bytes: int) -> None:
        self.sizes: Final = [INLINE_BYTES] * (live_bytes // 2 // INLINE_BYTES)
        self.sizes.extend([FILE_BYTES] * (live_bytes // 2 // FILE_BYTES))
        self.live_bytes: Final = sum(self.sizes)
        self.written_bytes = 0
        self.refused = 0
        self.peak = 0.0
        self._engine: Final = engine
        self._drives: Final = drives
        self._empty_bytes: Final = [_used_bytes(drive) for drive in drives]
        self._data: Final = os.urandom(FILE_BYTES)
        self._rng: Final = random.Random(5)
        # Half of the bytes inline, half in files, as they were filled.
        self._weights: Final = [1 / size for size in self.sizes]

    async def fill(self) -> None:
        """Each object once."""
        numbers = iter(range(len(self.sizes)))
        await asyncio.gather(*(self._put_all(numbers) for _ in range(WRITERS)))

    async def overwrite(self, total_bytes: int) -> None:
        """Random ones, and look at the drives meanwhile."""
        end_bytes = self.written_bytes + total_bytes
        watch = asyncio.create_task(self._watch())
        numbers = range(len(self.sizes))

        async def write() -> None:
            while self.written_bytes < end_bytes:
                await self._put_all(self._rng.choices(numbers, self._weights, k=16))

        await asyncio.gather(*(write() for _ in range(WRITERS)))
        watch.cancel()

    def amplification(self) -> float:
        """Bytes on the fuller drive for a byte that lives."""
        used = [
            _used_bytes(drive) - empty
            for drive, empty in zip(self._drives, self._empty_bytes, strict=True)
        ]
        return max(used) / self.live_bytes

    async def _put_all(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            await self._put(number)

    async def _put(self, number: int) -> None:
        size = self.sizes[number]
        try:
            writer = self._engine.blob_writer(size)
            await writer.write(self._data[:size])
            put = Put(b"object/%06d" % number, b"v" * 200, await writer.finish())
            await self._engine.commit(PARTITION, Batch([put]))
        except NoSpace:
            self.refused += 1
        self.written_bytes += size

    async def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, self.amplification())
            await asyncio.sleep(LOOK_EVERY_S)


def _used_bytes(drive: Drive) -> int:
    found = os.statvfs(drive.mount)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


async def measure(home: Path, drives: Sequence[Drive], share: int, times: float) -> None:
    """Everything, one line each."""
    paths = [DrivePath(drive.mount.parent.name, drive.mount) for drive in drives]
    index, witness = home / "index", home / "witness" / "w"
    make_mirror(
        MIRROR_ID, paths, index_directory=index, witness_file=witness,
        segment_size_bytes=SEGMENT_BYTES,
    )  # fmt: skip
    assembly = {
        "mirror": "m0",
        "members": [{"drive": each.drive_id, "path": str(each.path)} for each in paths],
        "index_directory": str(index),
        "witness_file": str(witness),
    }
    store = StoreProcess(home, assembly)
    await store.start()
    engine = await connect_engine(store.socket, role="gateway")
    try:
        await engine.ready(60)
        capacity = (await engine.health()).total_bytes
        tenant = Tenant(engine, drives, capacity * share // 100)
        await tenant.fill()
        print(f"filled {share} % of {capacity / MIB:,.0f} MiB", flush=True)
        sectors, began_s = [drive.sectors_written() for drive in drives], time.monotonic()
        before_bytes = tenant.written_bytes
        await tenant.overwrite(int(times * capacity))
        took_s = time.monotonic() - began_s
        written = tenant.written_bytes - before_bytes
        on_drive = max(
            drive.sectors_written() - before for drive, before in zip(drives, sectors, strict=True)
        )
        print(
            f"overwrote {written / capacity:.1f} times the capacity at"
            f" {written / took_s / MIB:.0f} MiB/s: {tenant.refused} puts refused,"
            f" {tenant.peak:.2f} bytes on a drive for a living one at most,"
            f" {on_drive * SECTOR_BYTES / written:.2f} written to a drive for one put",
            flush=True,
        )
        await asyncio.sleep(REST_S)
        print(f"at rest, after {REST_S:.0f} s: {tenant.amplification():.2f}")
    finally:
        await engine.close()
        await store.stop()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=4.0, help="size of a drive")
    parser.add_argument("--share", type=int, default=80, help="percent of the capacity that lives")
    parser.add_argument("--times", type=float, default=10.0, help="capacities to overwrite")
    parser.add_argument("--scratch", type=Path, default=Path("/var/tmp"))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-space-", dir=chosen.scratch) as name:
        home = Path(name)
        with two_drives(home / "drives", int(chosen.gigabytes * 1e9)) as drives:
            uvloop.run(measure(home, drives, chosen.share, chosen.times))


if __name__ == "__main__":
    main()
