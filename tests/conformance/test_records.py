"""Records: reading, scanning, versions, bounds, atomicity."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from appliance.core.errors import InvalidInput
from appliance.engine.interface import (
    BATCH_OPERATIONS_MAX,
    KEY_BYTES_MAX,
    SYSTEM,
    VALUE_BYTES_MAX,
    Batch,
    Delete,
    Engine,
    Operation,
    Partition,
    Put,
)
from tests.conformance.deeds import keys, one
from tests.conformance.rigs import Rig


def test_read_answers_in_the_order_asked_and_none_for_missing(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        await engine.commit(partition, Batch([Put(b"a", b"1"), Put(b"b", b"2")]))
        found = await engine.read(partition, [b"b", b"x", b"a", b"b"])
        assert [r and (r.key, r.value) for r in found] == [
            (b"b", b"2"),
            None,
            (b"a", b"1"),
            (b"b", b"2"),
        ]
        assert await engine.read(partition, []) == []

    rig.run(scenario)


def test_a_record_of_one_partition_is_not_in_another(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        other = rig.partition()
        await engine.commit(partition, Batch([Put(b"k", b"here")]))
        assert await engine.read(other, [b"k"]) == [None]
        await engine.commit(other, Batch([Put(b"k", b"there")]))
        await engine.commit(other, Batch([Delete(b"k")]))
        assert (await one(engine, partition, b"k")).value == b"here"
        assert await keys(engine, other) == []

    rig.run(scenario)


def test_the_system_partition_is_one_of_them(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        key = b"conformance/" + partition.encode()
        await engine.commit(SYSTEM, Batch([Put(key, b"v")]))
        assert (await one(engine, SYSTEM, key)).value == b"v"

    rig.run(scenario)


def test_scan_is_ordered_bytewise_half_open_limited_and_reversible(rig: Rig) -> None:
    names = [
        b"\x00",
        b"A",
        b"a",
        b"a\x00",
        b"a/",
        b"ab",
        b"b",
        b"\x7f",
        b"\x80",
        b"\xff",
        b"\xff\xff",
    ]

    async def scenario(engine: Engine, partition: Partition) -> None:
        shuffled = sorted(names, key=lambda name: name[::-1])
        await engine.commit(partition, Batch([Put(name, name) for name in shuffled]))
        everything = await engine.scan(partition, b"", b"\xff" * 3, 100)
        assert [r.key for r in everything] == sorted(names)
        assert [r.value for r in everything] == sorted(names)
        part = await engine.scan(partition, b"a", b"b", 100)
        assert [r.key for r in part] == [b"a", b"a\x00", b"a/", b"ab"]
        assert [r.key for r in await engine.scan(partition, b"a", b"b", 2)] == [b"a", b"a\x00"]
        back = await engine.scan(partition, b"a", b"b", 3, reverse=True)
        assert [r.key for r in back] == [b"ab", b"a/", b"a\x00"]
        assert await engine.scan(partition, b"b", b"a", 5) == []
        assert await engine.scan(partition, b"a", b"b", 0) == []

    rig.run(scenario)


def test_a_scan_without_blobs_tells_all_else_of_the_same_records(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        writer = engine.blob_writer(3)
        await writer.write(b"abc")
        puts = [Put(b"a", b"1", await writer.finish()), Put(b"b", b"2")]
        await engine.commit(partition, Batch(puts))
        for reverse in (False, True):
            told = await engine.scan(partition, b"", b"z", 9, reverse=reverse)
            bare = await engine.scan(partition, b"", b"z", 9, reverse=reverse, blobs=False)
            assert bare == [record._replace(blob=None) for record in told]
            assert {record.blob is None for record in told} == {True, False}

    rig.run(scenario)


def test_version_is_the_commits_and_rises(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        first = await engine.commit(partition, Batch([Put(b"a", b"1"), Put(b"b", b"1")]))
        second = await engine.commit(partition, Batch([Put(b"a", b"2")]))
        assert second.version > first.version
        assert (await one(engine, partition, b"a")).version == second.version
        assert (await one(engine, partition, b"b")).version == first.version
        await engine.commit(partition, Batch([Delete(b"a")]))
        third = await engine.commit(partition, Batch([Put(b"a", b"3")]))
        assert third.version > second.version

    rig.run(scenario)


def test_deleting_a_missing_record_is_no_error(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        await engine.commit(partition, Batch([Delete(b"nothing")]))
        await engine.commit(partition, Batch([Put(b"a", b"1")]))
        await engine.commit(partition, Batch([Delete(b"a"), Delete(b"nothing")]))
        assert await keys(engine, partition) == []

    rig.run(scenario)


def test_an_empty_batch_commits(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        assert (await engine.commit(partition, Batch([]))).version > 0

    rig.run(scenario)


def test_the_largest_keys_and_values_are_kept(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        key, value = b"\xff" * KEY_BYTES_MAX, b"\x00\xff" * (VALUE_BYTES_MAX // 2)
        await engine.commit(partition, Batch([Put(key, value), Put(b"e", b"")]))
        assert (await one(engine, partition, key)).value == value
        assert (await one(engine, partition, b"e")).value == b""

    rig.run(scenario)


@pytest.mark.parametrize(
    "operations",
    [
        [Put(b"", b"v")],
        [Delete(b"")],
        [Put(b"k" * (KEY_BYTES_MAX + 1), b"v")],
        [Put(b"k", b"v" * (VALUE_BYTES_MAX + 1))],
        [Put(b"k", b"v"), Delete(b"k")],
        [Put(b"k", b"v"), Put(b"k", b"v")],
        [Delete(b"k"), Delete(b"k")],
        [Delete(b"%d" % n) for n in range(BATCH_OPERATIONS_MAX + 1)],
    ],
    ids=["empty", "empty-delete", "long-key", "long-value", "both", "puts", "deletes", "many"],
)
def test_a_malformed_batch_is_refused_whole(rig: Rig, operations: Sequence[Operation]) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        with pytest.raises(InvalidInput):
            await engine.commit(partition, Batch([Put(b"good", b"v"), *operations]))
        assert await keys(engine, partition) == []

    rig.run(scenario)


def test_a_short_request_id_is_refused(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        with pytest.raises(InvalidInput):
            await engine.commit(partition, Batch([], request_id=b"short"))

    rig.run(scenario)


def test_the_largest_batch_is_one_commit(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        names = [b"%06d" % number for number in range(BATCH_OPERATIONS_MAX)]
        done = await engine.commit(partition, Batch([Put(name, b"v") for name in names]))
        found = await engine.scan(partition, b"", b"\xff", BATCH_OPERATIONS_MAX + 1)
        assert [r.key for r in found] == names
        assert {r.version for r in found} == {done.version}
        await engine.commit(partition, Batch([Delete(name) for name in names]))
        assert await keys(engine, partition) == []

    rig.run(scenario)


def test_readers_never_see_half_a_batch(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        names = [b"%02d" % number for number in range(20)]
        await engine.commit(partition, Batch([Put(name, b"0") for name in names]))
        ended = asyncio.Event()

        async def write() -> None:
            for turn in range(30):
                await engine.commit(partition, Batch([Put(n, b"%d" % turn) for n in names]))
            ended.set()

        async def watch() -> None:
            while not ended.is_set():
                read = await engine.read(partition, names)
                assert len({r and r.value for r in read}) == 1
                scanned = await engine.scan(partition, b"", b"\xff", 100)
                assert len(scanned) == len(names)
                assert len({r.version for r in scanned}) == 1

        await asyncio.gather(write(), watch(), watch())

    rig.run(scenario)


def test_a_read_sees_every_commit_that_returned(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        async def client(number: int) -> None:
            key = b"client-%d" % number
            for turn in range(20):
                await engine.commit(partition, Batch([Put(key, b"%d" % turn)]))
                assert (await one(engine, partition, key)).value == b"%d" % turn

        await asyncio.gather(*(client(number) for number in range(8)))

    rig.run(scenario)


def test_a_cancelled_commit_is_whole_and_its_retry_finds_it(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        for turn in range(20):
            request_id = partition.encode().ljust(12, b".") + turn.to_bytes(4, "big")
            batch = Batch([Put(b"a", b"%d" % turn), Put(b"b", b"%d" % turn)], request_id=request_id)
            task = asyncio.create_task(engine.commit(partition, batch))
            for _ in range(turn % 5):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            done = await engine.commit(partition, batch)
            first, second = await engine.read(partition, [b"a", b"b"])
            assert first is not None
            assert second is not None
            assert first.value == second.value == b"%d" % turn
            assert first.version == second.version == done.version

    rig.run(scenario)


def test_health_tells_a_working_mirror(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        before = await engine.health()
        await engine.commit(partition, Batch([Put(b"k", b"v")]))
        health = await engine.health()
        assert health.state.value == "in sync"
        assert health.sequence > before.sequence
        assert all(member.in_sync and member.present for member in health.members)

    rig.run(scenario)
