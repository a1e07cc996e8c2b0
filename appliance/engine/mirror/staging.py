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
import errno
import mmap
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from appliance.core.errors import DriveFault, InvalidInput, NoSpace, Unavailable
from appliance.core.ports import Buffer, Entropy
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
from appliance.engine.mirror.staged_files import (
    Copy,
    StagingMember,
    Trace,
    create,
    discard,
    drop_later,
    remove_later,
)

PIECE_BYTES: Final = 1024 * 1024
"""What is written at once; one such piece is in flight while the next is collected. Past the page
cache, which would cost more than encrypting: nothing is left to write when it is time to flush."""
_ROOM_BYTES: Final = PIECE_BYTES // CHUNK_BYTES * FRAME_BYTES + BLOCK_BYTES


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


class StagedBlob:
    """A large blob, flushed on the drives named by ``stamps``: drive to its membership generation
    before the first byte and after the flush."""

    def __init__(
        self,
        blob_id: bytes,
        size_bytes: int,
        directory: str,
        stamps: Mapping[str, tuple[int, int]],
        trace: Trace,
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
    make_room: Callable[[int], Awaitable[None]]
    """Has the store give up what is dead for a file of so many bytes. Raises ``NoSpace``."""
    reserve_bytes: int = 0
    """Room that staging leaves to the log: what is stored must still be deletable."""
    graveyard: deque[Trace] = field(default_factory=deque)
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
        self._trace: Trace | None = None
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
            self._flight.add_done_callback(partial(drop_later, trace))
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
        try:
            try:
                await self._open_copies()
            except NoSpace:
                await self._context.make_room(file_bytes(self._known or 0))
                await self._open_copies()
        except BaseException:
            self._ended = True
            raise

    async def _open_copies(self) -> None:
        """A file of a fresh name on every member. Raises ``NoSpace``, ``Unavailable``."""
        members = list(self._context.members().values())
        if not members:
            raise Unavailable("cannot store: no drive of the mirror is in sync")
        self._blob_id = self._context.entropy.token(BLOB_ID_BYTES)
        self._room = memoryview(mmap.mmap(-1, _ROOM_BYTES))
        self._trace = trace = Trace(
            staged_path(self._context.directory, self._blob_id), self._context.graveyard
        )
        self._finalizer = weakref.finalize(self, trace.bury)
        self._finalizer.atexit = False
        expected = None if self._known is None else file_bytes(self._known)
        opening = [
            asyncio.wrap_future(
                member.threads.submit(
                    create, member.volume, trace.path, expected, self._context.reserve_bytes
                )
            )
            for member in members
        ]
        try:
            for member, future in zip(members, opening, strict=True):
                if await self._came_back(member, future):
                    trace.copies.append(Copy(member, member.generation, future.result()))
                else:
                    # A file that is held open keeps a drive that hung from being mounted afresh.
                    future.add_done_callback(partial(discard, member, trace))
        except BaseException:
            trace.settled = True  # each file goes by itself, once it is made
            for member, future in zip(members, opening, strict=True):
                future.add_done_callback(partial(discard, member, trace))
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

    async def _each(self, work: Callable[[Copy], None]) -> None:
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
                future.add_done_callback(partial(remove_later, trace, copy))
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


def _flush(copy: Copy, length: int) -> None:
    copy.file.truncate(length)  # the last block was written whole
    copy.file.flush()
