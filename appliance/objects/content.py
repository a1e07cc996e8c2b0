"""Reading content back: from a range of an object to verified, decrypted bytes.

Owns the way from an object's range over its parts to sealed frames. Refuses to yield a byte that
was not authenticated. Invariant: what is yielded is exactly the range, in order, or an error comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, cast

from appliance.core.checksums import Checksum
from appliance.core.errors import DataLost, Unavailable
from appliance.core.frames import FRAME_BYTES, SEALED_FRAME_BYTES, Opener, Span, open_frame
from appliance.core.partlayout import PartSlice, Run, build_runs, locate
from appliance.core.recordkeys import part_key, part_number, parts_range
from appliance.engine.interface import BlobRef, Record
from appliance.objects.context import BucketView, Context
from appliance.objects.model import ObjectInfo
from appliance.objects.records import Kind, ObjectRecord, PartRecord

PARTS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Piece:
    """A range of one content."""

    blob: BlobRef
    write_id: bytes
    size_bytes: int
    offset: int
    length: int


async def part_runs(context: Context, view: BucketView, record: ObjectRecord) -> Sequence[Run]:
    """The part table of an object in parts: as kept, or rebuilt from the parts' records."""
    if record.runs or record.kind is not Kind.IN_PARTS:
        return record.runs
    start, end = parts_range(view.name, record.write_id)
    found = await context.engine.scan(view.partition, start, end, PARTS_MAX)
    return build_runs(
        (part_number(part.key), PartRecord.decode(part.value).size_bytes) for part in found
    )


class OpenObject:
    """One version of an object, or one part of it, ready to be read.

    ``offset`` and ``size`` (bytes) say what it is of the object: all of it, or the part named by
    ``part_number``. ``checksum`` is that of what it is.
    """

    def __init__(
        self,
        context: Context,
        view: BucketView,
        record: ObjectRecord,
        stored: Record,
        info: ObjectInfo,
        *,
        runs: Sequence[Run] = (),
        part: tuple[int, int, int] | None = None,
        checksum: Checksum | None = None,
    ) -> None:
        self.info: Final = info
        self.part_number: Final = part[0] if part else None
        self.offset: Final = part[1] if part else 0
        self.size: Final = part[2] if part else info.size_bytes
        self.checksum: Final = checksum if part else info.checksum
        self._context: Final = context
        self._view: Final = view
        self._record: Final = record
        self._stored: Final = stored
        self._runs: Final = runs

    async def read(self, offset: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """Pieces of ``length`` bytes from ``offset`` of what this is (default: to its end).

        Everything the range needs is looked up before the first piece, so fetch that one before
        promising the client anything. Raises ``DataLost``, ``Unavailable``.
        """
        if length is None:
            length = self.size - offset
        assert offset >= 0 and length >= 0 and offset + length <= self.size, "range inside"
        contract_key = await self._context.contract_key(self._view.contract)
        for piece in await self._pieces(self.offset + offset, length):
            async with aclosing(_open_piece(self._context, contract_key, piece)) as opened:
                async for data in opened:
                    yield data

    async def read_at_once(self, offset: int, length: int) -> bytes | None:
        """The range if it lies in one frame of one content, without the machinery that streams;
        None otherwise, with nothing read. Raises as ``read`` does."""
        record, blob = self._record, self._stored.blob
        if length > FRAME_BYTES or blob is None or record.kind is Kind.IN_PARTS:
            return None
        span = Span(record.size_bytes, offset, length)
        if span.sealed_length > SEALED_FRAME_BYTES:
            return None
        context = self._context
        contract_key = await context.contract_key(self._view.contract)
        chunks = context.engine.blob_read(blob, span.sealed_offset, span.sealed_length)
        sealed = b"".join([chunk async for chunk in chunks])
        return open_frame(contract_key, record.write_id, span, sealed)

    async def part_sizes(self) -> list[int]:
        """The sizes of the parts it was uploaded in, in bytes; empty for a plain object."""
        runs = self._runs or await part_runs(self._context, self._view, self._record)
        return [run.size_bytes for run in runs for _ in range(run.parts)]

    async def _pieces(self, offset: int, length: int) -> list[_Piece]:
        record = self._record
        if record.kind is not Kind.IN_PARTS:
            blob = self._stored.blob
            if blob is None:
                raise DataLost("an object's record has no content")
            return [_Piece(blob, record.write_id, record.size_bytes, offset, length)]
        runs = self._runs or await part_runs(self._context, self._view, record)
        slices = list(locate(runs, offset, length))
        keys = [part_key(self._view.name, record.write_id, part.number) for part in slices]
        found = await self._context.engine.read(self._view.partition, keys)
        if sum(part.length for part in slices) != length or None in found:
            # Its parts went with it: the object was replaced after it was opened.
            raise Unavailable("the object was replaced while it was opened; read it again")
        return [_part_piece(part, stored) for part, stored in zip(slices, found, strict=True)]


def _part_piece(part: PartSlice, stored: Record | None) -> _Piece:
    if stored is None or stored.blob is None:
        raise DataLost("a part's record has no content")
    write_id = PartRecord.decode(stored.value).write_id
    return _Piece(stored.blob, write_id, part.size_bytes, part.offset, part.length)


async def _open_piece(
    context: Context, contract_key: bytes, piece: _Piece
) -> AsyncGenerator[bytes, None]:
    """Decrypted bytes of one content's range; a large one is decrypted in the executor while the
    loop fetches what follows."""
    span = Span(piece.size_bytes, piece.offset, piece.length)
    opener = Opener(contract_key, piece.write_id, span)
    sealed = context.engine.blob_read(piece.blob, span.sealed_offset, span.sealed_length)
    chunks = cast("AsyncGenerator[bytes, None]", sealed)
    async with aclosing(chunks):
        async for data in _decrypt(context, opener, chunks):
            yield data


async def _decrypt(
    context: Context, opener: Opener, chunks: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    working: asyncio.Future[bytes] | None = None
    try:
        while True:
            gathered = await _gather(chunks, context.limits.piece_bytes)
            if working is not None:
                data, working = await working, None
                if gathered:
                    working = loop.run_in_executor(context.hashing, _update, opener, gathered)
                if data:
                    yield data
            elif gathered:
                working = loop.run_in_executor(context.hashing, _update, opener, gathered)
            if not gathered and working is None:
                break
        opener.finish()
    finally:
        if working is not None:
            working.cancel()


def _update(opener: Opener, chunks: list[bytes]) -> bytes:
    return opener.update(chunks[0] if len(chunks) == 1 else b"".join(chunks))


async def _gather(chunks: AsyncIterator[bytes], at_least_bytes: int) -> list[bytes]:
    gathered: list[bytes] = []
    size_bytes = 0
    async for chunk in chunks:
        gathered.append(chunk)
        size_bytes += len(chunk)
        if size_bytes >= at_least_bytes:
            break
    return gathered
