"""When free space is given back to drives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from appliance.control.disks.reality import Reality
from appliance.control.disks.trimming import (
    AGAIN_AFTER_S,
    FIRST_AFTER_S,
    Trimming,
    TrimPolicy,
    TrimWatch,
)
from appliance.core.errors import DriveFault
from appliance.core.ports import Clock, Space
from tests.unit.drives.bays import FakeBay

T = TypeVar("T")
DAY_S = 86_400.0
TOTAL = 1000


def _space(free: int) -> Space:
    return Space(TOTAL, free)


def test_once_a_week_and_not_in_the_middle_of_a_start() -> None:
    watch = TrimWatch(TrimPolicy(7 * DAY_S, 10))
    assert not watch.due("d", _space(500), 0)
    assert not watch.due("d", _space(500), FIRST_AFTER_S - 1)
    assert watch.due("d", _space(500), FIRST_AFTER_S)
    assert not watch.due("d", _space(500), FIRST_AFTER_S + 7 * DAY_S - 1)
    assert watch.due("d", _space(500), FIRST_AFTER_S + 7 * DAY_S)


def test_sooner_when_much_was_freed_but_once_a_day_at_most() -> None:
    watch = TrimWatch(TrimPolicy(7 * DAY_S, 10))
    watch.due("d", _space(500), 0)
    assert watch.due("d", _space(500), FIRST_AFTER_S)
    now_s = FIRST_AFTER_S + AGAIN_AFTER_S
    assert not watch.due("d", _space(200), now_s), "filled, not freed"
    assert not watch.due("d", _space(299), now_s + 60)
    assert watch.due("d", _space(300), now_s + 120), "since it was fullest"
    assert not watch.due("d", _space(900), now_s + 180)
    assert watch.due("d", _space(900), now_s + 120 + AGAIN_AFTER_S)


def test_never_means_never() -> None:
    watch = TrimWatch(TrimPolicy(0, 10))
    for day in range(100):
        assert not watch.due("d", _space(day * 10), day * DAY_S)


def test_a_drive_that_comes_back_is_new() -> None:
    watch = TrimWatch(TrimPolicy(7 * DAY_S, 10))
    watch.due("d", _space(500), 0)
    watch.forget_but(set())
    assert not watch.due("d", _space(500), FIRST_AFTER_S)


class FakeReality:
    """As much of ``Reality`` as is asked here."""

    def __init__(self, *drives: str) -> None:
        self.present = dict.fromkeys(drives)

    async def blocking(self, call: Callable[[], T], *, deadline_s: float = 1.0) -> T:
        return call()


class HandClock:
    """Stands until it is moved."""

    now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s


class SickBay(FakeBay):
    """One of its drives does not answer."""

    def trim(self, drive_id: str, start: int, length: int) -> int | None:
        if drive_id == "sick":
            raise DriveFault(drive_id, "trim", 5)
        return super().trim(drive_id, start, length)


def test_all_pieces_of_each_drive_are_trimmed_and_none_waits_for_another(tmp_path: Path) -> None:
    bay, clock = SickBay(tmp_path), HandClock()
    bay.not_to_be_told.add("old")
    reality = cast(Reality, cast(Any, FakeReality("one", "old", "sick", "two")))

    async def scenario() -> None:
        trimming = Trimming(reality, bay, cast(Clock, clock), TrimPolicy())
        await trimming.look()
        assert bay.trimmed == []
        clock.now_s = FIRST_AFTER_S
        await trimming.look()
        await asyncio.gather(*trimming._under_way.values())
        assert not trimming._under_way
        await trimming.close()

    asyncio.run(scenario())
    pieces = [(drive, *piece) for drive in ("one", "two") for piece in ((0, 10), (10, 5))]
    assert sorted(bay.trimmed) == pieces
