"""Log compaction: nothing is lost, nothing comes back, and the log alone still tells it all."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.engine.mirror.digest import digest
from appliance.engine.mirror.format import DecodedBatch, Kind
from appliance.engine.mirror.index import IndexReader
from appliance.engine.mirror.messages import CommitOrder, Order
from appliance.engine.mirror.segment import segment_path
from appliance.engine.mirror.store import Store
from appliance.engine.mirror.upkeep import SURPLUS_WORTH_A_SEGMENT
from appliance.engine.mirror.victims import Zeal
from tests.crash.acts import blob_of, bring_back, commit, delete, put
from tests.crash.history import PARTITION, History, Oracle
from tests.crash.machine import SEGMENT_BYTES, Machine
from tests.crash.test_power_cuts import sweep_script
from tests.unit.mirror.batches import dump

LONG_STATES = 1_500
SHORT_STATES = 40
COMMITS = 14
RECORDS = 100


def _facts(store: Store) -> dict[str, object]:
    """What the index says that the log must say too. Released blobs are not among it: a log whose
    segments were freed does not know them all, and what it does not know is an orphan. Nor are
    partitions that hold nothing."""
    facts = dump(store._state.index)
    del facts["released"], facts["position"]
    return {name: fact for name, fact in facts.items() if fact != ([], {})}


def _assert_rebuilt_equal(machine: Machine) -> Store:
    """Lose the index; what is built from the log says the same."""
    assert machine.store is not None
    before = _facts(machine.store)
    machine.drop_store()
    shutil.rmtree(machine.index_directory)
    machine.index_directory.mkdir()
    store = machine.open()
    assert _facts(store) == before
    assert len({digest(member) for member in store._state.members.values()}) == 1
    return store


def _fill(store: Store, first: int, count: int, *, size: int = 12_000) -> None:
    for number in range(first, first + count):
        blob = (b"%d " % number).ljust(size, b".")
        commit(store, put(b"key %04d" % number, number, blob))


def _versions(machine: Machine) -> dict[bytes, int]:
    with machine.reader() as reader:
        return {r.key: r.version for r in reader.scan(PARTITION, b"", b"\xff", 1000, False)}


def _half_dead(machine: Machine) -> Store:
    """Every other record of the sealed segments is replaced."""
    store = machine.open()
    _fill(store, 1, RECORDS)
    for number in range(1, RECORDS + 1, 2):
        commit(store, put(b"key %04d" % number, 1000 + number, b"new"))
    return store


def test_what_lives_is_moved_with_its_version_and_the_segment_is_free(machine: Machine) -> None:
    store = _half_dead(machine)
    versions = _versions(machine)
    victim = store._state.planner.table.used()[0]
    assert store.compact()
    state = store._state.planner.table.get(victim.segment)
    assert state is not None
    assert (state.first_sequence, state.generation) == (0, victim.generation + 1)
    assert store.counts()["moved_records"] > 3
    assert _versions(machine) == versions
    with machine.reader() as reader:
        for number in range(2, RECORDS + 1, 2):
            blob = blob_of(machine, b"key %04d" % number)
            assert reader.read_blob(blob, 0, blob.size_bytes).startswith(b"%d " % number)
    _assert_rebuilt_equal(machine)
    assert _versions(machine) == versions


def test_a_reader_with_an_old_place_finds_the_new_one(machine: Machine) -> None:
    store = _half_dead(machine)
    place = blob_of(machine, b"key 0002")
    while store.compact():
        pass
    with machine.reader() as reader:
        assert reader.read_blob(place, 0, place.size_bytes).startswith(b"2 ")
        assert machine.suspects == []


def test_a_delete_stays_while_an_older_segment_may_hold_its_put(machine: Machine) -> None:
    """A segment with a delete is freed before the one with the put: the put must not return."""
    store = machine.open()
    commit(store, put(b"gone", 1))
    _fill(store, 2, 30)  # the first segment, all of it alive
    first = store._state.planner.table.used()[0]
    commit(store, delete(b"gone", 500))
    for number in range(600, 680):
        commit(store, put(b"again and again", number, b"z" * 9_000))
    while store.compact(Zeal.BUSY):
        pass
    assert store._state.planner.table.used()[0] == first, "the first one has nothing to free"
    assert store.counts()["recycled_segments"] > 1
    store = _assert_rebuilt_equal(machine)
    assert b"gone" not in _versions(machine)


def test_deletes_go_in_the_end(machine: Machine) -> None:
    """However long the first segment lives on: deletes do not pile up behind it."""
    store = machine.open()
    _fill(store, 1, 30)
    for number in range(100, 220):
        keys = [b"short lived %d %d" % (number, count) for count in range(100)]
        for request, value in ((b"p%d", b"0:1"), (b"d%d", None)):
            orders = [Order(key, value) for key in keys]
            request_id = (request % number).ljust(16)
            commit(store, CommitOrder(PARTITION.encode(), request_id, orders, [], []))
    assert sum(store._state.index.tombstones().values()) > 2 * SEGMENT_BYTES
    for _ in range(30):
        store.compact(Zeal.IDLE)
    used = {state.segment for state in store._state.planner.table.used()}
    left = store._state.index.tombstones()
    assert sum(size for segment, size in left.items() if segment in used) < SEGMENT_BYTES
    assert len(used) < 6
    _assert_rebuilt_equal(machine)


def test_a_blob_that_went_to_another_record_stays_with_it(machine: Machine) -> None:
    """The log that is left shows the giver's put, and the taker's only behind the giver's end."""
    store = machine.open()
    data = machine.rng.randbytes(90_000)
    order = Order(b"giver", b"0:1", b"", machine.stage(data))
    commit(store, CommitOrder(PARTITION.encode(), b"a" * 16, [order], [], []))
    _fill(store, 2, 30)
    moving = [Order(b"giver", None), Order(b"taker", b"0:2", b"", keep=b"giver")]
    commit(store, CommitOrder(PARTITION.encode(), b"b" * 16, moving, [], []))
    for number in range(600, 650):
        commit(store, put(b"again and again", number, b"z" * 9_000))
    commit(store, put(b"giver", 700, b"its own"))
    for number in range(800, 850):
        commit(store, put(b"again and again", number, b"z" * 9_000))
    while store.compact():
        pass
    store = _assert_rebuilt_equal(machine)
    machine.clock.sleep_s(7200)
    store.step()
    store.sweep_orphans()
    with machine.reader() as reader:
        assert reader.read_blob(blob_of(machine, b"taker"), 0, len(data)) == data


def test_outcomes_outlive_their_segment_and_the_index(machine: Machine) -> None:
    store = _half_dead(machine)
    first = put(b"key 0001", 1, b"1 ".ljust(12_000, b"."))
    version = commit(store, first)
    while store.compact():
        pass
    assert commit(store, first) == version
    store = _assert_rebuilt_equal(machine)
    assert commit(store, first) == version


def test_a_record_replaced_since_it_was_read_is_not_moved(scratch: Path) -> None:
    """The segment is read beside the committer; what happens meanwhile counts."""
    machine = Machine(3, scratch)
    waiting: list[Callable[[], None]] = []
    is_slow = False

    def spawn(call: Callable[[], None]) -> None:
        if is_slow:
            waiting.append(call)
        else:
            call()

    store = machine.open(spawn=spawn)
    _fill(store, 1, RECORDS)
    for number in range(1, RECORDS, 2):
        commit(store, put(b"key %04d" % number, 1000 + number, b"new"))
    compactor = store._compactor
    compactor._choose(Zeal.SHORT)
    is_slow = True
    turns = 0
    while not waiting:
        compactor.turn()
        machine.clock.sleep_s(1)
        turns += 1
        assert turns < 50
    commit(store, put(b"key 0002", 2021, b"newer"))
    commit(store, delete(b"key 0004", 2022))
    is_slow = False
    while waiting:
        waiting.pop(0)()
    store.compact()
    assert store.counts()["recycled_segments"] >= 1
    assert store.counts()["moved_records"] > 5
    with machine.reader() as reader:
        blob = blob_of(machine, b"key 0002")
        assert reader.read_blob(blob, 0, blob.size_bytes) == b"newer"
        assert reader.read(PARTITION, [b"key 0004"]) == [None]
    machine.drop_store()


def test_nothing_is_freed_before_the_index_is_flushed(machine: Machine) -> None:
    store = _half_dead(machine)
    store.checkpoint()
    compactor = store._compactor
    compactor._checkpoint = lambda: None
    assert not store.compact()
    assert compactor.wants_checkpoint
    assert store.counts()["recycled_segments"] == 0
    store.checkpoint()
    compactor.free_relocated(at_once=True)
    assert store.counts()["recycled_segments"] == 1


def test_a_batch_follows_the_last_move_before_its_segment_is_freed(machine: Machine) -> None:
    """Else a rotten last batch of moves would be taken for a torn tail, and its records lost."""
    store = _half_dead(machine)
    table = store._state.planner.table
    recycled = table.recycled

    def checking(segment: int) -> object:
        member = next(iter(store._state.members.values()))
        *_, last = (found for found in member.log.scan() if isinstance(found, DecodedBatch))
        assert {entry.record.kind for entry in last.entries} <= {Kind.MARK, Kind.MANIFEST}
        return recycled(segment)

    table.recycled = checking  # type: ignore[assignment,method-assign]
    assert store.compact()


@pytest.mark.parametrize("later", [0, 40])
def test_an_older_index_catches_up_over_freed_segments(machine: Machine, later: int) -> None:
    """It never saw deletes and puts that are gone with their segments, nor the moves. ``later``:
    records behind its end that keep the segment it ends in; without them that is gone too."""
    store = machine.open()
    commit(store, put(b"gone", 1))
    _fill(store, 2, 50)
    machine.remember_index()
    _fill(store, 100, later)
    commit(store, delete(b"gone", 500))
    for number in range(600, 680):
        commit(store, put(b"again and again", number, b"z" * 9_000))
    for number in range(2, 52):
        commit(store, put(b"key %04d" % number, 5000 + number, b"new"))
    while store.compact(Zeal.BUSY):
        pass
    facts = _facts(store)
    machine.drop_store()
    shutil.rmtree(machine.index_directory)
    shutil.copytree(machine._older_index, machine.index_directory)
    store = machine.open()
    assert b"gone" not in _versions(machine)
    assert _facts(store) == facts
    _assert_rebuilt_equal(machine)


def _rot_in(machine: Machine, drive: str, key: bytes) -> None:
    """A bit of a record that would have to be moved."""
    store = machine.store
    assert store is not None
    reader = IndexReader(store._state.index.path)
    (row,) = reader.read(PARTITION, [key])
    reader.close()
    assert row is not None
    machine.disks[drive].flip(segment_path(row.location.segment), row.location.offset + 60)


def test_a_segment_that_rots_on_one_drive_is_moved_from_the_other(machine: Machine) -> None:
    store = _half_dead(machine)
    _rot_in(machine, next(iter(store.members)), b"key 0002")
    assert store.compact()
    _assert_rebuilt_equal(machine)


def test_a_segment_that_rots_on_both_is_left_alone_and_told(machine: Machine) -> None:
    store = _half_dead(machine)
    victim = store._state.planner.table.used()[0]
    for drive in store.members:
        _rot_in(machine, drive, b"key 0002")
    while store.compact():
        pass
    assert store._state.planner.table.get(victim.segment) == victim
    assert any("cannot be compacted" in alert for alert in machine.alerts)
    assert len([alert for alert in machine.alerts if "cannot be compacted" in alert]) == 1


def test_a_drive_that_was_away_meanwhile_comes_back_equal(machine: Machine) -> None:
    store = _half_dead(machine)
    store.lose("drive-b", "pulled")
    while store.compact():
        pass
    _fill(store, 2000, 10)
    bring_back(machine, "drive-b")
    assert len(store.members) == 2
    _assert_rebuilt_equal(machine)


def test_free_segments_above_what_is_kept_are_unlinked(machine: Machine) -> None:
    store = machine.open()
    _fill(store, 1, 400)
    orders = [Order(b"key %04d" % number, None) for number in range(1, 401)]
    commit(store, CommitOrder(PARTITION.encode(), b"d" * 16, orders, [], []))
    before = machine.disks["drive-a"].used_bytes()
    for _ in range(60):
        store.checkpoint()
        store.step()
        machine.clock.sleep_s(1)
    assert machine.disks["drive-a"].used_bytes() < before / 2
    assert store.counts()["removed_segments"] > 3
    assert store._room.surplus < SURPLUS_WORTH_A_SEGMENT
    store = _assert_rebuilt_equal(machine)
    assert store.losses == []


# -- crashes ---------------------------------------------------------------------------------------


def _compactions(machine: Machine, history: History, oracle: Oracle) -> None:
    """Commits, compaction, freeing, unlinking."""
    store = machine.store or machine.open()
    for number in range(COMMITS):
        history.commit(machine, oracle)
        if number % 3 == 1:
            store.compact()
        if number % 4 == 3:
            store.checkpoint()
            store.step()
        if number == 5:
            machine.remember_index()


def _compactions_alone(machine: Machine, history: History, oracle: Oracle) -> None:
    """A drive leaves, the other is compacted, the stale one returns."""
    store = machine.store or machine.open()
    for _ in range(5):
        history.commit(machine, oracle)
    store.lose("drive-b", "pulled")
    store.compact()
    history.commit(machine, oracle)
    store.compact()
    store.add_outsider(machine.disks["drive-b"].mount())
    resync = store.begin_resync("drive-b")
    resync.copy()
    store.compact()
    history.commit(machine, oracle)
    while not store.finish_resync(resync):
        resync.copy()
    store.compact()


@pytest.mark.parametrize("script", [_compactions, _compactions_alone])
def test_nothing_is_lost_by_a_power_cut(
    script: Callable[[Machine, History, Oracle], None], scratch: Path
) -> None:
    sweep_script(script, SHORT_STATES, scratch)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("script", [_compactions, _compactions_alone])
def test_nothing_is_lost_by_a_power_cut_in_many_states(
    script: Callable[[Machine, History, Oracle], None], scratch: Path
) -> None:
    sweep_script(script, LONG_STATES, scratch)


def test_the_index_equals_its_rebuild_after_any_history(scratch: Path) -> None:
    for seed in range(3):
        machine = Machine(seed, scratch / str(seed))
        store = machine.open()
        history, oracle, rng = History(seed), Oracle(), random.Random(seed)
        for _ in range(60):
            history.commit(machine, oracle)
            if rng.random() < 0.3:
                store.compact(rng.choice(list(Zeal)))
            if rng.random() < 0.1:
                store.step()
        assert store.counts()["moved_records"] > 5
        _assert_rebuilt_equal(machine)
        oracle.check(machine)
        machine.drop_store()
