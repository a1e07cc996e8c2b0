"""What a scan says of a log that was spoilt: nothing that was written is ever passed over."""

from __future__ import annotations

import errno
import random
from dataclasses import replace
from typing import Any

import pytest

from appliance.core.errors import Damaged, DriveFault
from appliance.engine.mirror.format import DecodedBatch, encode_batch
from appliance.engine.mirror.log import LogReader, SegmentState, Tail
from appliance.engine.mirror.segment import decode_segment_header, encode_segment_header
from appliance.engine.mirror.window import BAD_BLOCKS_MAX
from tests.crash.logs import MIRROR, LogWorld, Scanned, put
from tests.crash.simulated import Operation


def spread(count: int = 14) -> LogWorld:
    """A log over several segments, four batches in each."""
    world = LogWorld()
    for _ in range(count):
        world.append(14_000)
    assert len(world.planner.table.used()) > 2
    return world


def path_of(world: LogWorld, number: int) -> str:
    return f"log/{world.written[number].header.place.segment:08x}"


def spoil(world: LogWorld, number: int, at: int = 200) -> None:
    world.disk.flip(path_of(world, number), world.written[number].header.place.offset + at)


def missing(world: LogWorld, scanned: Scanned) -> set[int]:
    found = {batch.header.place.sequence for batch in scanned.batches}
    return {batch.header.place.sequence for batch in world.written} - found


def reported(world: LogWorld, scanned: Scanned) -> set[int]:
    last = world.planner.tail.sequence
    return {
        sequence
        for damage in scanned.damage
        for sequence in range(damage.first_sequence, (damage.last_sequence or last) + 1)
    }


@pytest.mark.parametrize("number", [0, 1, 2, 5, 9])
@pytest.mark.parametrize("at", [10, 200])
def test_a_rotten_batch_is_damage_not_a_tail(number: int, at: int) -> None:
    world = spread()
    spoil(world, number, at)
    scanned = world.scan()
    assert missing(world, scanned) == {number + 1}
    (damage,) = scanned.damage
    place = world.written[number].header.place
    assert (damage.segment, damage.offset) == (place.segment, place.offset)
    assert (damage.first_sequence, damage.last_sequence) == (number + 1, number + 1)
    assert scanned.scan.tail == world.planner.tail


def test_a_rotten_last_batch_is_a_torn_tail() -> None:
    world = spread()
    spoil(world, -1)
    scanned = world.scan()
    assert scanned.damage == [] and scanned.scan.torn
    assert scanned.scan.tail == Tail.after(world.written[-2])


def test_a_lost_end_of_a_sealed_segment_is_damage() -> None:
    world = spread()
    place = world.written[3].header.place
    number = max(n for n, b in enumerate(world.written) if b.header.place.segment == place.segment)
    assert world.written[number + 1].header.place.segment != place.segment
    spoil(world, number)
    scanned = world.scan()
    assert missing(world, scanned) == reported(world, scanned) == {number + 1}
    assert scanned.scan.tail == world.planner.tail


def test_several_in_a_row() -> None:
    world = spread()
    for number in (1, 2):
        spoil(world, number)
    scanned = world.scan()
    assert missing(world, scanned) == reported(world, scanned) == {2, 3}


def test_a_missing_segment_is_damage() -> None:
    world = spread()
    volume = world.log.volume
    segment = world.written[0].header.place.segment
    volume.unlink(f"log/{segment:08x}")
    scanned = world.scan()
    assert missing(world, scanned) == {1, 2, 3}
    assert missing(world, scanned) <= reported(world, scanned)
    assert scanned.damage[0].length == 0


def test_a_rotten_segment_header_is_damage_and_repairable() -> None:
    world = spread()
    spoilt = world.log.read_raw(1, 0, 4096)
    world.disk.flip("log/00000001", 30)
    scanned = world.scan()
    assert scanned.damage[0].segment == 1 and scanned.damage[0].length == 4096
    world.reopen()
    world.log.write_raw(1, 0, spoilt)
    assert world.scan().damage == []


def test_a_segment_whose_recycling_was_lost_is_damage_once_it_was_entered_again() -> None:
    world = spread()
    old = world.disk.contents()["log/00000001"]
    world.log.recycle(world.planner.table.recycled(1))
    while world.planner.tail.segment != 1:
        world.append(14_000)
    world.append()
    while world.planner.tail.segment == 1:
        world.append(14_000)
    world.disk.overwrite("log/00000001", 0, old)
    scanned = world.scan()
    assert any(
        damage.segment == 1 and damage.generation == 2 and damage.first_sequence
        for damage in scanned.damage
    )
    assert 1 not in {batch.header.place.sequence for batch in scanned.batches}


def test_a_recycled_segment_is_no_damage() -> None:
    world = spread()
    table = world.planner.table
    world.log.recycle(table.recycled(1))
    assert table.removable() == []
    world.written = [b for b in world.written if b.header.place.segment != 1]
    scanned = world.scan()
    assert scanned.damage == [] and scanned.batches == world.written
    while world.planner.tail.segment != 1:
        world.append(14_000)
    world.log.recycle(table.recycled(2))
    world.written = [b for b in world.written if b.header.place.segment != 2]
    scanned = world.scan()
    assert scanned.damage == [] and scanned.batches == world.written


def test_only_unnamed_segments_are_removable() -> None:
    world = spread()
    table = world.planner.table
    fresh = table.next_to_prepare()
    world.log.prepare(fresh)
    table.prepared(fresh)
    assert table.removable() == [fresh]
    world.log.remove(fresh.segment)
    world.log.remove(fresh.segment)
    table.removed(fresh.segment)
    assert table.next_to_prepare().segment == fresh.segment + 1
    assert world.scan().damage == []
    world.append(40_000)
    assert world.reopen().damage == []
    assert world.planner.table.next_to_prepare().segment > fresh.segment


@pytest.mark.parametrize("kind", ["lost", "misdirected"])
def test_a_write_that_went_elsewhere_is_damage(kind: str) -> None:
    world = LogWorld()
    world.append()
    number = world.disk.operations + 1
    if kind == "lost":
        world.disk.lost_writes.add(number)
    else:
        world.disk.misdirected_writes[number] = 57_344
    for _ in range(3):
        world.append()
    scanned = world.scan()
    assert missing(world, scanned) == reported(world, scanned) == {2}


def test_a_block_that_cannot_be_read_is_damage_and_a_dead_drive_is_a_fault() -> None:
    world = spread()
    place = world.written[5].header.place

    def bad_block(operation: Operation) -> None:
        end = operation.offset + operation.length
        if operation.path == path_of(world, 5) and operation.offset <= place.offset < end:
            raise DriveFault("A", "read", errno.EIO)

    world.disk.hook = bad_block
    scanned = world.scan()
    assert missing(world, scanned) == reported(world, scanned) == {6}
    world.disk.fail_at(1, errno.EIO, kinds=frozenset({"read"}), persistent=True)
    with pytest.raises(DriveFault):
        world.scan()
    assert len(world.planner.table.states()) * 4 > BAD_BLOCKS_MAX
    world.disk.fail_at(3, errno.ETIMEDOUT, kinds=frozenset({"read"}))
    with pytest.raises(DriveFault):
        world.scan()


@pytest.mark.parametrize("number", range(14))
def test_scanning_from_any_position(number: int) -> None:
    world = spread()
    scanned = world.scan(Tail.after(world.written[number]))
    assert [b.header for b in scanned.batches] == [b.header for b in world.written[number + 1 :]]
    assert scanned.damage == [] and scanned.scan.tail == world.planner.tail
    states = {s.segment: s for s in world.planner.table.states()}
    assert {s.segment: s for s in scanned.scan.table.states()} == states


def follow(world: LogWorld, **wrong: Any) -> DecodedBatch:
    """A whole batch where the next one belongs, but for one field."""
    batch = world.build(put(1, 10))
    spoilt = encode_batch(replace(batch.header.place, **wrong), [e.record for e in batch.entries])
    place = batch.header.place
    world.disk.overwrite(f"log/{place.segment:08x}", place.offset, spoilt.data)
    return spoilt


def test_a_batch_of_another_history_does_not_follow() -> None:
    world = spread()
    follow(world, previous_crc=12345)
    scanned = world.scan()
    assert scanned.batches == world.written and scanned.scan.torn
    assert scanned.scan.tail == world.planner.tail


@pytest.mark.parametrize("wrong", [{"generation": 9}, {"segment": 9}, {"offset": 8192}])
def test_a_batch_that_belongs_elsewhere_does_not_follow(wrong: dict[str, int]) -> None:
    world = spread()
    follow(world, **wrong)
    scanned = world.scan()
    assert scanned.batches == world.written and scanned.damage == []
    assert not scanned.scan.torn


def test_a_batch_that_skips_one_within_a_segment_shows_the_gap() -> None:
    world = spread()
    last = world.planner.tail.sequence
    skipping = follow(world, sequence=last + 2)
    scanned = world.scan()
    (damage,) = scanned.damage
    assert (damage.first_sequence, damage.last_sequence, damage.length) == (last + 1, last + 1, 0)
    assert [b.header for b in scanned.batches] == [
        *(b.header for b in world.written),
        skipping.header,
    ]


@pytest.mark.parametrize("wrong", [{"mirror_id": bytes(16)}, {"segment": 9}])
def test_a_segment_header_that_belongs_elsewhere_is_damage(wrong: dict[str, Any]) -> None:
    world = spread()
    header = decode_segment_header(world.log.read_raw(1, 0, 4096))
    world.disk.overwrite("log/00000001", 0, encode_segment_header(replace(header, **wrong)))
    scanned = world.scan()
    assert scanned.damage[0].segment == 1 and scanned.damage[0].length == 4096


def test_what_a_cut_short_preparation_left_is_removed() -> None:
    world = spread()
    world.log.volume.open("log/00000009.new", write=True, create=True).close()
    world.reopen()
    assert not [name for name in world.log.volume.names("log") if name.endswith(".new")]


def test_recycling_is_durable_when_it_returns() -> None:
    world = spread()
    fresh = world.planner.table.recycled(1)
    world.log.recycle(fresh)
    header = decode_segment_header(world.disk.contents()["log/00000001"])
    assert header.generation == fresh.generation == 2


def test_an_empty_drive() -> None:
    scanned = LogWorld().scan()
    assert (scanned.batches, scanned.damage, scanned.scan.tail) == ([], [], Tail())


@pytest.mark.parametrize("seed", range(60))
def test_one_random_fault_never_loses_silently(seed: int) -> None:
    rng = random.Random(seed)
    print(f"seed {seed}")
    world = spread(rng.randint(10, 20))
    path = rng.choice([p for p in world.disk.contents() if p.startswith("log/")])
    content = world.disk.contents()[path]
    at = rng.randrange(len(content))
    if rng.random() < 0.5:
        world.disk.flip(path, at, rng.randrange(8))
    else:
        at -= at % 512
        garbage = rng.randbytes(rng.choice((512, 4096, 8192)))
        world.disk.overwrite(path, at, garbage[: len(content) - at])
    scanned = world.scan()
    last = world.planner.tail.sequence
    lost = missing(world, scanned)
    assert lost <= reported(world, scanned) | {last} or any(
        damage.offset == 0 for damage in scanned.damage
    )


def test_reading_records() -> None:
    world = spread()
    reader = LogReader(world.disk.mount(), MIRROR)
    for batch in world.written:
        for record, location in batch.entries:
            assert reader.read(location) == record
            assert reader.read(location, past_cache=True) == record
    location = world.written[3].entries[-1].location
    spoil(world, 3, 900)
    with pytest.raises(Damaged):
        reader.read(location)
    with pytest.raises(Damaged):
        reader.read(location._replace(segment=99))
    reader.close()
    reader.close()


def test_reading_a_batch() -> None:
    world = spread()
    place = world.written[4].header.place
    found = world.log.read_batch(place.segment, place.generation, place.offset)
    assert found.header == world.written[4].header
    with pytest.raises(Damaged):
        world.log.read_batch(place.segment, place.generation + 1, place.offset)
    world.log.recycle(SegmentState(place.segment, place.generation + 1))
    assert world.log.read_batch(place.segment, place.generation, place.offset) == found
