"""Short words for what the tests do to an engine."""

from __future__ import annotations

import random

from appliance.engine.interface import BlobRef, Engine, FinishedBlob, Partition, Record


def pattern(size_bytes: int, seed: int = 1) -> bytes:
    """Bytes that repeat nowhere a chunk boundary could hide."""
    return random.Random(seed).randbytes(size_bytes)


async def write_blob(engine: Engine, data: bytes, *, known: bool = True) -> FinishedBlob:
    """Write ``data`` in uneven pieces and finish it."""
    writer = engine.blob_writer(len(data) if known else None)
    for position in range(0, len(data), 100_003):
        await writer.write(data[position : position + 100_003])
    return await writer.finish()


async def read_blob(
    engine: Engine, blob: BlobRef | None, offset: int = 0, length: int | None = None
) -> bytes:
    """All bytes of the range."""
    assert blob is not None
    return b"".join([piece async for piece in engine.blob_read(blob, offset, length)])


async def one(engine: Engine, partition: Partition, key: bytes) -> Record:
    """The record, which must be there."""
    (record,) = await engine.read(partition, [key])
    assert record is not None, key
    return record


async def keys(engine: Engine, partition: Partition) -> list[bytes]:
    """All keys of the partition, in order."""
    return [record.key for record in await engine.scan(partition, b"", b"\xff" * 8, 100_000)]
