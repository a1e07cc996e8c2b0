"""A witness that is full or does not come back, while it is needed and while it is not.

Needed, it is waited for ten seconds: then reads alone are served and writes get a 503 with a time
to try again, until it takes the very vote that waits, or the operator goes on without it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.core.errors import Unavailable
from appliance.engine.interface import MirrorState, Question
from appliance.engine.mirror.assembled import MayForce, Orders
from appliance.engine.mirror.glance import closed_health
from appliance.engine.mirror.state import Stopped
from appliance.engine.mirror.store import Store
from appliance.engine.mirror.votes import WITNESS_DEADLINE_S, WitnessMissing
from tests.crash.acts import bring_back, commit, put
from tests.crash.history import PARTITION
from tests.crash.machine import Machine, PowerCut
from tests.crash.simulated import Operation
from tests.crash.stalls import Stall, StalledLanes

pytestmark = pytest.mark.timeout(120)

End = Callable[[], None]
Trouble = Callable[[Machine, StalledLanes], End]


def _fills_up(machine: Machine, _lanes: StalledLanes) -> End:
    """Its disk has no room for one more block."""
    kinds = frozenset({"write", "create", "allocate"})
    machine.witness.fail_at(1, errno.ENOSPC, kinds=kinds, persistent=True)

    def end() -> None:
        machine.witness.hook = None

    return end


def _stands_still(machine: Machine, lanes: StalledLanes) -> End:
    """Its disk does not answer; what it was asked last it does when it comes back."""
    stall = Stall(lanes, machine.witness, 1)

    def end() -> None:
        stall.release()
        lanes.settle()

    return end


@pytest.fixture(params=[_fills_up, _stands_still])
def trouble(request: pytest.FixtureRequest) -> Trouble:
    made: Trouble = request.param
    return made


@pytest.fixture
def lanes() -> StalledLanes:
    return StalledLanes()


@pytest.fixture
def machine(scratch: Path) -> Iterator[Machine]:
    made = Machine(7, scratch)
    yield made
    made.drop_store()


def _is_readable(machine: Machine, *keys: bytes) -> None:
    with machine.reader() as reader:
        assert None not in reader.read(PARTITION, list(keys))


def _has_witness(store: Store) -> bool:
    return store._state.votes.witness_present


def _takes_no_write(machine: Machine) -> None:
    kinds = frozenset({"write", "create"})
    machine.witness.fail_at(1, errno.EIO, kinds=kinds, persistent=True)


def test_at_a_start_nothing_is_served_before_it_takes_its_vote(machine: Machine) -> None:
    """Not even reads: what is on this drive alone may be void. The operator is asked."""
    commit(machine.open(), put(b"k", 1))
    machine.drop_store()
    machine.disks["drive-b"].pull()
    _takes_no_write(machine)
    for _ in range(2):
        with pytest.raises(WitnessMissing) as failure:
            machine.open("drive-a")
        machine.drop_store()
        health = closed_health(["drive-a"], str(failure.value), failure.value)
        assert health.question is Question.FORCE
    machine.witness.hook = None
    store = machine.open("drive-a")
    commit(store, put(b"more", 2))
    machine.drop_store()
    machine.disks["drive-b"].insert(machine.rng)
    store = machine.open()
    assert list(store.members) == ["drive-a"], "what it lacks was acknowledged"
    _is_readable(machine, b"k", b"more")


def test_behind_both_drives_it_is_done_without(machine: Machine) -> None:
    """An epoch that two drives have is valid, whatever W has."""
    store = machine.open()
    commit(store, put(b"k", 1))
    store.lose("drive-b", "pulled")

    def cut(operation: Operation) -> None:
        if operation.kind == "write":
            raise PowerCut

    machine.witness.hook = cut
    with pytest.raises(PowerCut):
        bring_back(machine, "drive-b")  # the join is on both drives, and not on W
    machine.drop_store()
    _takes_no_write(machine)
    store = machine.open()
    assert len(store.members) == 2
    assert any("witness does not take its vote" in alert for alert in machine.alerts)
    commit(store, put(b"more", 2))
    assert not _has_witness(store)
    _is_readable(machine, b"k", b"more")


def test_needed_it_is_waited_for_and_then_nothing_more_is_promised(
    machine: Machine, lanes: StalledLanes, trouble: Trouble
) -> None:
    store = machine.open(lanes=lanes)
    commit(store, put(b"k", 1))
    end = trouble(machine, lanes)
    machine.disks["drive-b"].pull()
    with pytest.raises(Stopped):
        store.commit([put(b"unknown", 2)])
    assert list(store.members) == ["drive-a"]
    health = store.health()
    assert (health.state, health.question) == (MirrorState.READ_ONLY, Question.FORCE)
    refusal = store.refuse(put(b"unknown", 2))
    assert isinstance(refusal, Unavailable)
    assert refusal.retry_after_s == WITNESS_DEADLINE_S
    for _ in range(3):
        machine.clock.sleep_s(11)
        store.step()
        assert store.read_only
        _is_readable(machine, b"k")
    end()
    machine.clock.sleep_s(11)
    store.step()
    assert store.stopped
    assert not store.read_only, "it is opened anew"
    machine.drop_store()
    store = machine.open("drive-a", lanes=lanes)
    commit(store, put(b"unknown", 2))
    bring_back(machine, "drive-b")
    assert len(store.members) == 2
    _is_readable(machine, b"k", b"unknown")


def test_the_operator_goes_on_without_it_and_it_harms_nothing_when_it_is_back(
    machine: Machine, lanes: StalledLanes, trouble: Trouble
) -> None:
    store = machine.open(lanes=lanes)
    commit(store, put(b"k", 1))
    end = trouble(machine, lanes)
    machine.disks["drive-b"].pull()
    with pytest.raises(Stopped):
        store.commit([put(b"unknown", 2)])
    machine.drop_store()
    with pytest.raises((MayForce, WitnessMissing)):
        machine.open("drive-a", lanes=lanes)
    machine.drop_store()
    forced = Orders(waited=True, forced=True)
    store = machine.open("drive-a", lanes=lanes, orders=forced)
    commit(store, put(b"more", 3))
    end()  # a vote that waited since before it was forced is taken only now
    commit(store, put(b"further", 4))
    machine.drop_store()
    machine.disks["drive-b"].insert(machine.rng)
    store = machine.open(lanes=lanes)
    assert list(store.members) == ["drive-a"]
    _is_readable(machine, b"k", b"more", b"further")
    bring_back(machine, "drive-b")
    machine.drop_store()
    store = machine.open()
    assert len(store.members) == 2
    assert _has_witness(store)
    _is_readable(machine, b"k", b"more", b"further")


def test_not_needed_it_is_told_done_without_and_made_anew(
    machine: Machine, lanes: StalledLanes, trouble: Trouble
) -> None:
    store = machine.open(lanes=lanes)
    end = trouble(machine, lanes)
    machine.clock.sleep_s(3700)
    store.step()  # the heartbeat proves it
    assert any("witness" in alert for alert in machine.alerts)
    assert not _has_witness(store)
    machine.clock.sleep_s(3700)
    store.step()
    commit(store, put(b"k", 1))
    assert len(store.members) == 2
    end()
    machine.clock.sleep_s(100)
    store.step()
    assert _has_witness(store)
    machine.drop_store()
    machine.disks["drive-b"].pull()
    store = machine.open("drive-a")
    commit(store, put(b"more", 2))
    _is_readable(machine, b"k", b"more")
