"""How cost grows with the number of objects: ``python -m tests.bench.growth --objects N ...``.

One store process on two directories, this process as the gateway. For each N: a fresh mirror is
filled, then single operations, memory and room are measured, then how long an open takes until the
first GET and the first PUT are answered: with the index current (a clean stop), one checkpoint
behind (the worst a power cut leaves) and deleted. Files are dropped from the page cache before each
open. Prints the rows of a table; asserts nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import uvloop

from appliance.engine.interface import Batch, Charge, Partition, Put
from appliance.engine.mirror.client import MirrorEngine
from appliance.engine.mirror.connecting import connect_engine
from appliance.engine.mirror.launch import DrivePath, make_mirror
from appliance.engine.mirror.segment import SEGMENT_BYTES_DEFAULT
from appliance.engine.mirror.state import StoreSettings
from tests.conformance.mirrors import DRIVES, MIRROR_ID, StoreProcess

PARTITION = Partition("bench")
FILLERS = 8
PUTS_IN_A_BATCH = 100
PROBES = 400
PAGE = 1000
OPEN_S = 7200.0
STALE_BYTES = StoreSettings().checkpoint_every_bytes


@dataclass(slots=True)
class Row:
    """What is told of one size."""

    objects: int
    fill_per_s: float = 0.0
    put_ms: float = 0.0
    get_ms: float = 0.0
    page_ms: float = 0.0
    store_mib: float = 0.0
    log_bytes: float = 0.0
    index_bytes: float = 0.0
    opens: str = ""

    def __str__(self) -> str:
        return (
            f"| {self.objects:,} | {self.fill_per_s:,.0f} | {self.put_ms:.2f} | {self.get_ms:.2f} |"
            f" {self.page_ms:.1f} | {self.store_mib:.0f} | {self.log_bytes:,.0f} |"
            f" {self.index_bytes:.0f} |{self.opens}"
        )


HEADER = (
    "| objects | filled, per s | put, ms | get, ms | page of 1,000, ms | store, MiB |"
    " log bytes per object and drive | index bytes per object |"
    " open current, s (GET, PUT) | one checkpoint behind, s | index deleted, s |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)


class Bench:
    """One mirror of ``objects`` objects."""

    def __init__(self, directory: Path, objects: int, blob_bytes: int) -> None:
        self._directory = directory
        self._blob_bytes = blob_bytes
        self._rng = random.Random(objects)
        self._written = 0
        self._row = Row(objects)
        self._store = StoreProcess(directory, self._lay_out())

    def _lay_out(self) -> dict[str, object]:
        drives = []
        for name in DRIVES:
            (self._directory / name).mkdir()
            drives.append(DrivePath(name, self._directory / name, f"serial-{name}"))
        index, witness = self._directory / "index", self._directory / "witness" / "w"
        make_mirror(
            MIRROR_ID,
            drives,
            index_directory=index,
            witness_file=witness,
            segment_size_bytes=SEGMENT_BYTES_DEFAULT,
        )
        return {
            "mirror": "m1",
            "members": [
                {"drive": d.drive_id, "path": str(d.path), "serial": d.serial} for d in drives
            ],
            "index_directory": str(index),
            "witness_file": str(witness),
        }

    async def run(self) -> Row:
        """All of it."""
        engine = await self._started()
        began_s = time.monotonic()
        await self._fill(engine, self._row.objects)
        self._row.fill_per_s = self._row.objects / (time.monotonic() - began_s)
        await self._probe(engine)
        await self._stop(engine)
        log = _tree_bytes(self._directory / DRIVES[0] / "log")
        self._row.log_bytes = log / self._written
        self._row.index_bytes = _tree_bytes(self._directory / "index") / self._written
        opens = [await self._open()]
        kept = self._directory / "kept"
        shutil.copytree(self._directory / "index", kept)
        engine = await self._started()
        await self._fill(engine, STALE_BYTES // (self._blob_bytes + 300))
        await engine.close()
        await self._store.kill()
        self._replace_index(kept)
        opens.append(await self._open())
        self._replace_index(None)
        opens.append(await self._open())
        self._row.opens = "".join(f" {get_s:.1f}, {put_s:.1f} |" for get_s, put_s in opens)
        return self._row

    async def _started(self) -> MirrorEngine:
        await self._store.start()
        engine = await connect_engine(self._store.socket, role="gateway")
        await engine.ready(OPEN_S)
        return engine

    async def _stop(self, engine: MirrorEngine) -> None:
        await engine.close()
        await self._store.stop()

    async def _open(self) -> tuple[float, float]:
        """Seconds until the first GET, and the first PUT, were answered."""
        _forget(self._directory)
        began_s = time.monotonic()
        engine = await self._started()
        await self._get(engine)
        get_s = time.monotonic() - began_s
        await self._put(engine)
        put_s = time.monotonic() - began_s
        await self._stop(engine)
        return get_s, put_s

    def _replace_index(self, other: Path | None) -> None:
        index = self._directory / "index"
        shutil.rmtree(index)
        if other is None:
            index.mkdir()
        else:
            shutil.move(other, index)

    async def _fill(self, engine: MirrorEngine, count: int) -> None:
        first, last = self._written, self._written + count
        starts = iter(range(first, last, PUTS_IN_A_BATCH))

        async def fill() -> None:
            for start in starts:
                numbers = range(start, min(start + PUTS_IN_A_BATCH, last))
                await engine.commit(
                    PARTITION, Batch([await self._make(engine, n) for n in numbers])
                )

        await asyncio.gather(*(fill() for _ in range(FILLERS)))
        self._written = last

    async def _make(self, engine: MirrorEngine, number: int) -> Put:
        writer = engine.blob_writer(self._blob_bytes)
        await writer.write(self._rng.randbytes(16) * (self._blob_bytes // 16))
        blob = await writer.finish()
        charges = [Charge(b"bytes", blob.size_bytes), Charge(b"objects", 1)]
        return Put(_key(number), b"v" * 200, blob, charges)

    async def _put(self, engine: MirrorEngine) -> None:
        put = await self._make(engine, self._written)
        await engine.commit(PARTITION, Batch([put]))
        self._written += 1

    async def _get(self, engine: MirrorEngine) -> None:
        key = _key(self._rng.randrange(self._written))
        (record,) = await engine.read(PARTITION, [key])
        assert record is not None and record.blob is not None
        async for _piece in engine.blob_read(record.blob):
            pass

    async def _page(self, engine: MirrorEngine) -> None:
        start = _key(self._rng.randrange(self._written))
        await engine.scan(PARTITION, start, b"\xff", PAGE)

    async def _probe(self, engine: MirrorEngine) -> None:
        self._row.put_ms = await _median_ms(lambda: self._put(engine), PROBES)
        self._row.get_ms = await _median_ms(lambda: self._get(engine), PROBES)
        self._row.page_ms = await _median_ms(lambda: self._page(engine), PROBES // 8)
        self._row.store_mib = psutil.Process(self._store.pid).memory_info().rss / 2**20


def _key(number: int) -> bytes:
    """Spread over the key space, as hashed names are."""
    return b"object/%016x/%010d" % (number * 0x9E3779B97F4A7C15 % 2**64, number)


async def _median_ms(work: Callable[[], Awaitable[None]], times: int) -> float:
    took = []
    for _ in range(times):
        began_s = time.perf_counter()
        await work()
        took.append(time.perf_counter() - began_s)
    return statistics.median(took) * 1000


def _tree_bytes(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


def _forget(directory: Path) -> None:
    """Out of the page cache."""
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


async def main(directory: Path | None, sizes: list[int], blob_bytes: int) -> None:
    """Run each size and print its row."""
    print(HEADER)
    for objects in sizes:
        place = Path(tempfile.mkdtemp(dir=directory, prefix="growth-"))
        try:
            print(await Bench(place, objects, blob_bytes).run(), flush=True)
        finally:
            shutil.rmtree(place)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path)
    parser.add_argument("--objects", type=int, action="append", required=True)
    parser.add_argument("--blob-bytes", type=int, default=1024)
    chosen = parser.parse_args()
    uvloop.run(main(chosen.directory, chosen.objects, chosen.blob_bytes))
