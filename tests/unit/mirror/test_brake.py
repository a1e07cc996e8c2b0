"""Commits held back to a rate: on average never more, and nobody waits for nothing."""

from __future__ import annotations

import random

import pytest

from appliance.engine.mirror.brake import WAIT_S_MAX, Brake
from tests.crash.simulated import SimulatedClock

RATE = 1000.0


class _Writer:
    """Commits whenever it may, by a clock that moves only while it has to wait."""

    def __init__(self) -> None:
        self.clock = SimulatedClock()
        self.written = 0
        self.brake = Brake(self.clock, lambda: self.written)

    @property
    def now_s(self) -> float:
        return self.clock.peek_ns() / 1e9

    def write(self, size_bytes: int) -> None:
        wait_s = self.brake.wait_s
        if wait_s:
            self.clock.sleep_s(wait_s)
        self.written += size_bytes


@pytest.fixture
def writer() -> _Writer:
    return _Writer()


def test_nobody_waits_while_nothing_is_held(writer: _Writer) -> None:
    writer.written = 10**9
    assert writer.brake.wait_s == 0
    writer.brake.hold(RATE)
    assert writer.brake.wait_s == 0, "what came before does not count"


@pytest.mark.parametrize("seed", range(5))
def test_no_more_is_written_than_the_rate_and_one_batch(writer: _Writer, seed: int) -> None:
    rng = random.Random(seed)
    writer.brake.hold(RATE)
    began_s, largest = writer.now_s, 0
    for _ in range(200):
        size_bytes = rng.choice((10, 500, 20_000))
        largest = max(largest, size_bytes)
        writer.write(size_bytes)
        assert writer.written <= (writer.now_s - began_s) * RATE + largest + 1
    assert writer.written >= (writer.now_s - began_s) * RATE, "and no less"


def test_what_one_batch_was_too_much_is_waited_for_after_another_rate_is_set(
    writer: _Writer,
) -> None:
    writer.brake.hold(RATE)
    writer.write(10_000)
    assert writer.brake.wait_s == pytest.approx(10, rel=1e-3)
    writer.clock.sleep_s(4)
    writer.brake.hold(2 * RATE)
    assert writer.brake.wait_s == pytest.approx(6, rel=1e-3)
    writer.brake.release()
    assert writer.brake.wait_s == 0


def test_nobody_waits_for_a_transfer_that_is_paused(writer: _Writer) -> None:
    paused = False
    writer.brake.hold(RATE, lambda: paused)
    writer.write(10_000)
    assert writer.brake.wait_s > 9
    paused = True
    assert writer.brake.wait_s == 0
    paused = False
    assert writer.brake.wait_s > 9


def test_what_is_written_in_a_pause_is_not_waited_for_after_it(writer: _Writer) -> None:
    """Else clients would stand still for as long as it takes to copy a whole night's work."""
    paused = True
    writer.brake.hold(RATE, lambda: paused)
    for _ in range(100):
        writer.write(1_000_000)
        writer.clock.sleep_s(1)
    assert writer.brake.wait_s == 0
    paused = False
    assert writer.brake.wait_s == 0
    writer.write(10_000)
    assert writer.brake.wait_s == pytest.approx(10, rel=1e-3), "nor is the pause a credit"
    writer.brake.hold(RATE)
    assert writer.brake.wait_s == pytest.approx(10, rel=1e-3)


def test_nobody_waits_longer_than_clients_do_for_one_large_object(writer: _Writer) -> None:
    """What it was too much is still to be waited for, a while before each commit."""
    writer.brake.hold(RATE)
    writer.write(200_000)
    for _ in range(9):
        assert writer.brake.wait_s == pytest.approx(WAIT_S_MAX, rel=1e-3)
        writer.write(10)
    writer.clock.sleep_s(WAIT_S_MAX + 1)
    writer.write(10)
    assert writer.brake.wait_s < 1
