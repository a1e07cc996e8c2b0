"""Drives that leave, come back, are replaced, and the witness that tells which of them counts."""

from __future__ import annotations

import errno

import pytest

from appliance.core.errors import (
    EngineError,
    MembershipChanged,
    Refused,
    Unavailable,
)
from appliance.engine.interface import MirrorState, Question
from appliance.engine.mirror.assembled import MayForce, NotYet, Orders
from appliance.engine.mirror.messages import Order
from appliance.engine.mirror.state import Stopped
from appliance.engine.mirror.votes import VoteFailed
from tests.crash.acts import blob_of, bring_back, commit, put
from tests.crash.history import PARTITION, History, Oracle
from tests.crash.machine import Machine


def test_a_stale_half_is_never_served(machine: Machine) -> None:
    store = machine.open()
    commit(store, put(b"old", 1))
    machine.disks["drive-b"].pull()
    commit(store, put(b"new", 2))
    assert list(store.members) == ["drive-a"]
    machine.drop_store()
    machine.disks["drive-b"].insert(machine.rng)
    with pytest.raises(Refused):
        machine.open("drive-b")
    with pytest.raises(Refused):
        machine.open("drive-b", witness=False)
    with pytest.raises((NotYet, Refused)):
        machine.open("drive-b", witness=False, orders=Orders(waited=False))
    store = machine.open()
    assert list(store.members) == ["drive-a"]
    bring_back(machine, "drive-b")
    with machine.reader("drive-b") as reader:
        assert None not in reader.read(PARTITION, [b"old", b"new"])


def test_one_drive_and_the_witness_serve(machine: Machine) -> None:
    store = machine.open()
    commit(store, put(b"k", 1))
    machine.drop_store()
    with pytest.raises(NotYet) as waiting:
        machine.open("drive-b", orders=Orders(waited=False))
    assert waiting.value.missing == ["drive-a"]
    store = machine.open("drive-b")
    assert list(store.members) == ["drive-b"]
    with machine.reader() as reader:
        assert reader.read(PARTITION, [b"k"]) != [None]
    commit(store, put(b"more", 2))
    machine.drop_store()
    store = machine.open()
    assert list(store.members) == ["drive-b"], "the other one missed a commit"


def test_a_lost_witness_is_made_anew(machine: Machine) -> None:
    commit(machine.open(), put(b"k", 1))
    machine.drop_store()
    machine.witness.restore_image({"": None})
    machine.open()
    machine.drop_store()
    store = machine.open("drive-a")
    assert list(store.members) == ["drive-a"], "with the new witness one drive is enough"


def test_a_witness_that_fails_while_serving_is_told_and_made_anew(machine: Machine) -> None:
    store = machine.open()
    machine.witness.fail_at(1, errno.EIO, persistent=True)
    machine.clock.sleep_s(4000)
    store.step()
    assert any("witness" in alert for alert in machine.alerts)
    machine.disks["drive-b"].pull()
    with pytest.raises(Stopped):
        store.commit([put(b"k", 1)])
    machine.drop_store()
    machine.witness.hook = None
    machine.disks["drive-b"].insert(machine.rng)
    store = machine.open()
    commit(store, put(b"k", 1))
    machine.witness.fail_at(1, errno.EIO)
    machine.clock.sleep_s(4000)
    store.step()
    machine.clock.sleep_s(60)
    store.step()
    machine.disks["drive-b"].pull()
    commit(store, put(b"more", 2))
    assert list(store.members) == ["drive-a"]


def test_a_replacement_becomes_a_member(machine: Machine) -> None:
    store = machine.open()
    history, oracle = History(3), Oracle()
    for _ in range(4):
        history.commit(machine, oracle)
    store.lose("drive-b", "broken")
    machine.disks["drive-b"].restore_image({"": None})
    store.add_outsider(machine.disks["drive-b"].mount())
    resync = store.begin_resync("drive-b")
    for _ in range(3):
        history.commit(machine, oracle)
        resync.copy()
    while not store.finish_resync(resync):
        resync.copy()
    assert resync.progress.done_bytes > 0
    history.commit(machine, oracle)
    oracle.check(machine)
    assert len(store.members) == 2


def test_the_joiner_failing_leaves_the_mirror_serving(machine: Machine) -> None:
    store = machine.open()
    history, oracle = History(5), Oracle()
    history.commit(machine, oracle)
    store.lose("drive-b", "pulled")
    store.add_outsider(machine.disks["drive-b"].mount())
    resync = store.begin_resync("drive-b")
    machine.disks["drive-b"].pull()
    with pytest.raises(EngineError):
        try:
            resync.copy()
            store.finish_resync(resync)
        except Exception as fault:
            store.abandon_resync(resync)
            raise EngineError(str(fault)) from fault
    history.commit(machine, oracle)
    oracle.check(machine)


def test_a_staged_blob_of_an_earlier_membership_does_not_count(machine: Machine) -> None:
    store = machine.open()
    data = machine.rng.randbytes(100_000)
    staged = machine.stage(data)
    store.lose("drive-b", "pulled")
    bring_back(machine, "drive-b")
    assert store.lacks(staged)
    order = put(b"k", 1)._replace(orders=[Order(b"k", b"0:", b"", staged)])
    commit(store, order)
    for drive in ("drive-a", "drive-b"):
        with machine.reader(drive) as reader:
            assert reader.read_blob(blob_of(machine, b"k"), 0, len(data)) == data
    nowhere = machine.stage(data)._replace(stamps={"drive-a": (99, 99)})
    (outcome,) = store.commit([put(b"z", 2)._replace(orders=[Order(b"z", b"", b"", nowhere)])])
    assert isinstance(outcome, MembershipChanged)


def test_a_survivor_whose_witness_takes_no_vote_serves_reads_until_it_does(
    machine: Machine,
) -> None:
    """Nothing acknowledged is doubted meanwhile, nothing more is promised, and nobody is ejected
    twice: the very epoch that waited becomes valid."""
    store = machine.open()
    commit(store, put(b"k", 1))
    machine.witness.fail_at(1, errno.EIO, kinds=frozenset({"write", "create"}), persistent=True)
    machine.disks["drive-b"].pull()
    with pytest.raises(Stopped):
        store.commit([put(b"unknown", 2)])
    assert "witness" in store.read_only
    assert list(store.members) == ["drive-a"]
    health = store.health()
    assert (health.state, health.question) == (MirrorState.READ_ONLY, Question.FORCE)
    assert isinstance(store.refuse(put(b"k", 1)), int), "a retry learns its outcome"
    assert isinstance(store.refuse(put(b"unknown", 2)), Unavailable)
    with machine.reader() as reader:
        assert reader.read(PARTITION, [b"k"]) != [None]
    store.step()
    assert store.read_only
    machine.clock.sleep_s(11)
    store.step()
    assert store.read_only, "it is tried again and again"
    machine.witness.hook = None
    machine.clock.sleep_s(11)
    store.step()
    assert not store.read_only
    assert store.stopped
    machine.drop_store()
    machine.disks["drive-b"].insert(machine.rng)
    with pytest.raises(Refused):
        machine.open("drive-b")
    store = machine.open("drive-a")
    commit(store, put(b"unknown", 2))
    commit(store, put(b"more", 3))
    bring_back(machine, "drive-b")
    assert len(store.members) == 2


@pytest.mark.parametrize("readable", [True, False])
def test_the_operator_may_go_on_without_the_witness(machine: Machine, readable: bool) -> None:
    store = machine.open()
    commit(store, put(b"k", 1))
    kinds = frozenset({"write", "create"} if readable else {"write", "create", "read", "stat"})
    machine.witness.fail_at(1, errno.EIO, kinds=kinds, persistent=True)
    machine.disks["drive-b"].pull()
    with pytest.raises(Stopped):
        store.commit([put(b"unknown", 2)])
    machine.drop_store()
    with pytest.raises((MayForce, VoteFailed)):
        machine.open("drive-a")
    machine.drop_store()
    store = machine.open("drive-a", orders=Orders(waited=True, forced=True))
    commit(store, put(b"more", 3))
    machine.drop_store()
    machine.witness.hook = None
    machine.disks["drive-b"].insert(machine.rng)
    store = machine.open()
    assert list(store.members) == ["drive-a"]
    with machine.reader() as reader:
        assert None not in reader.read(PARTITION, [b"k", b"more"])


def test_no_drive_shows_a_beat_that_its_witness_does_not(machine: Machine) -> None:
    """Or a witness in its place would be taken for an old copy."""
    store = machine.open()
    before = {drive: m.superblock.value.heartbeat for drive, m in store._state.members.items()}
    machine.witness.fail_at(1, errno.EIO, persistent=True)
    store._state.beat()
    after = {drive: m.superblock.value.heartbeat for drive, m in store._state.members.items()}
    assert after == before
    machine.witness.hook = None
    store._state.beat()
    again = {drive: m.superblock.value.heartbeat for drive, m in store._state.members.items()}
    assert all(again[drive] > before[drive] for drive in before), "it goes on with a new witness"
    machine.drop_store()
    assert len(machine.open().members) == 2
