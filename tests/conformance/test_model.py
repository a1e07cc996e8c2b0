"""Random histories against a dictionary."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from appliance.core.errors import Conflict, LimitExceeded
from appliance.engine.interface import (
    Batch,
    Charge,
    Committed,
    Delete,
    Engine,
    Expect,
    ExpectEmpty,
    Limit,
    Operation,
    Partition,
    Presence,
    Put,
)
from tests.conformance.deeds import pattern, read_blob, write_blob
from tests.conformance.rigs import Rig

KEYS = [b"a", b"a/1", b"a/2", b"b", b"b\x00", b"c" * 40]
COUNTERS = [b"bytes", b"objects"]
SIZES = [None, None, 0, 10, 5000, 270_000]

keys = st.sampled_from(KEYS)
charges = st.lists(st.tuples(st.sampled_from(COUNTERS), st.integers(-2, 9)), max_size=2)
puts = st.tuples(st.binary(max_size=20), st.sampled_from(SIZES), charges)
changes = st.dictionaries(keys, st.none() | puts, max_size=4)
expected = st.lists(
    st.tuples(keys, st.sampled_from(["absent", "present", "version", "empty"])), max_size=2
)
limits = st.lists(st.tuples(st.sampled_from(COUNTERS), st.integers(0, 20)), max_size=1)


@dataclass(frozen=True, slots=True)
class Kept:
    value: bytes
    version: int
    blob: bytes | None
    charges: tuple[tuple[bytes, int], ...]


@dataclass(slots=True)
class Model:
    """What the engine should hold."""

    held: dict[bytes, Kept] = field(default_factory=dict)

    def counters(self) -> dict[bytes, int]:
        totals: dict[bytes, int] = {}
        for kept in self.held.values():
            for counter, amount in kept.charges:
                totals[counter] = totals.get(counter, 0) + amount
        return {counter: total for counter, total in totals.items() if total}


def machine(rig: Rig) -> type[RuleBasedStateMachine]:
    """A state machine over ``rig``; every example has its own partition."""

    class Histories(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.partition = rig.partition()
            self.model = Model()
            self.seed = 0

        @rule(changes=changes, expected=expected, limits=limits)
        def commit(
            self,
            changes: dict[bytes, tuple[bytes, int | None, list[tuple[bytes, int]]] | None],
            expected: list[tuple[bytes, str]],
            limits: list[tuple[bytes, int]],
        ) -> None:
            async def scenario(engine: Engine, partition: Partition) -> None:
                after = dict(self.model.held)
                operations: list[Operation] = []
                for key, change in changes.items():
                    after.pop(key, None)
                    if change is None:
                        operations.append(Delete(key))
                        continue
                    value, size, charged = change
                    self.seed += 1
                    data = None if size is None else pattern(size, self.seed)
                    blob = None if data is None else await write_blob(engine, data)
                    sums = tuple(charged)
                    charges = [Charge(*charge) for charge in sums]
                    operations.append(Put(key, value, blob, charges))
                    after[key] = Kept(value, 0, data, sums)
                deleted = {key for key, change in changes.items() if change is None}
                expectations, conflicts = self.expect(expected, deleted)
                before, totals = self.model.counters(), Model(after).counters()
                beyond = [
                    counter
                    for counter, most in limits
                    if totals.get(counter, 0) > max(most, before.get(counter, 0))
                ]
                batch = Batch(operations, expectations, [Limit(*limit) for limit in limits])
                try:
                    done = await engine.commit(partition, batch)
                except Conflict as refused:
                    assert refused.key in conflicts
                    return
                except LimitExceeded as refused:
                    assert not conflicts
                    assert refused.counter in beyond
                    return
                assert not conflicts
                assert not beyond
                self.settle(after, done, changes)

            rig.run_in(self.partition, scenario)

        def expect(
            self, expected: list[tuple[bytes, str]], deleted: set[bytes]
        ) -> tuple[list[Expect | ExpectEmpty], set[bytes]]:
            held, conflicts = self.model.held, set()
            expectations: list[Expect | ExpectEmpty] = []
            for key, kind in expected:
                if kind == "empty":
                    expectations.append(ExpectEmpty(key, key + b"\xff"))
                    holds = all(k in deleted for k in held if key <= k < key + b"\xff")
                elif kind == "version":
                    version = held[key].version if key in held else 1
                    expectations.append(Expect(key, version))
                    holds = key in held
                else:
                    expectations.append(Expect(key, Presence(kind)))
                    holds = (key in held) == (kind == "present")
                if not holds:
                    conflicts.add(key)
            return expectations, conflicts

        def settle(
            self, after: dict[bytes, Kept], done: Committed, changes: Iterable[bytes]
        ) -> None:
            for key in changes:
                if (kept := after.get(key)) is not None:
                    after[key] = Kept(kept.value, done.version, kept.blob, kept.charges)
            self.model.held = after

        @rule(old=keys, new=keys)
        def move(self, old: bytes, new: bytes) -> None:
            async def scenario(engine: Engine, partition: Partition) -> None:
                operations: list[Operation] = [Put(new, b"moved", keep_blob_of=old)]
                if old != new:
                    operations.append(Delete(old))
                try:
                    done = await engine.commit(partition, Batch(operations))
                except Conflict as refused:
                    assert refused.key == old
                    assert old not in self.model.held
                    return
                source = self.model.held.pop(old)
                self.model.held[new] = Kept(b"moved", done.version, source.blob, ())

            rig.run_in(self.partition, scenario)

        @rule(start=keys, end=keys, limit=st.integers(0, 6), reverse=st.booleans())
        def scan(self, start: bytes, end: bytes, limit: int, reverse: bool) -> None:
            async def scenario(engine: Engine, partition: Partition) -> None:
                found = await engine.scan(partition, start, end, limit, reverse=reverse)
                wanted = sorted((k for k in self.model.held if start <= k < end), reverse=reverse)
                assert [record.key for record in found] == wanted[:limit]

            rig.run_in(self.partition, scenario)

        @rule()
        def compare(self) -> None:
            async def scenario(engine: Engine, partition: Partition) -> None:
                found = await engine.read(partition, KEYS)
                for key, record in zip(KEYS, found, strict=True):
                    kept = self.model.held.get(key)
                    assert (record is None) == (kept is None), key
                    if record is None or kept is None:
                        continue
                    assert (record.value, record.version) == (kept.value, kept.version)
                    assert (record.blob is None) == (kept.blob is None)
                    if record.blob is not None:
                        assert await read_blob(engine, record.blob) == kept.blob
                assert await engine.counters(partition) == self.model.counters()

            rig.run_in(self.partition, scenario)

        def teardown(self) -> None:
            self.compare()

    return Histories


def test_random_histories_equal_the_model(rig: Rig) -> None:
    run_state_machine_as_test(
        machine(rig),
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            print_blob=True,
        ),
    )
