"""Expectations, limits, charges and request ids."""

from __future__ import annotations

import asyncio

import pytest

from appliance.core.errors import Conflict, LimitExceeded
from appliance.engine.interface import (
    Batch,
    Charge,
    Delete,
    Engine,
    Expect,
    ExpectEmpty,
    Limit,
    Partition,
    Presence,
    Put,
)
from tests.conformance.deeds import keys, one
from tests.conformance.rigs import Rig

A_KEY = b"bytes"


def _charged(key: bytes, amount: int) -> Put:
    return Put(key, b"v", charges=[Charge(A_KEY, amount)])


def test_expect_absent_and_present(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        absent, present = Expect(b"k", Presence.ABSENT), Expect(b"k", Presence.PRESENT)
        with pytest.raises(Conflict) as refused:
            await engine.commit(partition, Batch([Put(b"k", b"1"), Put(b"other", b"1")], [present]))
        assert refused.value.key == b"k"
        assert await keys(engine, partition) == []
        await engine.commit(partition, Batch([Put(b"k", b"1")], [absent]))
        with pytest.raises(Conflict):
            await engine.commit(partition, Batch([Put(b"k", b"2")], [absent]))
        await engine.commit(partition, Batch([Put(b"k", b"3")], [present]))
        assert (await one(engine, partition, b"k")).value == b"3"

    rig.run(scenario)


def test_expect_a_version(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        first = await engine.commit(partition, Batch([Put(b"k", b"1")]))
        at_first = [Expect(b"k", first.version)]
        await engine.commit(partition, Batch([Put(b"k", b"2")], at_first))
        with pytest.raises(Conflict):
            await engine.commit(partition, Batch([Put(b"k", b"3")], at_first))
        await engine.commit(partition, Batch([Delete(b"k")]))
        with pytest.raises(Conflict):
            await engine.commit(partition, Batch([Put(b"k", b"4")], at_first))
        assert await keys(engine, partition) == []

    rig.run(scenario)


def test_an_expectation_may_name_a_key_the_batch_does_not_touch(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        await engine.commit(partition, Batch([Put(b"guard", b"1")]))
        guarded = [Expect(b"guard", Presence.PRESENT)]
        await engine.commit(partition, Batch([Put(b"k", b"1")], guarded))
        await engine.commit(partition, Batch([Delete(b"guard")]))
        with pytest.raises(Conflict) as refused:
            await engine.commit(partition, Batch([Put(b"k", b"2")], guarded))
        assert refused.value.key == b"guard"

    rig.run(scenario)


def test_expect_empty_counts_what_was_there_before_the_batch(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        empty = [ExpectEmpty(b"b/", b"b0")]
        await engine.commit(partition, Batch([Put(b"b/1", b""), Put(b"b/2", b"")], empty))
        with pytest.raises(Conflict) as refused:
            await engine.commit(partition, Batch([Delete(b"b/1")], empty))
        assert refused.value.key == b"b/"
        await engine.commit(partition, Batch([Delete(b"b/1"), Delete(b"b/2")], empty))
        assert await keys(engine, partition) == []
        await engine.commit(partition, Batch([Put(b"b", b""), Put(b"b0", b"")], empty))
        await engine.commit(partition, Batch([Put(b"x", b"")], empty))

    rig.run(scenario)


def test_expect_empty_is_not_satisfied_by_replacing(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        await engine.commit(partition, Batch([Put(b"a", b"1")]))
        with pytest.raises(Conflict):
            await engine.commit(partition, Batch([Put(b"a", b"2")], [ExpectEmpty(b"a", b"b")]))
        assert (await one(engine, partition, b"a")).value == b"1"

    rig.run(scenario)


def test_exactly_one_of_many_rivals_wins(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        async def rival(number: int, turn: int) -> bool:
            try:
                await engine.commit(
                    partition,
                    Batch(
                        [Put(b"turn-%d" % turn, b"%d" % number)],
                        [Expect(b"turn-%d" % turn, Presence.ABSENT)],
                    ),
                )
            except Conflict:
                return False
            return True

        for turn in range(10):
            wins = await asyncio.gather(*(rival(number, turn) for number in range(16)))
            assert wins.count(True) == 1
            value = (await one(engine, partition, b"turn-%d" % turn)).value
            assert value == b"%d" % wins.index(True)

    rig.run(scenario)


def test_a_refusal_rests_on_something_durable(rig: Rig) -> None:
    """Whoever is told "it exists already" finds it at once."""

    async def scenario(engine: Engine, partition: Partition) -> None:
        async def rival(number: int) -> None:
            try:
                await engine.commit(
                    partition, Batch([Put(b"k", b"")], [Expect(b"k", Presence.ABSENT)])
                )
            except Conflict:
                assert await engine.read(partition, [b"k"]) != [None]

        await asyncio.gather(*(rival(number) for number in range(32)))

    rig.run(scenario)


def test_counters_are_the_sum_of_living_charges(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        assert await engine.counters(partition) == {}
        two = Put(b"a", b"", charges=[Charge(A_KEY, 5), Charge(b"count", 1), Charge(A_KEY, 2)])
        await engine.commit(partition, Batch([two, _charged(b"b", 10)]))
        assert await engine.counters(partition) == {A_KEY: 17, b"count": 1}
        await engine.commit(partition, Batch([_charged(b"a", 1)]))
        assert await engine.counters(partition) == {A_KEY: 11}
        await engine.commit(partition, Batch([Put(b"b", b"free of charge")]))
        assert await engine.counters(partition) == {A_KEY: 1}
        await engine.commit(partition, Batch([_charged(b"a", -4), _charged(b"c", 4)]))
        assert await engine.counters(partition) == {}
        await engine.commit(partition, Batch([Delete(b"a")]))
        assert await engine.counters(partition) == {A_KEY: 4}

    rig.run(scenario)


def test_counters_of_partitions_are_apart(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        await engine.commit(partition, Batch([_charged(b"a", 2**40)]))
        assert await engine.counters(rig.partition()) == {}
        assert await engine.counters(partition) == {A_KEY: 2**40}

    rig.run(scenario)


def test_a_limit_stops_only_what_raises_the_counter(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        ten = [Limit(A_KEY, 10)]
        await engine.commit(partition, Batch([_charged(b"a", 10)], (), ten))
        with pytest.raises(LimitExceeded) as refused:
            await engine.commit(partition, Batch([_charged(b"b", 1)], (), ten))
        assert (refused.value.counter, refused.value.limit) == (A_KEY, 10)
        await engine.commit(partition, Batch([_charged(b"b", 5)]))
        await engine.commit(partition, Batch([_charged(b"b", 5)], (), ten))
        await engine.commit(partition, Batch([_charged(b"b", 4)], (), ten))
        await engine.commit(partition, Batch([Put(b"c", b"")], (), ten))
        await engine.commit(partition, Batch([Delete(b"a"), _charged(b"c", 6)], (), ten))
        assert await engine.counters(partition) == {A_KEY: 10}

    rig.run(scenario)


def test_concurrent_commits_never_pass_a_limit(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        async def client(number: int) -> bool:
            try:
                await engine.commit(
                    partition, Batch([_charged(b"%d" % number, 3)], (), [Limit(A_KEY, 50)])
                )
            except LimitExceeded:
                return False
            return True

        passed = await asyncio.gather(*(client(number) for number in range(40)))
        assert passed.count(True) == 16
        assert await engine.counters(partition) == {A_KEY: 48}

    rig.run(scenario)


def test_a_retry_with_the_same_request_id_changes_nothing_again(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        request_id = partition.encode().ljust(16, b"r")
        batch = Batch([_charged(b"a", 1)], [Expect(b"a", Presence.ABSENT)], request_id=request_id)
        first = await engine.commit(partition, batch)
        assert await engine.commit(partition, batch) == first
        await engine.commit(partition, Batch([Delete(b"a")]))
        assert await engine.commit(partition, batch) == first
        assert await keys(engine, partition) == []
        assert await engine.counters(partition) == {}

    rig.run(scenario)


def test_the_same_request_at_the_same_time_is_one_commit(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        batch = Batch(
            [_charged(b"a", 1)],
            [Expect(b"a", Presence.ABSENT)],
            request_id=partition.encode().ljust(16, b"s"),
        )
        outcomes = await asyncio.gather(*(engine.commit(partition, batch) for _ in range(8)))
        assert len(set(outcomes)) == 1

    rig.run(scenario)


def test_a_refused_request_may_be_tried_again(rig: Rig) -> None:
    async def scenario(engine: Engine, partition: Partition) -> None:
        batch = Batch(
            [Put(b"a", b"2")],
            [Expect(b"a", Presence.PRESENT)],
            request_id=partition.encode().ljust(16, b"t"),
        )
        with pytest.raises(Conflict):
            await engine.commit(partition, batch)
        await engine.commit(partition, Batch([Put(b"a", b"1")]))
        await engine.commit(partition, batch)
        assert (await one(engine, partition, b"a")).value == b"2"

    rig.run(scenario)
