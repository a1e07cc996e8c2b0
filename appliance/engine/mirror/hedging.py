"""Reading blobs past a drive that does not answer.

Owns the threads that read, some for each drive, and which drives are slow just now. A read that
takes longer than the hedge is asked of the other drive as well, and the drive it hangs in is asked
last until what is out on it is back. Invariant: a read begins in a thread of the drive it asks
first, so that calls that hang in one drive never take the threads that reads of the other one need.

Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from appliance.core.errors import Unavailable
from appliance.engine.interface import BlobRef
from appliance.engine.mirror.reader import DriveReader, MirrorReader

AVOIDED_FOR_HEDGES: Final = 10
"""How long a slow drive is asked last, at least, in hedge delays."""


@dataclass(slots=True)
class _Pool:
    """The threads of one mount of a drive."""

    source: DriveReader
    threads: ThreadPoolExecutor


@dataclass(slots=True)
class _Asked:
    """A read in the threads of a drive. ``asking`` are the drives it has touched so far."""

    source: DriveReader
    answer: asyncio.Future[bytes]
    asking: list[str] = field(default_factory=list)


class HedgedReads:
    """Reads pieces of blobs."""

    def __init__(self, reader: MirrorReader, name: str, *, threads: int, hedge_s: float) -> None:
        """``threads``: of each drive, and for ``index_threads``."""
        self._reader = reader
        self._name = name
        self._hedge_s = hedge_s
        self._thread_count = threads
        self._index_threads = ThreadPoolExecutor(threads, thread_name_prefix=f"{name} scan")
        self._pools: dict[str, _Pool] = {}
        self._late: Counter[str] = Counter()
        self._avoided_until_s: dict[str, float] = {}
        self._loop = asyncio.get_running_loop()

    @property
    def index_threads(self) -> Executor:
        """For what touches no drive of the mirror."""
        return self._index_threads

    async def read(self, blob: BlobRef, start: int, end: int) -> bytes:
        """The verified bytes [start, end). Raises ``DataLost``, ``Unavailable``."""
        data = self._reader.read_cached(blob, start, end)
        if data is not None:
            return data
        first = self._ask(blob, start, end, self._slow())
        done, _ = await asyncio.wait({first.answer}, timeout=self._hedge_s)
        if not done and not first.asking:
            # A busy machine may not have begun it yet; blame is worth one more delay.
            done, _ = await asyncio.wait({first.answer}, timeout=self._hedge_s)
        if done:
            return first.answer.result()
        self._blame(first)
        avoid = self._slow() | {first.source.drive}
        if self._reader.order(blob.place, avoid)[:1] == [first.source]:
            return await first.answer  # there is no other drive
        second = self._ask(blob, start, end, avoid)
        second.answer.add_done_callback(_look)
        both = {first.answer, second.answer}
        done, waiting = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if waiting and all(one.exception() is not None for one in done):
            done, _ = await asyncio.wait(waiting)
        elif not first.asking:
            first.answer.cancel()  # never begun, and not needed any more
        return next(iter(done)).result()

    def _ask(self, blob: BlobRef, start: int, end: int, avoid: frozenset[str]) -> _Asked:
        drives = self._reader.order(blob.place, avoid)
        if not drives:
            raise Unavailable("no drive of the mirror can be read now")
        asking: list[str] = []
        call = partial(self._reader.read_blob, blob, start, end, avoid=avoid, asking=asking)
        answer = self._loop.run_in_executor(self._threads_of(drives[0]), call)
        return _Asked(drives[0], answer, asking)

    def _threads_of(self, source: DriveReader) -> Executor:
        """What hangs on an earlier mount of the drive keeps the threads it has."""
        pool = self._pools.get(source.drive)
        if pool is not None and pool.source is not source and self._late[source.drive]:
            pool.threads.shutdown(wait=False, cancel_futures=True)
            pool = None
        if pool is None:
            prefix = f"{self._name} reader {source.drive[:8]}"
            threads = ThreadPoolExecutor(self._thread_count, thread_name_prefix=prefix)
            pool = self._pools[source.drive] = _Pool(source, threads)
        pool.source = source
        return pool.threads

    def _blame(self, read: _Asked) -> None:
        """The drive the read hangs in is slow. One that was not even begun blames nobody: the reads
        that have its drive's threads do, or the machine is busy."""
        if not read.asking:
            read.answer.add_done_callback(_look)
            return
        drive = read.asking[-1]
        self._late[drive] += 1
        read.answer.add_done_callback(partial(self._back, drive))
        self._avoided_until_s[drive] = self._loop.time() + AVOIDED_FOR_HEDGES * self._hedge_s

    def _slow(self) -> frozenset[str]:
        if not self._avoided_until_s:
            return frozenset()
        now_s = self._loop.time()
        self._avoided_until_s = {
            drive: until_s
            for drive, until_s in self._avoided_until_s.items()
            if until_s > now_s or self._late[drive]
        }
        return frozenset(self._avoided_until_s)

    def _back(self, drive: str, call: asyncio.Future[bytes]) -> None:
        _look(call)
        self._late[drive] -= 1
        self._late = +self._late

    async def close(self) -> None:
        """After the last read; what hangs is left behind."""
        wait = not self._late
        for threads in (self._index_threads, *(pool.threads for pool in self._pools.values())):
            await asyncio.to_thread(threads.shutdown, wait, cancel_futures=True)


def _look(call: asyncio.Future[bytes]) -> None:
    """Nobody waits for the slower of two reads; what it raises is no news."""
    if not call.cancelled():
        call.exception()
