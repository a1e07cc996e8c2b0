"""``Engine`` over one drive that is only looked at: what stands above reads as it always does.

Owns the reading of a replayed ``OfflineDrive``. Refuses every write with ``ReadOnly``. Invariant:
no byte leaves that did not verify; what the drive cannot give raises ``DataLost``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from appliance.core.errors import ReadOnly
from appliance.engine.interface import (
    Batch,
    BlobRef,
    BlobWriter,
    Committed,
    Health,
    MemberHealth,
    MirrorState,
    Partition,
    Record,
)
from appliance.engine.mirror.blob import spans
from appliance.engine.mirror.index import IndexReader
from appliance.engine.mirror.offline import OfflineDrive
from appliance.engine.mirror.reader import DriveReader, MirrorReader
from appliance.engine.rules import blob_span

T = TypeVar("T")
READ_STEP_BYTES: Final = 1024 * 1024
_REASON: Final = "the drive is only looked at: nothing can be written to it here"


class OfflineEngine:
    """One drive's content. Used from one event loop; the drive stays the caller's to close."""

    def __init__(self, drive: OfflineDrive) -> None:
        """``drive`` was replayed."""
        assert drive.index is not None, "replay comes first"
        path = drive.index.path
        self._drive: Final = drive
        self._reader: Final = MirrorReader(lambda: IndexReader(path), _pass_over)
        reader = DriveReader(drive.name, drive.volume, drive.identity.mirror_id)
        self._reader.use({drive.name: reader})
        self._thread: Final = ThreadPoolExecutor(1, "offline")

    async def read(self, partition: Partition, keys: Sequence[bytes]) -> list[Record | None]:
        """See ``Engine``."""
        return await self._run(partial(self._reader.read, partition, keys))

    async def scan(
        self,
        partition: Partition,
        start: bytes,
        end: bytes,
        limit: int,
        *,
        reverse: bool = False,
        blobs: bool = True,
    ) -> list[Record]:
        """See ``Engine``."""
        if limit <= 0:
            return []
        call = partial(self._reader.scan, partition, start, end, limit, reverse, blobs=blobs)
        return await self._run(call)

    async def commit(self, partition: Partition, batch: Batch) -> Committed:
        """Refused."""
        raise ReadOnly(_REASON)

    def blob_writer(self, size_bytes: int | None = None) -> BlobWriter:
        """Refused."""
        raise ReadOnly(_REASON)

    async def blob_read(
        self, blob: BlobRef, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """See ``Engine``."""
        start, end = blob_span(blob, offset, length)
        for first, last in spans(start, end, READ_STEP_BYTES):
            yield await self._run(partial(self._reader.read_blob, blob, first, last))

    async def counters(self, partition: Partition) -> Mapping[bytes, int]:
        """See ``Engine``."""
        return await self._run(partial(self._reader.counters, partition))

    def missing(self) -> str:
        """Nothing: whoever takes objects from one drive is told what it lacks."""
        return ""

    async def health(self) -> Health:
        """Always read-only."""
        member = MemberHealth(self._drive.name, in_sync=False, present=True, reason=_REASON)
        sequence = self._drive.log.tail.sequence
        return Health(MirrorState.READ_ONLY, _REASON, (member,), sequence=sequence)

    async def close(self) -> None:
        """See ``Engine``."""
        self._thread.shutdown(wait=True)
        self._reader.close()

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


def _pass_over(drive: str, place: bytes, why: str) -> None:
    """Nobody repairs here; the caller is told by ``DataLost``."""
