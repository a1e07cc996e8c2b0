"""Somebody sets the clock, seventy years ahead or far back: nothing is harmed or destroyed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.control.tls.certificates import Certificates
from appliance.engine.mirror.blob import blob_path
from appliance.engine.mirror.messages import Order
from appliance.engine.mirror.place import FilePlace, decode_place
from appliance.engine.mirror.steady import SteadyTime
from tests.crash.acts import blob_of, bring_back, commit, delete, put
from tests.crash.history import History, Oracle
from tests.crash.machine import SETTINGS, Machine
from tests.crash.simulated import SimulatedClock

GRACE_S = 3600.0
GRACEFUL = replace(SETTINGS, release_grace_s=GRACE_S, crash_limit=3)
YEAR_S = 365 * 86_400.0
JUMPS = pytest.mark.parametrize("jump_s", [70 * YEAR_S, -50 * YEAR_S], ids=["ahead", "back"])


def a_deleted_file(machine: Machine) -> str:
    """Of a large object that is gone; somebody may still be reading it."""
    store = machine.open(settings=GRACEFUL)
    machine.clock.sleep_s(GRACE_S + 1)
    store.step()
    order = put(b"k", 1)._replace(orders=[Order(b"k", b"0:", b"", machine.stage(b"q" * 100_000))])
    commit(store, order)
    place = decode_place(blob_of(machine, b"k").place)
    assert isinstance(place, FilePlace)
    commit(store, delete(b"k", 2))
    return blob_path(place.blob_id)


def is_there(machine: Machine, path: str) -> bool:
    found = {path in disk.tree for disk in machine.disks.values()}
    assert len(found) == 1
    return found.pop()


def steps(machine: Machine, seconds: float) -> None:
    """Time passes, and the store looks at it every ten minutes."""
    store = machine.store
    assert store is not None
    for _ in range(int(seconds // 600)):
        machine.clock.sleep_s(600)
        store.step()


def restart(machine: Machine) -> None:
    machine.drop_store()
    machine.clock.reboot()
    machine.open(settings=GRACEFUL)


@JUMPS
@pytest.mark.parametrize("restarts", [False, True])
def test_a_released_blob_keeps_its_grace_and_goes_afterwards(
    machine: Machine, jump_s: float, restarts: bool
) -> None:
    path = a_deleted_file(machine)
    machine.clock.jump_s(jump_s)
    if restarts:
        restart(machine)
    assert machine.store is not None
    machine.store.step()
    steps(machine, GRACE_S - 1200)
    assert is_there(machine, path), "not an hour has passed"
    steps(machine, 2 * GRACE_S)
    assert not is_there(machine, path), "and it is not kept until the clock catches up"


def test_without_a_jump_the_grace_is_the_grace(machine: Machine) -> None:
    path = a_deleted_file(machine)
    steps(machine, GRACE_S - 1200)
    assert is_there(machine, path)
    steps(machine, 2400)
    assert not is_there(machine, path)


@JUMPS
@pytest.mark.parametrize("when", ["serving", "down", "transfer"])
def test_nothing_acknowledged_is_lost_and_the_order_is_kept(
    machine: Machine, jump_s: float, when: str
) -> None:
    store = machine.open()
    history, oracle = History(11), Oracle()
    for _ in range(5):
        history.commit(machine, oracle)
    if when == "down":
        machine.drop_store()
        machine.clock.reboot()
        machine.clock.jump_s(jump_s)
        store = machine.open()
    elif when == "transfer":
        store.lose("drive-b", "pulled")
        machine.clock.jump_s(jump_s)
        history.commit(machine, oracle)
        bring_back(machine, "drive-b")
    machine.clock.jump_s(jump_s if when == "serving" else -jump_s)
    for _ in range(5):
        history.commit(machine, oracle)
    assert oracle.last_order is not None
    (again,) = store.commit([oracle.last_order])
    assert isinstance(again, int), "a retry still finds its outcome"
    oracle.check(machine)
    machine.drop_store()
    machine.open()
    oracle.check(machine)


@JUMPS
def test_heartbeats_and_votes_take_no_notice(machine: Machine, jump_s: float) -> None:
    store = machine.open()
    before = store._state.votes.heartbeat
    machine.clock.jump_s(jump_s)
    store.step()
    assert store._state.votes.heartbeat == before
    machine.clock.sleep_s(3601)
    store.step()
    assert store._state.votes.heartbeat == before + 1
    machine.drop_store()
    assert len(machine.open().members) == 2


@pytest.mark.parametrize(
    ("jump_s", "said"),
    [
        (70 * YEAR_S, "set 25550 days ahead"),
        (-50 * YEAR_S, "set 18250 days back"),
        (3 * 3600.0, "set 3.0 hours ahead"),
        (600.0, ""),
    ],
)
def test_a_clock_that_was_set_is_told_once(machine: Machine, jump_s: float, said: str) -> None:
    store = machine.open()
    store.step()
    machine.clock.jump_s(jump_s)
    for _ in range(3):
        machine.clock.sleep_s(60)
        store.step()
    told = [alert for alert in machine.alerts if "clock" in alert]
    assert len(told) == bool(said)
    assert all(said in alert for alert in told)


@JUMPS
def test_the_authority_that_clients_trust_outlives_any_clock(tmp_path: Path, jump_s: float) -> None:
    """A server certificate made under a wrong clock is replaced as soon as the clock is right."""
    clock = SimulatedClock()
    certificates = Certificates(tmp_path, "example.test", clock)
    certificates.ensure()
    trusted = (tmp_path / "ca.pem").read_bytes()
    clock.jump_s(jump_s)
    certificates.ensure()
    clock.jump_s(-jump_s)
    certificates.ensure()
    assert (tmp_path / "ca.pem").read_bytes() == trusted
    assert not certificates.ensure(), "valid now, and settled"


@pytest.mark.parametrize(
    ("meanwhile", "is_steady"),
    [
        (lambda clock: clock.sleep_s(100), True),
        (lambda clock: clock.jump_s(1), True),
        (lambda clock: clock.jump_s(60), False),
        (lambda clock: clock.jump_s(-60), False),
    ],
    ids=["time passes", "it is slewed", "it is put on", "it is put back"],
)
def test_a_set_clock_is_told_from_a_running_one(
    meanwhile: Callable[[SimulatedClock], None], is_steady: bool
) -> None:
    clock = SimulatedClock()
    steady = SteadyTime(clock)
    clock.sleep_s(1000)
    assert steady.steady_for_s() >= 1000
    meanwhile(clock)
    assert (steady.steady_for_s() >= 1000) == is_steady
    clock.sleep_s(500)
    assert steady.steady_for_s() >= 500
