"""The gateway's side of blobs: small ones are collected, large ones staged on every in-sync drive.

Owns the files below ``staging/<directory>/`` from their first byte until a commit hands them to
the store, and drops what no commit took once nothing refers to it any more. Refuses to go on when
no drive takes the bytes. Invariant: what ``finish`` returned is flushed on each drive it names with
the membership generation that drive had before the first byte and after the flush; the store
judges from these two whether the copy counts.

All methods belong to one event loop; the drives are touched in threads beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import mmap
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from appliance.core.errors import DriveFault, InvalidInput, NoSpace, Unavailable
from appliance.core.ports import Buffer, Entropy, File, Volume
from appliance.engine.mirror.blob import (
    BLOB_ID_BYTES,
    CHUNK_BYTES,
    FRAME_BYTES,
    cut,
    encode_chunks_into,
    file_bytes,
    staged_path,
)
from appliance.engine.mirror.format import BLOCK_BYTES

PIECE_BYTES: Final = 1024 * 1024
"""What is written at once; one such piece is in flight while the next is collected. Past the page
cache, which would cost more than encrypting: nothing is left to write when it is time to flush."""
_ROOM_BYTES: Final = PIECE_BYTES // CHUNK_BYTES * FRAME_BYTES + BLOCK_BYTES


@dataclass(eq=False, slots=True)
class StagingMember:
    """One in-sync drive as the gateway sees it. ``gone`` is done once it no longer is one."""

    drive: str
    generation: int
    volume: Volume
    threads: Executor
    gone: asyncio.Future[None]


class InlineBlob:
    """A small blob: rides in its commit, durable with it."""

    __slots__ = ("adopted", "data")

    def __init__(self, data: bytes) -> None:
        self.data: Final = data
        self.adopted = False

    @property
    def size_bytes(self) -> int:
        """Length of what was written."""
        return len(self.data)


@dataclass(slots=True)
class _Copy:
    """The blob's file on one drive while it is written."""

    member: StagingMember
    generation: int
    file: File


@dataclass(slots=True)
class _Trace:
    """What must be dropped if no commit takes the blob; shared with its finalizer."""

    path: str
    graveyard: deque[_Trace]
    copies: list[_Copy] = field(default_factory=list)
    settled: bool = False

    def bury(self) -> None:
        """For finalizers, which run wherever the collector strikes: takes no lock. Whoever owns the
        graveyard drops what lies in it."""
        self.graveyard.append(self)

    def drop(self) -> None:
        """Close and unlink in the drives' threads. Any thread; never raises."""
        if self.settled:
            return
        self.settled = True
        for copy in list(self.copies):
            self.give_up(copy)

    def forget(self, copy: _Copy) -> None:
        """Count on this copy no longer."""
        self.copies = [other for other in self.copies if other is not copy]

    def give_up(self, copy: _Copy) -> None:
        """Remove one drive's copy, in that drive's threads. No call on it may be running."""
        self.forget(copy)
        with contextlib.suppress(RuntimeError):  # the threads are gone: start-up collects
            copy.member.threads.submit(_remove, copy, self.path)


class StagedBlob:
    """A large blob, flushed on the drives named by ``stamps``: drive to its membership generation
    before the first byte and after the flush."""

    def __init__(
        self,
        blob_id: bytes,
        size_bytes: int,
        directory: str,
        stamps: Mapping[str, tuple[int, int]],
        trace: _Trace,
    ) -> None:
        self.blob_id: Final = blob_id
        self.directory: Final = directory
        self.stamps: Final = stamps
        self._size_bytes: Final = size_bytes
        self._trace = trace
        self._finalizer = weakref.finalize(self, trace.bury)
        self._finalizer.atexit = False

    @property
    def size_bytes(self) -> int:
        """Length of what was written."""
        return self._size_bytes

    @property
    def adopted(self) -> bool:
        """Whether a commit took it."""
        return self._trace.settled

    def settle(self) -> None:
        """A commit took it: nothing is dropped any more."""
        self._trace.settled = True
        for copy in self._trace.copies:
            copy.file.close()


@dataclass(frozen=True, slots=True)
class StagingContext:
    """What writers share: who the members are now, where to stage, whom to tell of faults."""

    directory: str
    entropy: Entropy
    members: Callable[[], Mapping[str, StagingMember]]
    report: Callable[[str, DriveFault], None]
    inline_limit_bytes: int
    reserve_bytes: int = 0
    """Room that staging leaves to the log: what is stored must still be deletable."""
    graveyard: deque[_Trace] = field(default_factory=deque)
    """What nothing refers to any more; see ``drop_buried``."""

    def drop_buried(self) -> None:
        """Drop the files of blobs that were neither aborted nor committed. Call now and then."""
        while self.graveyard:
            self.graveyard.popleft().drop()


class MirrorBlobWriter:
    """``BlobWriter``: in memory up to the inline limit, then on every in-sync drive."""

    def __init__(self, context: StagingContext, size_bytes: int | None) -> None:
        self._context = context
        self._known = size_bytes
        self._pieces: list[Buffer] = []
        self._gathered = 0
        self._size = 0
        self._ended = False
        self._blob_id = b""
        self._trace: _Trace | None = None
        self._finalizer: weakref.finalize[..., MirrorBlobWriter] | None = None
        self._chunks = 0
        self._room = memoryview(b"")
        """Page-aligned: the piece on its way, framed, behind what is less than a block of the one
        before."""
        self._kept = 0
        self._written = 0
        self._flight: asyncio.Task[None] | None = None

    async def write(self, data: Buffer) -> None:
        """Append; returns once at most one piece is on its way."""
        if self._ended:
            raise InvalidInput("the blob is finished or aborted")
        self._pieces.append(bytes(data))  # the caller may use its buffer again
        self._gathered += len(data)
        self._size += len(data)
        if self._trace is None:
            if self._size <= self._context.inline_limit_bytes:
                return
            await self._open()
        while self._gathered >= PIECE_BYTES:
            await self._launch(PIECE_BYTES)

    async def finish(self) -> InlineBlob | StagedBlob:
        """Flush every copy; see the module's invariant."""
        if self._ended:
            raise InvalidInput("the blob is finished or aborted")
        self._ended = True
        if self._trace is None:
            return InlineBlob(b"".join(self._pieces))
        try:
            await self._launch(self._gathered, last=True)
            await self._land()
            flush = partial(_flush, length=file_bytes(self._size))
            self._flight = asyncio.create_task(self._each(flush), name="staged flush")
            await self._land()
            stamps = self._stamps()
        except BaseException:
            self._drop()
            raise
        if self._finalizer is not None:
            self._finalizer.detach()
        return StagedBlob(self._blob_id, self._size, self._context.directory, stamps, self._trace)

    async def abort(self) -> None:
        """Forget it; the files go in the background."""
        if not self._ended:
            self._ended = True
            self._drop()

    def _drop(self) -> None:
        """Once nothing is under way: a file is never closed under a running call."""
        if self._trace is None:
            return
        trace = self._trace
        if self._flight is not None and not self._flight.done():
            self._flight.add_done_callback(partial(_drop_later, trace))
        else:
            trace.drop()

    def _stamps(self) -> dict[str, tuple[int, int]]:
        assert self._trace is not None, "only staged blobs have stamps"
        now = self._context.members()
        stamps = {
            copy.member.drive: (copy.generation, now[copy.member.drive].generation)
            for copy in self._trace.copies
            if copy.member.drive in now
        }
        if not stamps:
            raise Unavailable("cannot store: no drive of the mirror took the whole blob")
        return stamps

    async def _open(self) -> None:
        members = list(self._context.members().values())
        if not members:
            raise Unavailable("cannot store: no drive of the mirror is in sync")
        self._blob_id = self._context.entropy.token(BLOB_ID_BYTES)
        self._room = memoryview(mmap.mmap(-1, _ROOM_BYTES))
        self._trace = trace = _Trace(
            staged_path(self._context.directory, self._blob_id), self._context.graveyard
        )
        self._finalizer = weakref.finalize(self, trace.bury)
        self._finalizer.atexit = False
        expected = None if self._known is None else file_bytes(self._known)
        opening = [
            asyncio.wrap_future(
                member.threads.submit(
                    _create, member.volume, trace.path, expected, self._context.reserve_bytes
                )
            )
            for member in members
        ]
        try:
            for member, future in zip(members, opening, strict=True):
                if await self._came_back(member, future):
                    trace.copies.append(_Copy(member, member.generation, future.result()))
        except BaseException:
            self._ended = True
            for member, future in zip(members, opening, strict=True):
                future.add_done_callback(partial(_discard, member, trace))
            raise
        if not trace.copies:
            self._ended = True
            raise Unavailable("cannot store: no drive of the mirror takes a new blob")

    async def _launch(self, size: int, *, last: bool = False) -> None:
        """Send the first ``size`` bytes gathered on their way, after the piece before."""
        await self._land()
        pieces, self._pieces = cut(self._pieces, size)
        self._gathered -= size
        first, self._chunks = self._chunks, self._chunks + -(-size // CHUNK_BYTES)
        self._flight = asyncio.create_task(self._append(pieces, first, last), name="staged piece")

    async def _land(self) -> None:
        if self._flight is not None:
            await asyncio.shield(self._flight)  # a cancelled caller must not stop it half way
            self._flight = None

    async def _append(self, pieces: Sequence[Buffer], first: int, last: bool) -> None:
        assert self._trace is not None, "only staged blobs have files"
        threads = self._trace.copies[0].member.threads
        framing = threads.submit(self._frame, pieces, first, last)
        end = await asyncio.wrap_future(framing)
        whole, offset = end // BLOCK_BYTES * BLOCK_BYTES, self._written
        if whole:
            await self._each(lambda copy: copy.file.write_at(offset, self._room[:whole]))
        self._written += whole
        self._kept = end - whole
        self._room[: self._kept] = self._room[whole:end]

    def _frame(self, pieces: Sequence[Buffer], first: int, last: bool) -> int:
        """Where in the room the framed pieces end; the last block is filled up."""
        at = self._kept
        end = at + encode_chunks_into(self._room[at:], self._blob_id, first, pieces)
        if last:
            padding = -end % BLOCK_BYTES
            self._room[end : end + padding] = bytes(padding)
            end += padding
        return end

    async def _each(self, work: Callable[[_Copy], None]) -> None:
        """Do it on every copy side by side; a copy whose drive fails is given up."""
        assert self._trace is not None, "only staged blobs have copies"
        trace = self._trace
        working = [
            (copy, asyncio.wrap_future(copy.member.threads.submit(work, copy)))
            for copy in trace.copies
        ]
        for copy, future in working:
            if not await self._came_back(copy.member, future):
                trace.forget(copy)
                future.add_done_callback(partial(_remove_later, trace, copy))
        if not trace.copies:
            raise Unavailable("cannot store: every drive of the mirror failed")

    async def _came_back(self, member: StagingMember, future: asyncio.Future[Any]) -> bool:
        """Whether the call ended well. False for a failed drive, and for one that left the mirror
        while the call hangs. Raises ``NoSpace``."""
        await asyncio.wait({future, member.gone}, return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            return False
        fault = future.exception()
        if fault is None:
            return True
        if not isinstance(fault, DriveFault):
            raise fault
        if fault.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"cannot store: drive {member.drive} is full") from fault
        self._context.report(member.drive, fault)
        return False


def _flush(copy: _Copy, length: int) -> None:
    copy.file.truncate(length)  # the last block was written whole
    copy.file.flush()


def _drop_later(trace: _Trace, flight: asyncio.Task[None]) -> None:
    if not flight.cancelled():
        flight.exception()  # nobody waits for the outcome of what is dropped
    trace.drop()


def _remove_later(trace: _Trace, copy: _Copy, future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()  # reported already, or of a drive that is gone
    trace.give_up(copy)


def _create(volume: Volume, path: str, length: int | None, reserve_bytes: int) -> File:
    if volume.space().free_bytes - (length or 0) < reserve_bytes:
        raise DriveFault(volume.name, f"making {path}", errno.ENOSPC, "the reserve is reached")
    file = volume.open(path, write=True, create=True, direct=True)
    if length is not None:
        try:
            file.allocate(length)
        except DriveFault:
            file.close()
            volume.unlink(path)
            raise
    return file


def _discard(member: StagingMember, trace: _Trace, future: asyncio.Future[File]) -> None:
    if not future.cancelled() and future.exception() is None:
        trace.give_up(_Copy(member, member.generation, future.result()))


def _remove(copy: _Copy, path: str) -> None:
    copy.file.close()
    with contextlib.suppress(DriveFault):  # adopted meanwhile, or the drive is gone
        copy.member.volume.unlink(path)
