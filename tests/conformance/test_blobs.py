"""Blobs: written, adopted, kept, released, read in ranges."""

from __future__ import annotations

import asyncio

import pytest

from appliance.core.errors import Conflict, InvalidInput
from appliance.engine.interface import (
    Batch,
    Delete,
    Engine,
    Expect,
    Operation,
    Partition,
    Presence,
    Put,
)
from tests.conformance.deeds import keys, one, pattern, read_blob, write_blob
from tests.conformance.rigs import Rig

SMALL = 3_000
LARGE = 900_001
SIZES = [0, 1, 4095, 4096, 65_536, 262_143, 262_144, 262_145, 1_048_576, 3_333_333]


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("size", SIZES)
def test_what_was_written_is_read(rig: Rig, size: int, known: bool) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        data = pattern(size)
        blob = await write_blob(engine, data, known=known)
        assert blob.size_bytes == size
        await engine.commit(partition, Batch([Put(b"k", b"v", blob)]))
        record = await one(engine, partition, b"k")
        assert record.value == b"v"
        assert record.blob is not None
        assert record.blob.size_bytes == size
        assert await read_blob(engine, record.blob) == data

    rig.run(scenario)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_ranges(rig: Rig, size: int) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        data = pattern(size)
        await engine.commit(partition, Batch([Put(b"k", b"", await write_blob(engine, data))]))
        blob = (await one(engine, partition, b"k")).blob
        assert blob is not None
        for offset, length in [
            (0, 1),
            (0, 0),
            (size - 1, 1),
            (size, 0),
            (7, size - 9),
            (1000, 1500),
        ]:
            assert await read_blob(engine, blob, offset, length) == data[offset : offset + length]
        assert await read_blob(engine, blob, 100) == data[100:]
        outside: list[tuple[int, int | None]] = [(-1, 1), (0, size + 1), (size + 1, None), (5, -1)]
        for start, count in outside:
            with pytest.raises(InvalidInput):
                await read_blob(engine, blob, start, count)

    rig.run(scenario)


def test_a_record_without_a_blob_has_none_and_an_empty_blob_is_one(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        empty = await write_blob(engine, b"")
        await engine.commit(partition, Batch([Put(b"with", b"", empty), Put(b"without", b"")]))
        assert (await one(engine, partition, b"without")).blob is None
        blob = (await one(engine, partition, b"with")).blob
        assert blob is not None
        assert blob.size_bytes == 0

    rig.run(scenario)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_replaced_blob_stays_readable_for_a_while(rig: Rig, size: int) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        old, new = pattern(size, 1), pattern(size, 2)
        await engine.commit(partition, Batch([Put(b"k", b"", await write_blob(engine, old))]))
        before = (await one(engine, partition, b"k")).blob
        await engine.commit(partition, Batch([Put(b"k", b"", await write_blob(engine, new))]))
        after = (await one(engine, partition, b"k")).blob
        assert await read_blob(engine, after) == new
        assert await read_blob(engine, before) == old
        await engine.commit(partition, Batch([Delete(b"k")]))
        assert await read_blob(engine, after) == new

    rig.run(scenario)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_keeping_the_blob_of_a_deleted_record(rig: Rig, size: int) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        data = pattern(size)
        await engine.commit(partition, Batch([Put(b"old", b"1", await write_blob(engine, data))]))
        move: list[Operation] = [Put(b"new", b"2", keep_blob_of=b"old"), Delete(b"old")]
        await engine.commit(partition, Batch(move))
        assert await keys(engine, partition) == [b"new"]
        record = await one(engine, partition, b"new")
        assert record.value == b"2"
        assert await read_blob(engine, record.blob) == data
        with pytest.raises(Conflict) as refused:
            await engine.commit(partition, Batch(move))
        assert refused.value.key == b"old"
        assert await read_blob(engine, (await one(engine, partition, b"new")).blob) == data

    rig.run(scenario)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_keeping_ones_own_blob(rig: Rig, size: int) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        data = pattern(size)
        await engine.commit(partition, Batch([Put(b"k", b"1", await write_blob(engine, data))]))
        for turn in range(3):
            await engine.commit(partition, Batch([Put(b"k", b"%d" % turn, keep_blob_of=b"k")]))
            record = await one(engine, partition, b"k")
            assert record.value == b"%d" % turn
            assert await read_blob(engine, record.blob) == data

    rig.run(scenario)


def test_a_record_without_a_blob_gives_none(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        await engine.commit(partition, Batch([Put(b"old", b"1")]))
        await engine.commit(
            partition, Batch([Delete(b"old"), Put(b"new", b"2", keep_blob_of=b"old")])
        )
        assert (await one(engine, partition, b"new")).blob is None

    rig.run(scenario)


def test_what_keep_blob_of_may_not_name(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        blob = await write_blob(engine, b"x")
        await engine.commit(partition, Batch([Put(b"old", b"1", await write_blob(engine, b"y"))]))
        wrong: list[list[Operation]] = [
            [Put(b"new", b"", keep_blob_of=b"old")],
            [Put(b"new", b"", keep_blob_of=b"old"), Put(b"old", b"")],
            [Put(b"new", b"", blob, keep_blob_of=b"old"), Delete(b"old")],
            [
                Put(b"n1", b"", keep_blob_of=b"old"),
                Put(b"n2", b"", keep_blob_of=b"old"),
                Delete(b"old"),
            ],
        ]
        for operations in wrong:
            with pytest.raises(InvalidInput):
                await engine.commit(partition, Batch(operations))
        assert await keys(engine, partition) == [b"old"]

    rig.run(scenario)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_blob_has_one_owner(rig: Rig, size: int) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        blob = await write_blob(engine, pattern(size))
        with pytest.raises(InvalidInput):
            await engine.commit(partition, Batch([Put(b"a", b"", blob), Put(b"b", b"", blob)]))
        await engine.commit(partition, Batch([Put(b"a", b"", blob)]))
        with pytest.raises(InvalidInput):
            await engine.commit(partition, Batch([Put(b"b", b"", blob)]))
        assert await keys(engine, partition) == [b"a"]

    rig.run(scenario)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_blob_survives_a_refused_commit(rig: Rig, size: int) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        data = pattern(size)
        blob = await write_blob(engine, data)
        with pytest.raises(Conflict):
            await engine.commit(
                partition, Batch([Put(b"a", b"", blob)], [Expect(b"a", Presence.PRESENT)])
            )
        await engine.commit(partition, Batch([Put(b"a", b"", blob)]))
        assert await read_blob(engine, (await one(engine, partition, b"a")).blob) == data

    rig.run(scenario)


def test_a_writer_ends_once(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        writer = engine.blob_writer()
        await writer.write(pattern(LARGE))
        await writer.abort()
        await writer.abort()
        with pytest.raises(InvalidInput):
            await writer.write(b"more")
        with pytest.raises(InvalidInput):
            await writer.finish()
        never = engine.blob_writer(10)
        await never.abort()

    rig.run(scenario)


def test_the_callers_buffer_may_be_reused(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        for total in (5, 500_000):
            buffer = bytearray(b"a" * total)
            writer = engine.blob_writer(2 * total)
            await writer.write(memoryview(buffer))
            buffer[:] = b"b" * total
            await writer.write(buffer)
            buffer[:] = b"c" * total
            await engine.commit(partition, Batch([Put(b"k", b"", await writer.finish())]))
            blob = (await one(engine, partition, b"k")).blob
            assert await read_blob(engine, blob) == b"a" * total + b"b" * total

    rig.run(scenario)


def test_many_blobs_at_once(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        sizes = [100, 50_000, 300_000, 700_000] * 4

        async def client(number: int) -> None:
            data = pattern(sizes[number], number)
            blob = await write_blob(engine, data, known=number % 2 == 0)
            await engine.commit(partition, Batch([Put(b"%d" % number, b"", blob)]))
            assert (
                await read_blob(engine, (await one(engine, partition, b"%d" % number)).blob) == data
            )

        await asyncio.gather(*(client(number) for number in range(len(sizes))))

    rig.run(scenario)


def test_a_reader_may_stop_early(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        data = pattern(LARGE)
        await engine.commit(partition, Batch([Put(b"k", b"", await write_blob(engine, data))]))
        blob = (await one(engine, partition, b"k")).blob
        assert blob is not None
        async for piece in engine.blob_read(blob):
            assert data.startswith(piece)
            break
        assert await read_blob(engine, blob) == data

    rig.run(scenario)
