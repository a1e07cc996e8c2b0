"""Reading blobs past a drive that does not answer.

Owns the threads that read, and which drives are slow just now. A read that takes longer than the
hedge is asked of the other drive as well, and the drive it hangs in is asked last until what is out
on it is back. Invariant: calls that hang in one drive never take the threads that reads of the
other one need.

Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Final

from appliance.engine.interface import BlobRef
from appliance.engine.mirror.reader import MirrorReader

AVOIDED_FOR_HEDGES: Final = 10
"""How long a slow drive is asked last, at least, in hedge delays."""


class HedgedReads:
    """Reads pieces of blobs."""

    def __init__(self, reader: MirrorReader, name: str, *, threads: int, hedge_s: float) -> None:
        self._reader = reader
        self._hedge_s = hedge_s
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"{name} reader")
        self._spare = ThreadPoolExecutor(threads, thread_name_prefix=f"{name} hedge")
        self._late: Counter[str] = Counter()
        self._avoided_until_s: dict[str, float] = {}
        self._loop = asyncio.get_running_loop()

    @property
    def threads(self) -> Executor:
        """Where reads run now: elsewhere while some hang."""
        return self._spare if self._late else self._threads

    async def read(self, blob: BlobRef, start: int, end: int) -> bytes:
        """The verified bytes [start, end). Raises ``DataLost``, ``Unavailable``."""
        data = self._reader.read_cached(blob, start, end)
        if data is not None:
            return data
        asking: list[str] = []
        first = self._ask(self.threads, blob, start, end, asking)
        done, _ = await asyncio.wait({first}, timeout=self._hedge_s)
        if not done and not asking:
            # A busy machine may not have begun it yet; blame is worth one more delay.
            done, _ = await asyncio.wait({first}, timeout=self._hedge_s)
        if done:
            return first.result()
        # Not even begun: the threads are taken, and no drive is to blame for this one.
        drive = asking[-1] if asking else ""
        self._late[drive] += 1
        first.add_done_callback(partial(self._back, drive))
        if drive:
            self._avoided_until_s[drive] = self._loop.time() + AVOIDED_FOR_HEDGES * self._hedge_s
        second = self._ask(self._spare, blob, start, end, [])
        second.add_done_callback(_look)
        done, waiting = await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
        if waiting and all(one.exception() is not None for one in done):
            done, _ = await asyncio.wait(waiting)
        return next(iter(done)).result()

    def _ask(
        self, threads: Executor, blob: BlobRef, start: int, end: int, asking: list[str]
    ) -> asyncio.Future[bytes]:
        call = partial(self._reader.read_blob, blob, start, end, avoid=self._slow(), asking=asking)
        return self._loop.run_in_executor(threads, call)

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
        for threads in (self._spare, self._threads):
            await asyncio.to_thread(threads.shutdown, wait, cancel_futures=True)


def _look(call: asyncio.Future[bytes]) -> None:
    """Nobody waits for the slower of two reads; what it raises is no news."""
    if not call.cancelled():
        call.exception()
