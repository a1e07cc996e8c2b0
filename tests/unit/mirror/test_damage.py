"""Which damage an accepted loss covers, and which damage of two drives meets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appliance.engine.mirror.accepted import Loss, loss_of
from appliance.engine.mirror.scan import Damage

HERE = Damage(3, 2, 8192, 8192, first_sequence=7, last_sequence=7, reason="rot")
OTHERS = {
    "another segment": replace(HERE, segment=4),
    "another generation": replace(HERE, generation=3),
    "begins before": replace(HERE, offset=4096),
    "ends behind": replace(HERE, length=12288),
    "all of the segment": replace(HERE, offset=0, length=0),
}


def test_a_loss_covers_the_damage_it_is_of_and_parts_of_it() -> None:
    assert loss_of(HERE).covers(HERE)
    assert loss_of(HERE).covers(replace(HERE, length=4096))
    assert loss_of(HERE).covers(replace(HERE, offset=12288, length=4096))


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_a_loss_covers_nothing_else(name: str) -> None:
    assert not loss_of(HERE).covers(OTHERS[name])


def test_a_lost_segment_covers_all_of_its_generation_alone() -> None:
    whole = Loss(3, 2)
    assert whole.covers(HERE)
    assert whole.covers(OTHERS["all of the segment"])
    assert not whole.covers(OTHERS["another generation"])
    assert not whole.covers(OTHERS["another segment"])


@pytest.mark.parametrize(
    ("other", "meets"),
    [
        (HERE, True),
        (replace(HERE, offset=12288), True),
        (replace(HERE, offset=16384), False),
        (replace(HERE, offset=0, length=8192), False),
        (replace(HERE, segment=4), False),
    ],
)
def test_damage_of_two_drives_meets_in_the_same_bytes_alone(other: Damage, meets: bool) -> None:
    assert HERE.overlaps(other) is meets
    assert other.overlaps(HERE) is meets
