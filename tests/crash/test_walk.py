"""Walking a segment: a whole batch that the next one does not name is not taken for one of ours."""

from __future__ import annotations

import pytest

from appliance.engine.mirror.format import encode_batch
from appliance.engine.mirror.log import SegmentState
from appliance.engine.mirror.segment import FIRST_OFFSET
from appliance.engine.mirror.walk import Gap, SegmentWalk
from tests.crash.logs import MIRROR, SEGMENT_BYTES, LogWorld, put


def _world() -> LogWorld:
    world = LogWorld()
    for _ in range(6):
        world.append(5_000)
    return world


def _walk(
    world: LogWorld, start: int = FIRST_OFFSET, after: int = 0
) -> list[tuple[int, int, bool]]:
    """(start, end, whether it is a gap) of what is found."""
    (state,) = (one for one in world.planner.table.states() if one.first_sequence)
    assert isinstance(state, SegmentState)

    def read(offset: int, length: int) -> bytes:
        return world.log.read_raw(state.segment, offset, length)

    walk = SegmentWalk(read, MIRROR, state, SEGMENT_BYTES)
    return [
        (step.start, step.end, True)
        if isinstance(step, Gap)
        else (step.header.place.offset, step.end, False)
        for step in walk.steps(start, after, state.last_sequence)
    ]


def test_a_whole_row_has_no_gap() -> None:
    world = _world()
    found = _walk(world)
    assert len(found) == len(world.written)
    assert not any(is_gap for _, _, is_gap in found)


@pytest.mark.parametrize("number", range(5))
def test_a_whole_batch_of_another_history_makes_its_row_doubtful(number: int) -> None:
    world = _world()
    victim, behind = world.written[number], world.written[number + 1]
    place = victim.header.place
    other = encode_batch(place, [put(place.sequence + 77, 5_000)])
    assert len(other.data) == len(victim.data)
    world.log.write_raw(place.segment, place.offset, other.data)
    gaps = [(start, end) for start, end, is_gap in _walk(world) if is_gap]
    assert gaps == [(FIRST_OFFSET, behind.header.place.offset + len(behind.data))]


def test_the_last_one_is_told_by_nobody_here() -> None:
    """Its checksum is what the caller compares."""
    world = _world()
    place = world.written[-1].header.place
    other = encode_batch(place, [put(place.sequence + 77, 5_000)])
    world.log.write_raw(place.segment, place.offset, other.data)
    assert not any(is_gap for _, _, is_gap in _walk(world))
