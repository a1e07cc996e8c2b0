"""Every crash point of appending, entering, preparing and recycling a segment of one drive's log.

After each: the scan finds exactly what was acknowledged, or that and the one batch under way; it
reports no damage; and the log goes on from there.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from tests.crash.logs import LogWorld, put
from tests.crash.simulated import PowerCut


def check_whole(world: LogWorld, extra: int = 1) -> None:
    scanned = world.reopen()
    assert scanned.damage == []
    found = [batch.header for batch in scanned.batches]
    wanted = [batch.header for batch in world.written]
    assert found[: len(wanted)] == wanted
    assert len(found) <= len(wanted) + extra
    world.written = scanned.batches
    world.append()
    world.append(30_000)
    again = world.scan()
    assert [b.header for b in again.batches] == [b.header for b in world.written]
    assert again.damage == [] and not again.scan.torn


def cut_everywhere(
    prepare: Callable[[LogWorld], None], act: Callable[[LogWorld], None], seed: int
) -> int:
    """Run ``act`` again and again, the power going at each of its operations in turn."""
    for cut in itertools.count(1):
        world = LogWorld()
        prepare(world)
        power = world.disk.power
        power.operations, power.cut_at = 0, cut
        try:
            act(world)
        except PowerCut:
            power.restore(random.Random(seed * 1000 + cut))
            check_whole(world)
            continue
        return cut - 1
    raise AssertionError("unreachable")


@pytest.mark.parametrize("seed", range(6))
def test_appending(seed: int) -> None:
    rng = random.Random(seed)
    print(f"seed {seed}")

    def act(world: LogWorld) -> None:
        world.fill(12, random.Random(seed))

    assert cut_everywhere(lambda world: world.fill(rng.randint(0, 5), rng), act, seed) > 12


@pytest.mark.parametrize("seed", range(6))
def test_several_crashes_in_a_row(seed: int) -> None:
    rng = random.Random(seed)
    world = LogWorld()
    for _ in range(25):
        power = world.disk.power
        power.operations, power.cut_at = 0, rng.randint(1, 60)
        try:
            world.fill(8, rng)
            power.cut()
        except PowerCut:
            pass
        power.restore(rng)
        scanned = world.reopen()
        assert scanned.damage == []
        assert [b.header for b in scanned.batches[: len(world.written)]] == [
            b.header for b in world.written
        ]
        assert len(scanned.batches) <= len(world.written) + 1
        world.written = scanned.batches


@pytest.mark.parametrize("seed", range(4))
def test_recycling(seed: int) -> None:
    """The oldest segment's records are all dead: its header is overwritten, and it is entered
    again with the next generation."""
    for cut in itertools.count(1):
        world = LogWorld()
        for _ in range(14):
            world.append(14_000)
        table = world.planner.table
        oldest = table.used()[0]
        kept = [b for b in world.written if b.header.place.segment != oldest.segment]
        power = world.disk.power
        power.operations, power.cut_at = 0, cut
        cut_short = False
        try:
            world.log.recycle(table.recycled(oldest.segment))
            world.written = kept
            while world.planner.tail.segment != oldest.segment:
                world.append(14_000)
            world.append()
            power.cut_at = 0
        except PowerCut:
            power.restore(random.Random(seed * 1000 + cut))
            cut_short = True
        scanned = world.reopen()
        assert scanned.damage == []
        sequences = [b.header.place.sequence for b in scanned.batches]
        assert sequences == sorted(set(sequences))
        found = {b.header.crc for b in scanned.batches}
        assert {b.header.crc for b in kept} <= found
        if not cut_short:
            states = {state.segment: state for state in scanned.scan.table.states()}
            assert states[oldest.segment].generation == oldest.generation + 1
            assert len(scanned.batches) == len(world.written)
            return
    raise AssertionError("unreachable")


@pytest.mark.parametrize("seed", range(10))
def test_a_torn_batch_is_told_from_a_clean_end(seed: int) -> None:
    rng = random.Random(seed)
    world = LogWorld()
    world.fill(3, rng)
    assert not world.scan().scan.torn
    batch = world.build(put(4, 9_000))
    place = batch.header.place
    path = f"log/{place.segment:08x}"
    world.disk.overwrite(path, place.offset, batch.data[:4096])
    scanned = world.scan()
    assert scanned.scan.torn and scanned.damage == []
    assert scanned.scan.tail == world.planner.tail
