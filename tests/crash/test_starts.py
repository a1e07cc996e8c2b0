"""A store that crashes on what it finds: it is not begun for ever, and reads are served."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace

import pytest

from appliance.engine.interface import MirrorState
from appliance.engine.mirror.assembled import Orders
from appliance.engine.mirror.starts import STARTS_PATH
from appliance.engine.mirror.state import Stopped
from appliance.engine.mirror.store import Store
from tests.crash.acts import commit, put
from tests.crash.history import PARTITION
from tests.crash.machine import SETTINGS, Machine, PowerCut
from tests.crash.simulated import Operation

LIMITED = replace(SETTINGS, crash_limit=3, crash_window_s=300.0)
YEAR_S = 365 * 86_400


def start(machine: Machine, orders: Orders | None = None) -> Store:
    return machine.open(settings=LIMITED, orders=orders)


def crash_after_starts(machine: Machine, times: int, between: Callable[[], None]) -> None:
    """So many starts, each of which ends without warning."""
    for _ in range(times):
        start(machine)
        machine.drop_store()
        between()


def nothing() -> None:
    """Happens between two starts."""


def test_after_three_crashes_on_the_same_data_reads_are_served_and_writes_refused(
    machine: Machine,
) -> None:
    commit(start(machine), put(b"k", 1))
    machine.drop_store()
    crash_after_starts(machine, 2, nothing)
    assert not start(machine).read_only, "three crashes, but the first was on other data"
    machine.drop_store()
    store = start(machine)
    assert "3 times within 5 minutes" in store.read_only
    health = store.health()
    assert (health.state, health.reason) == (MirrorState.READ_ONLY, store.read_only)
    assert any(store.read_only in alert for alert in machine.alerts)
    with pytest.raises(Stopped):
        store.commit([put(b"more", 2)])
    with machine.reader() as reader:
        assert reader.read(PARTITION, [b"k"]) != [None]


def test_a_crash_before_anything_is_served_counts(machine: Machine) -> None:
    commit(start(machine), put(b"k", 1))
    for _ in range(4):
        machine.drop_store()

        def cut(operation: Operation) -> None:
            if operation.kind == "write" and operation.path.startswith("log/"):
                raise PowerCut

        machine.disks["drive-a"].hook = cut
        with pytest.raises(PowerCut):
            start(machine)
    machine.disks["drive-a"].hook = None
    machine.drop_store()
    start(machine)  # the first to get so far as to see that there was progress before
    machine.drop_store()
    crash_after_starts(machine, 2, nothing)
    assert start(machine).read_only


def test_a_service_that_makes_progress_goes_on(machine: Machine) -> None:
    for number in range(1, 9):
        store = start(machine)
        assert not store.read_only
        commit(store, put(b"k", number))
        machine.drop_store()


def test_an_orderly_end_breaks_the_row(machine: Machine) -> None:
    start(machine).close()
    crash_after_starts(machine, 2, nothing)
    start(machine).close()
    crash_after_starts(machine, 2, nothing)
    assert not start(machine).read_only


def test_a_start_that_is_refused_is_no_crash(machine: Machine) -> None:
    crash_after_starts(machine, 2, nothing)
    for disk in machine.disks.values():
        disk.fail_at(1, errno.EIO, kinds=frozenset({"write"}), persistent=True)
    for _ in range(4):
        with pytest.raises(Exception, match="cannot"):
            start(machine)
        machine.drop_store()
    for disk in machine.disks.values():
        disk.hook = None
    assert not start(machine).read_only


def test_one_that_ran_long_enough_is_opened_in_full(machine: Machine) -> None:
    crash_after_starts(machine, 3, nothing)
    store = start(machine)
    assert store.read_only
    store.step()
    assert store.read_only
    machine.clock.sleep_s(LIMITED.crash_window_s)
    store.step()
    assert not store.read_only
    assert store.stopped
    machine.drop_store()
    commit(start(machine), put(b"k", 1))


def test_the_operators_word_is_enough(machine: Machine) -> None:
    crash_after_starts(machine, 3, nothing)
    assert start(machine).read_only
    machine.drop_store()
    store = start(machine, Orders(waited=True, resume=True))
    commit(store, put(b"k", 1))
    machine.drop_store()
    assert not start(machine).read_only


@pytest.mark.parametrize("jump_s", [70 * YEAR_S, -50 * YEAR_S])
@pytest.mark.parametrize("reboots", [False, True])
def test_no_clock_hides_a_crash_loop(machine: Machine, jump_s: float, reboots: bool) -> None:
    """It takes at most one more round after a jump forwards that comes with a restart."""

    def meanwhile() -> None:
        if reboots:
            machine.clock.reboot()

    machine.clock.jump_s(jump_s)
    meanwhile()
    crash_after_starts(machine, 3, meanwhile)
    assert start(machine).read_only


def test_crashes_long_ago_do_not_count(machine: Machine) -> None:
    crash_after_starts(machine, 6, lambda: machine.clock.sleep_s(200))
    assert not start(machine).read_only


@pytest.mark.parametrize("damage", ["rotten", "unwritable"])
def test_a_note_that_cannot_be_used_holds_nobody_up(machine: Machine, damage: str) -> None:
    crash_after_starts(machine, 3, nothing)
    path = machine.index_directory / STARTS_PATH
    path.unlink()
    if damage == "rotten":
        path.write_bytes(b"not a note")
    else:
        path.with_suffix(".new").mkdir()  # in the way of every write
    commit(start(machine), put(b"k", 1))
    told = any("noted" in alert for alert in machine.alerts)
    assert told == (damage == "unwritable")
