"""What only an operator can decide: each situation is told, with what may be done, and is over once
it was done."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appliance.core.errors import Refused
from appliance.engine.interface import MirrorState, Question
from appliance.engine.mirror.assembled import MayForce, Orders, WentApart
from appliance.engine.mirror.glance import closed_health
from appliance.engine.mirror.store import Store
from appliance.engine.mirror.superblock import Superblock, read_superblock
from tests.crash.acts import commit, put
from tests.crash.history import PARTITION
from tests.crash.machine import DRIVES, Machine
from tests.crash.simulated import SimulatedDisk

FORCED = Orders(waited=True, forced=True)


def keys(machine: Machine, *drives: str) -> set[bytes]:
    with machine.reader(*drives) as reader:
        return {record.key for record in reader.scan(PARTITION, b"", b"\xff", 100, False)}


def alone(machine: Machine, drive: str, number: int) -> Store:
    """One half goes on alone, at the operator's word, in a machine that has no witness."""
    store = machine.open(drive, witness=False, orders=FORCED)
    commit(store, put(b"of %s" % drive.encode(), number))
    machine.drop_store()
    return store


def divide(machine: Machine) -> None:
    """Both halves went on by themselves."""
    commit(machine.open(), put(b"shared", 1))
    machine.drop_store()
    for number, drive in enumerate(DRIVES, 2):
        alone(machine, drive, number)


def test_diverged_halves_wait_for_a_choice_and_are_told_apart(machine: Machine) -> None:
    divide(machine)
    for present, witness in ((DRIVES, False), (DRIVES, True), (DRIVES[::-1], True)):
        with pytest.raises(WentApart) as apart:
            machine.open(*present, witness=witness)
        assert set(apart.value.heads) == set(DRIVES)
        assert all("alone, forced by an operator" in text for text in apart.value.heads.values())
    health = closed_health(DRIVES, str(apart.value), apart.value)
    assert (health.state, health.question) == (MirrorState.OFFLINE, Question.CHOOSE)
    assert health.choices == apart.value.heads
    with pytest.raises(WentApart):
        machine.open(orders=FORCED)


@pytest.mark.parametrize("chosen", DRIVES)
def test_the_loser_is_detached_whole_and_comes_back_only_blank(
    machine: Machine, chosen: str
) -> None:
    divide(machine)
    (loser,) = set(DRIVES) - {chosen}
    before = machine.disks[loser].contents()
    store = machine.open(orders=Orders(waited=True, chosen=chosen))
    commit(store, put(b"more", 9))
    assert keys(machine) == {b"shared", b"of %s" % chosen.encode(), b"more"}
    (told,) = [member for member in store.health().members if member.drive_id == loser]
    assert told.detached and told.present and not told.in_sync
    assert "kept whole until it is claimed" in told.reason
    assert store.outsiders() == {} and store.candidates() == []
    machine.drop_store()
    for number in range(20):  # also when the epoch that rejected it is beyond memory
        store = machine.open(chosen)
        store.add_outsider(machine.disks[loser].mount())
        with pytest.raises(Refused, match="went its own way"):
            store.begin_resync(loser)
        assert store.candidates() == []
        machine.drop_store()
        assert list(machine.open().members) == [chosen], number
        machine.drop_store()
        for witness in (False, True):  # epochs pass, and the witness learns of them
            machine.open(chosen, witness=witness, orders=FORCED)
            machine.drop_store()
    assert machine.disks[loser].contents() == before, "nothing was written to it"
    store = machine.open(loser, witness=False, orders=FORCED)
    assert keys(machine) == {b"shared", b"of %s" % loser.encode()}, "it can be read by itself"


def test_a_lone_drive_without_the_witness_is_refused_until_it_is_forced(machine: Machine) -> None:
    commit(machine.open(), put(b"k", 1))
    machine.drop_store()
    with pytest.raises(MayForce, match="lose what only absent drives hold") as refusal:
        machine.open("drive-a", witness=False)
    health = closed_health(["drive-a"], str(refusal.value), refusal.value)
    assert health.question is Question.FORCE
    store = machine.open("drive-a", witness=False, orders=FORCED)
    commit(store, put(b"more", 2))
    machine.drop_store()
    store = machine.open()
    assert list(store.members) == ["drive-a"], "the other one missed it"
    assert keys(machine) == {b"k", b"more"}


def test_a_rolled_back_drive_is_refused_though_it_is_in_sync_by_its_own_word(
    machine: Machine,
) -> None:
    """Its peer is away, and only the witness knows that it was newer once."""
    store = machine.open()
    commit(store, put(b"k", 1))
    image = machine.disks["drive-a"].image()
    machine.disks["drive-b"].pull()
    commit(store, put(b"more", 2))
    machine.drop_store()
    machine.disks["drive-b"].insert(machine.rng)
    machine.disks["drive-a"].restore_image(image)
    with pytest.raises(MayForce, match="rolled back"):
        machine.open("drive-a")
    with pytest.raises(MayForce, match="rolled back"):
        machine.open(), "and the one that left knows no better"


def test_a_rolled_back_witness_is_no_second_voter(machine: Machine) -> None:
    """Its heartbeat is below the drives'; an old copy of a drive with it would else outvote the
    newer one that is away."""
    store = machine.open()
    commit(store, put(b"k", 1))
    machine.drop_store()
    old_witness, old_drive = machine.witness.image(), machine.disks["drive-b"].image()
    machine.open().close()
    machine.witness.restore_image(old_witness)
    with pytest.raises(MayForce, match="witness is lost"):
        machine.open("drive-a")
    store = machine.open()
    assert len(store.members) == 2, "both drives are two voters"
    machine.drop_store()
    store = machine.open("drive-a")
    commit(store, put(b"more", 2))
    machine.drop_store()
    machine.witness.restore_image(old_witness)
    machine.disks["drive-b"].restore_image(old_drive)
    store = machine.open()
    assert list(store.members) == ["drive-a"], "the lone descendant counts"
    assert keys(machine) == {b"k", b"more"}


def test_a_clone_is_refused_and_so_is_its_original(machine: Machine) -> None:
    """Which of the two is which nobody can tell: neither counts, and nobody writes to either."""
    commit(machine.open(), put(b"k", 1))
    machine.drop_store()
    clone = SimulatedDisk("drive-a", machine.power)
    clone.restore_image(machine.disks["drive-a"].image())
    with pytest.raises(Refused, match="present twice"):
        machine.open("drive-a", beside=[clone.mount()])
    store = machine.open(beside=[clone.mount()])
    assert list(store.members) == ["drive-b"]
    commit(store, put(b"more", 2))
    assert store.candidates() == []
    told = {member.drive_id: member for member in store.health().members}
    assert told["drive-a"].detached and "same identity" in told["drive-a"].reason
    assert clone.digest() == machine.disks["drive-a"].digest()
    store.lose("drive-a", "taken away")
    store.add_outsider(machine.disks["drive-a"].mount())
    assert store.candidates() == ["drive-a"], "the one that is left is a stale drive like any"


def test_the_choice_of_a_drive_that_is_away_changes_nothing(machine: Machine) -> None:
    divide(machine)
    with pytest.raises(WentApart):
        machine.open(orders=replace(FORCED, chosen="drive-c"))


def test_the_votes_of_the_loser_stay_as_they_were(machine: Machine) -> None:
    divide(machine)
    found = read_superblock(machine.disks["drive-b"].mount())
    machine.open(orders=Orders(waited=True, chosen="drive-a"))
    assert isinstance(found, Superblock)
    assert read_superblock(machine.disks["drive-b"].mount()) == found
