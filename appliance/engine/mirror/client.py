"""``MirrorEngine``: the engine interface over one mirror, for any process that may read its drives.

Owns this process's readers, staging and its port to the store. Refuses with ``Unavailable`` what it
cannot do before the store told who the members are. Invariant: every write goes through the store;
every byte read is verified here.

Belongs to one event loop. What is in memory is read on it, because a thread costs several times as
much; what a device must be asked for is read in a small pool of threads, and each drive is written
from threads of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from appliance.core.errors import DriveFault, NoSpace, Unavailable
from appliance.core.ports import Clock, Entropy
from appliance.core.scrubs import ScrubOrder, ScrubReport
from appliance.engine.interface import (
    Batch,
    BlobRef,
    Committed,
    Health,
    Partition,
    Put,
    Record,
)
from appliance.engine.mirror.blob import CHUNK_BYTES, spans
from appliance.engine.mirror.hedging import HedgedReads
from appliance.engine.mirror.member_files import DriveFiles, MemberFiles
from appliance.engine.mirror.messages import MembersView, encode_commit
from appliance.engine.mirror.port import StorePort
from appliance.engine.mirror.reader import MirrorReader
from appliance.engine.mirror.staging import (
    InlineBlob,
    MirrorBlobWriter,
    StagedBlob,
    StagingContext,
)
from appliance.engine.mirror.throttle import ACTIVE_FOR_S
from appliance.engine.mirror.turnstile import Turnstile
from appliance.engine.rules import REQUEST_ID_BYTES, blob_span, check_batch

READ_STEP_BYTES: Final = 1024 * 1024
SCAN_HERE_MAX: Final = 1024
"""The longest scan on the event loop: some milliseconds."""
TIDY_EVERY_S: Final = 5.0

ACTIVE_EVERY_S: Final = ACTIVE_FOR_S / 2
"""How often the store is told that clients read, while they do."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What may be chosen. A read that takes longer than the hedge is asked of the other drive."""

    patience_s: float = 30.0
    hedge_s: float = 1.0
    room_wait_s: float = 20.0
    """How long a put waits for room that what is dead still takes; longer than its grace."""
    reader_threads: int = 8


class MirrorEngine:
    """``Engine`` over one mirror."""

    def __init__(
        self,
        port: StorePort,
        *,
        name: str,
        clock: Clock,
        entropy: Entropy,
        settings: ClientSettings | None = None,
    ) -> None:
        """``name`` is the role's, for its staging directory."""
        self._port = port
        self._entropy = entropy
        self._settings = settings or ClientSettings()
        self._loop = asyncio.get_running_loop()
        self._view: MembersView | None = None
        self._ready = asyncio.Event()
        self._files = MemberFiles(f"{name}-{entropy.token(6).hex()}")
        self._reader = MirrorReader(self._files.open_index, self._suspect)
        self._index = Turnstile(f"{name} index", clock)
        self._reads = HedgedReads(
            self._reader,
            name,
            threads=self._settings.reader_threads,
            hedge_s=self._settings.hedge_s,
        )
        self._changes: asyncio.Task[None] | None = None
        self._views: asyncio.Queue[MembersView] = asyncio.Queue()
        self._staging: StagingContext | None = None
        self._graveyard: deque[Any] = deque()
        self._clock = clock
        self._told_active_s = float("-inf")
        self._closed = False

    async def start(self) -> None:
        """Follow the store. Does not wait for it; see ``ready``."""
        self._changes = asyncio.create_task(self._follow(), name="members")
        await self._port.start(self._views.put_nowait)

    async def ready(self, timeout_s: float | None = None) -> None:
        """Wait until the mirror can be used. Raises ``Unavailable``."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()
        except TimeoutError:
            raise Unavailable("the store does not serve yet") from None

    # -- Engine --------------------------------------------------------------------------------

    async def read(self, partition: Partition, keys: Sequence[bytes]) -> list[Record | None]:
        """See ``Engine``."""
        self._need()
        return await self._index.run(partial(self._reader.read, partition, keys))

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
        self._need()
        if limit <= 0:
            return []
        call = partial(self._reader.scan, partition, start, end, limit, reverse, blobs=blobs)
        await asyncio.sleep(0)  # whoever scans on and on must not hold up the loop
        if limit <= SCAN_HERE_MAX and self._index.is_quick():
            return self._index.here(call)
        return await self._loop.run_in_executor(self._reads.index_threads, call)

    async def counters(self, partition: Partition) -> Mapping[bytes, int]:
        """See ``Engine``."""
        self._need()
        return await self._index.run(partial(self._reader.counters, partition))

    async def commit(self, partition: Partition, batch: Batch) -> Committed:
        """See ``Engine``."""
        check_batch(batch)
        request_id = batch.request_id or self._entropy.token(REQUEST_ID_BYTES)
        message = encode_commit(partition, batch, request_id)
        blobs = [o.blob for o in batch.operations if isinstance(o, Put) and o.blob is not None]
        if not any(isinstance(blob, StagedBlob) for blob in blobs):
            version = await self._store(message)
            for blob in blobs:
                assert isinstance(blob, InlineBlob), "checked by encode_commit"
                blob.adopted = True
            return Committed(version)
        # A cancelled caller must not have the files dropped under a commit that is under way.
        return await asyncio.shield(asyncio.create_task(self._commit_staged(message, blobs)))

    async def _commit_staged(self, message: list[object], blobs: Sequence[object]) -> Committed:
        version = await self._store(message)
        for blob in blobs:
            if isinstance(blob, StagedBlob):
                blob.settle()
            elif isinstance(blob, InlineBlob):
                blob.adopted = True
        return Committed(version)

    async def _store(self, message: list[object]) -> int:
        try:
            return await self._port.commit(message)
        except NoSpace:
            await self._make_room(0)
        return await self._port.commit(message)

    async def _make_room(self, size_bytes: int) -> None:
        """Wait until the store has room for a file of so many bytes and what is logged of it.
        Raises ``NoSpace`` when it has none, or not in time."""
        deadline_s = self._clock.monotonic_s() + self._settings.room_wait_s
        while wait_s := await self._port.make_room(size_bytes):
            if self._clock.monotonic_s() + wait_s > deadline_s:
                raise NoSpace("cannot store: the mirror's drives make no room fast enough")
            await asyncio.sleep(wait_s)

    def blob_writer(self, size_bytes: int | None = None) -> MirrorBlobWriter:
        """See ``Engine``."""
        self._need()
        assert self._staging is not None, "made with the first view"
        self._staging.drop_buried()
        return MirrorBlobWriter(self._staging, size_bytes)

    async def blob_read(
        self, blob: BlobRef, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """See ``Engine``."""
        start, end = blob_span(blob, offset, length)
        self._need()
        if end - start <= 2 * CHUNK_BYTES:
            yield await self._reads.read(blob, start, end)
            return
        for first, last in spans(start, end, READ_STEP_BYTES):
            yield await self._reads.read(blob, first, last)

    def missing(self) -> str:
        """See ``Engine``."""
        return "" if self._view is None else self._view.lost

    async def health(self) -> Health:
        """See ``Engine``."""
        return await self._port.health()

    async def order(self, what: str, message: object) -> None:
        """An operator's word for the store's work beside its commits. Raises ``InvalidInput``,
        ``Refused``, ``Unavailable``."""
        await self._port.order(what, message)

    async def scrub(self, order: ScrubOrder) -> ScrubReport:
        """Say something about the mirror's scrub, and learn how it stands. Raises ``Refused``,
        ``Unavailable``."""
        return await self._port.scrub(order)

    async def close(self) -> None:
        """See ``Engine``."""
        if self._closed:
            return
        self._closed = True
        await self._port.close()
        if self._changes is not None:
            self._changes.cancel()
            await asyncio.gather(self._changes, return_exceptions=True)
        await self._index.close()
        await self._reads.close()
        self._reader.close()
        await asyncio.to_thread(self._files.close)

    # -- reading -------------------------------------------------------------------------------

    def _suspect(self, drive: str, place: bytes, reason: str) -> None:
        """Any thread."""
        self._loop.call_soon_threadsafe(self._port.suspect, drive, place, reason)

    def _drive_failed(self, drive: str, fault: DriveFault) -> None:
        """A write to a drive failed here; the store, which probes it itself, decides."""
        _log.warning("staging on drive %s failed: %s", drive, fault)

    # -- members -------------------------------------------------------------------------------

    def _need(self) -> MembersView:
        if self._view is None:
            raise Unavailable("the store does not serve yet")
        now_s = self._clock.monotonic_s()
        if now_s - self._told_active_s > ACTIVE_EVERY_S:
            # Reads pass the store by, and its work in the background is to rest for them.
            self._told_active_s = now_s
            self._port.active()
        return self._view

    async def _follow(self) -> None:
        """Take in each change of the members, one after the other, off the loop."""
        while True:
            try:
                async with asyncio.timeout(TIDY_EVERY_S):
                    view = await self._views.get()
            except TimeoutError:
                if self._staging is not None:
                    self._staging.drop_buried()
                self._files.close_retired()
                continue
            before = self._view
            try:
                drives: Mapping[str, DriveFiles] = await asyncio.to_thread(self._files.open, view)
            except DriveFault as fault:
                _log.warning("a drive of the mirror cannot be opened: %s", fault)
                continue
            self._reader.use({drive: files.reader for drive, files in drives.items()})
            if before is None or before.index_path != view.index_path:
                self._reader.reopen_index()
            self._files.show_staging(view, drives)
            self._staging = StagingContext(
                self._files.directory,
                self._entropy,
                self._files.staging_members,
                self._drive_failed,
                view.inline_limit_bytes,
                self._make_room,
                view.reserve_bytes,
                self._graveyard,
            )
            self._view = view
            self._ready.set()
