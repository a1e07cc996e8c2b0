"""A drive takes another's place, with the outgoing one as a source until it counts, or without it:
power cuts at every operation, sources that fail in its middle, commits flowing meanwhile.

Whatever happens, no fewer drives hold an acknowledged commit than the mirror has members.
"""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest

from appliance.core.errors import ApplianceError, DriveFault, Refused, Unavailable
from appliance.engine.mirror.blob import blob_path
from appliance.engine.mirror.place import FilePlace, InlinePlace, decode_place
from appliance.engine.mirror.resync import Resync
from appliance.engine.mirror.segment import segment_path
from appliance.engine.mirror.store import Store
from tests.crash.acts import blob_of, commit, put, put_staged
from tests.crash.cuts import sweep
from tests.crash.history import PARTITION, History, Oracle
from tests.crash.machine import Machine, PowerCut
from tests.crash.simulated import Operation

OLD, NEW = "drive-b", "drive-c"
REPLACES = {NEW: OLD}
SHORT_STATES = 24
LONG_STATES = 400


def _add_new(machine: Machine, store: Store) -> None:
    store.replacing(REPLACES)
    store.add_outsider(machine.add_disk(NEW).mount())


def _bring_in(store: Store, drive: str = NEW) -> Resync:
    resync = store.begin_resync(drive)
    resync.copy()
    while not store.finish_resync(resync):
        resync.copy()
    return resync


def _replace(machine: Machine, history: History, oracle: Oracle) -> None:
    """Commits, and a replacement among them."""
    store = machine.store
    assert store is not None
    for _ in range(4):
        history.commit(machine, oracle)
    _add_new(machine, store)
    resync = store.begin_resync(NEW)
    resync.copy()
    history.commit(machine, oracle)
    while not store.finish_resync(resync):
        resync.copy()
    history.commit(machine, oracle)


def test_a_new_drive_takes_the_place_of_a_whole_one(machine: Machine) -> None:
    store = machine.open()
    history, oracle = History(3), Oracle()
    for _ in range(12):
        history.commit(machine, oracle)
    _add_new(machine, store)
    resync = store.begin_resync(NEW)
    for _ in range(3):
        history.commit(machine, oracle)
        assert sorted(store.members) == ["drive-a", OLD], "until the new one counts"
        resync.copy()
    while not store.finish_resync(resync):
        resync.copy()
    assert sorted(store.members) == ["drive-a", NEW]
    assert store.candidates() == [], "the outgoing one does not come back by itself"
    assert [member.drive_id for member in store.health().members] == ["drive-a", NEW]
    history.commit(machine, oracle)
    oracle.check(machine)
    machine.drop_store()
    store = machine.open("drive-a", NEW)
    assert sorted(store.members) == ["drive-a", NEW]
    oracle.check(machine)


def test_the_drive_that_was_replaced_never_serves_again(machine: Machine) -> None:
    store = machine.open()
    commit(store, put(b"k", 1))
    _add_new(machine, store)
    _bring_in(store)
    commit(store, put(b"more", 2))
    machine.drop_store()
    with pytest.raises(ApplianceError):
        machine.open(OLD)
    machine.drop_store()
    store = machine.open("drive-a", OLD)
    assert list(store.members) == ["drive-a"]


def test_a_third_drive_finds_no_place_in_a_whole_mirror(machine: Machine) -> None:
    store = machine.open()
    commit(store, put(b"k", 1))
    store.add_outsider(machine.add_disk(NEW).mount())
    assert store.candidates() == []
    with pytest.raises(Refused, match="both drives of the mirror are in sync"):
        store.begin_resync(NEW)


def test_a_drive_that_is_gone_is_replaced(machine: Machine) -> None:
    store = machine.open()
    history, oracle = History(4), Oracle()
    for _ in range(6):
        history.commit(machine, oracle)
    machine.disks[OLD].pull()
    history.commit(machine, oracle)
    _add_new(machine, store)
    assert store.candidates() == [NEW]
    _bring_in(store)
    history.commit(machine, oracle)
    oracle.check(machine)
    assert sorted(store.members) == ["drive-a", NEW]
    # It comes back late: nobody makes room for it.
    machine.disks[OLD].insert(machine.rng)
    store.add_outsider(machine.disks[OLD].mount())
    assert store.candidates() == []


def test_a_returning_member_takes_the_place_its_peer_was_to_give_up(machine: Machine) -> None:
    """A is away while its peer is replaced: the peer stays until A is back, never one copy."""
    store = machine.open()
    commit(store, put(b"k", 1))
    store.lose("drive-a", "pulled")
    _add_new(machine, store)
    _bring_in(store)
    assert sorted(store.members) == [OLD, NEW]
    commit(store, put(b"more", 2))
    store.add_outsider(machine.disks["drive-a"].mount())
    assert store.candidates() == ["drive-a"]
    _bring_in(store, "drive-a")
    assert sorted(store.members) == ["drive-a", NEW]


def _large_and_small(machine: Machine) -> tuple[Store, bytes, FilePlace, InlinePlace]:
    """A blob in a file and what it holds, one in a sealed segment, and where both are."""
    store = machine.open()
    data = machine.rng.randbytes(150_000)
    put_staged(machine, b"large", 1, data)
    commit(store, put(b"small", 2))
    for number in range(20):
        commit(store, put(b"filler", 3 + number, b"z" * 20_000))
    large = decode_place(blob_of(machine, b"large").place)
    small = decode_place(blob_of(machine, b"small").place)
    assert isinstance(large, FilePlace)
    assert isinstance(small, InlinePlace)
    return store, data, large, small


@pytest.mark.parametrize("kind", ["blob", "log"])
def test_the_outgoing_drive_gives_what_the_other_cannot(machine: Machine, kind: str) -> None:
    store, data, large, small = _large_and_small(machine)
    if kind == "blob":
        machine.disks["drive-a"].flip(blob_path(large.blob_id), 80_000)
    else:
        machine.disks["drive-a"].flip(
            segment_path(small.location.segment), small.location.offset + 100
        )
    _add_new(machine, store)
    resync = _bring_in(store)
    assert resync.progress.unreadable == 0
    with machine.reader(NEW) as reader:
        assert reader.read_blob(blob_of(machine, b"large"), 0, len(data)) == data
        assert reader.read_blob(blob_of(machine, b"small"), 0, 3000) == b"x" * 3000
        assert machine.suspects == []


@pytest.mark.parametrize("kind", ["blob", "log"])
def test_what_the_only_source_lost_is_listed_and_blocks_nothing(
    machine: Machine, kind: str
) -> None:
    store, _, large, small = _large_and_small(machine)
    bad, at = blob_path(large.blob_id), 80_000
    if kind == "log":
        bad, at = segment_path(small.location.segment), small.location.offset
    store.lose(OLD, "broken")

    def hook(operation: Operation) -> None:
        covers = operation.offset <= at < operation.offset + operation.length
        if operation.kind == "read" and operation.path == bad and covers:
            raise DriveFault("drive-a", "read", errno.EIO)

    machine.disks["drive-a"].hook = hook
    _add_new(machine, store)
    resync = _bring_in(store)
    assert sorted(store.members) == ["drive-a", NEW]
    (spot,) = resync.progress.spots
    assert (spot.blob_id == large.blob_id) == (kind == "blob")
    assert (spot.segment == small.location.segment) == (kind == "log")
    assert store.health().unreadable == {PARTITION: 1}
    assert any(f"1 of {PARTITION}" in alert for alert in machine.alerts)
    with machine.reader(NEW) as reader:
        assert reader.read_blob(blob_of(machine, b"filler"), 0, 20_000) == b"z" * 20_000


def test_a_source_that_dies_leaves_the_rest_to_the_other(machine: Machine) -> None:
    store = machine.open()
    history, oracle = History(8), Oracle()
    for _ in range(10):
        history.commit(machine, oracle)
    _add_new(machine, store)
    resync = store.begin_resync(NEW)
    resync.copy()
    history.commit(machine, oracle)
    machine.disks[OLD].pull()
    history.commit(machine, oracle)
    assert list(store.members) == ["drive-a"]
    while not store.finish_resync(resync):
        resync.copy()
    oracle.check(machine)
    assert sorted(store.members) == ["drive-a", NEW]


def test_the_survivor_dies_and_the_outgoing_one_stays(machine: Machine) -> None:
    store = machine.open()
    history, oracle = History(9), Oracle()
    for _ in range(10):
        history.commit(machine, oracle)
    _add_new(machine, store)
    resync = store.begin_resync(NEW)
    resync.copy()
    machine.disks["drive-a"].pull()
    history.commit(machine, oracle)
    assert list(store.members) == [OLD]
    while not store.finish_resync(resync):
        resync.copy()
    oracle.check(machine)
    assert sorted(store.members) == [OLD, NEW]


def test_every_source_dying_ends_the_transfer(machine: Machine) -> None:
    store = machine.open()
    commit(store, put(b"k", 1))
    store.lose(OLD, "pulled")
    _add_new(machine, store)
    resync = store.begin_resync(NEW)
    machine.disks["drive-a"].pull()
    with pytest.raises((DriveFault, Unavailable)):
        resync.copy()
    store.abandon_resync(resync)


def test_a_new_drive_that_fails_costs_nothing(machine: Machine) -> None:
    store = machine.open()
    history, oracle = History(10), Oracle()
    for _ in range(6):
        history.commit(machine, oracle)
    _add_new(machine, store)
    machine.disks[NEW].fail_at(5, errno.EIO, kinds=frozenset({"write"}))
    resync = store.begin_resync(NEW)
    with pytest.raises(DriveFault):
        resync.copy()
    store.abandon_resync(resync)
    history.commit(machine, oracle)
    oracle.check(machine)
    assert sorted(store.members) == ["drive-a", OLD]
    machine.disks[NEW].hook = None
    _bring_in(store)
    oracle.check(machine)
    assert sorted(store.members) == ["drive-a", NEW]


# -- power cuts at every operation -----------------------------------------------------------------


def _operations(seed: int, directory: Path) -> int:
    machine = Machine(seed, directory)
    machine.open()
    start = machine.power.operations
    _replace(machine, History(seed), Oracle())
    machine.drop_store()
    return machine.power.operations - start


def _open_all(machine: Machine) -> Store:
    present = ["drive-a", OLD, *([NEW] if NEW in machine.disks else [])]
    return machine.open(*present, replaces=REPLACES)


def _survive(seed: int, cut: int, directory: Path) -> None:
    machine = Machine(seed, directory)
    machine.open()
    machine.power.cut_at = machine.power.operations + cut
    history, oracle = History(seed), Oracle()
    try:
        _replace(machine, history, oracle)
    except PowerCut:
        machine.restore_power()
    rng = random.Random(f"{seed} {cut}")
    for _ in range(rng.choice([0, 1, 2])):
        machine.drop_store()
        machine.power.cut_at = machine.power.operations + rng.randint(1, 200)
        try:
            for candidate in _open_all(machine).candidates():
                _bring_in(machine.store, candidate)  # type: ignore[arg-type]
                break
        except PowerCut:
            machine.restore_power()
        machine.power.cut_at = 0
    machine.drop_store()
    store = _open_all(machine)
    if NEW not in machine.disks:
        _add_new(machine, store)
    while candidates := store.candidates():
        _bring_in(store, candidates[0])
    assert sorted(store.members) == ["drive-a", NEW]
    oracle.check(machine)
    history.commit(machine, oracle)
    oracle.check(machine)
    machine.drop_store()


def _sweep(states: int, directory: Path) -> None:
    sweep(
        "replacement",
        states,
        directory,
        count=_operations,
        survive=_survive,
        cuts_min=30,
    )


def test_power_cuts_during_a_replacement(scratch: Path) -> None:
    _sweep(SHORT_STATES, scratch)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_power_cuts_during_many_replacements(scratch: Path) -> None:
    _sweep(LONG_STATES, scratch)
