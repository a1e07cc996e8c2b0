"""What a scrub must not be fooled by while the mirror lives: what goes away before it is read."""

from __future__ import annotations

from appliance.core.scrubs import DriveScrub
from appliance.engine.mirror.blob import blob_path
from appliance.engine.mirror.messages import Order, Staged
from appliance.engine.mirror.place import FilePlace
from appliance.engine.mirror.scrub import PROVEN
from appliance.engine.mirror.scrub_tally import Tally
from appliance.engine.mirror.store import Store
from tests.crash.acts import commit, delete, put
from tests.crash.machine import DRIVES, Machine
from tests.crash.scrubbing import fill, in_inline, place_of, scrub

NUMBERS = iter(range(100_000, 1_000_000))


def _churn(store: Store, count: int) -> None:
    """Replace everything that is inline, and let what died with it be freed."""
    for number in range(count):
        commit(store, put(b"inline %d" % (number % 20), next(NUMBERS), b"c" * 25_000))
        if number % 20 == 19:
            store.checkpoint()
            for _ in range(4):
                store.step()


def _compact(store: Store) -> None:
    """Let it have the time to free what may be freed."""
    for _ in range(20):
        store.checkpoint()
        store._state.clock.sleep_s(store._state.settings.recycle_grace_s)
        store.step()


def _healthy(machine: Machine, tally: Tally) -> None:
    done = scrub(machine)
    assert done.tally.index == tally.index == PROVEN
    for drive in DRIVES:
        assert done.found(drive) == DriveScrub()
        tally.of(drive).read_bytes = 0
        assert tally.of(drive) == DriveScrub(drive)


def _neighbours(machine: Machine, store: Store) -> list[bytes]:
    """Keys of two blobs whose files lie in one directory, in the order of their names."""
    known: dict[int, Staged] = {}
    while True:
        staged = machine.stage(b"n" * 70_000)
        twin = known.setdefault(staged.blob_id[0], staged)
        if twin is not staged:
            break
    keys: list[bytes] = []
    for blob in sorted((twin, staged), key=lambda each: each.blob_id):
        keys.append(b"neighbour %d" % len(keys))
        order = put(keys[-1], next(NUMBERS))
        commit(store, order._replace(orders=[Order(keys[-1], b"0:", b"", blob)]))
    return keys


def test_a_blob_released_before_it_is_read_is_not_missing(machine: Machine) -> None:
    store = machine.open()
    tally = Tally()
    first, second = _neighbours(machine, store)
    place = place_of(machine, second)
    assert isinstance(place, FilePlace)
    path = blob_path(place.blob_id)
    pieces: list[int] = []

    def release(piece: int) -> None:
        if tally.phase == "blobs" and not pieces:  # the first one's: the second is listed already
            pieces.append(piece)
            commit(store, delete(second, next(NUMBERS)))
            machine.clock.sleep_s(1)
            store.step()

    assert scrub(machine, release, tally).finished
    assert pieces
    assert first
    assert store.members["drive-a"].stat(path) is None
    _healthy(machine, tally)


def test_what_an_unproven_index_does_not_name_is_counted_and_kept(machine: Machine) -> None:
    store = fill(machine)
    store.sweep_orphans()
    path, offset = in_inline(machine, b"inline 7")
    for disk in machine.disks.values():
        disk.flip(path, offset)
    stray = machine.stage(b"s" * 1000)
    volume = store.members["drive-b"]
    volume.make_directory(blob_path(stray.blob_id).rpartition("/")[0])
    volume.rename(f"staging/gateway-1/{stray.blob_id.hex()}", blob_path(stray.blob_id))
    done = scrub(machine)
    assert done.tally.index.startswith("not proven")
    assert done.found("drive-b").orphan_files == 1
    assert volume.stat(blob_path(stray.blob_id)) is not None


def test_segments_that_died_before_they_were_read_are_freed_after(machine: Machine) -> None:
    store = fill(machine)
    tally = Tally()
    table = store._state.planner.table
    before = {segment.segment: segment.generation for segment in table.used()}
    churned: list[int] = []

    def churn(piece: int) -> None:
        after = store._state.unread_after
        if after is None or churned:
            return
        churned.append(piece)
        _churn(store, 60)
        _compact(store)
        assert {s: table.get(s).generation for s in before if table.get(s)} == before  # type: ignore[union-attr]

    assert scrub(machine, churn, tally).finished
    assert churned
    _compact(store)
    now = [table.get(segment) for segment in before]
    freed = [s for s in now if s is None or s.generation > before[s.segment]]
    assert len(freed) > 1
    _healthy(machine, tally)


def test_a_delete_that_was_freed_before_it_was_read_brings_nothing_back(machine: Machine) -> None:
    """The put of a key is read, then its delete goes away under pressure."""
    store = machine.open()
    _churn(store, 40)
    planner = store._state.planner
    commit(store, put(b"ghost", next(NUMBERS)))
    put_at = planner.tail.sequence
    _enter_segment(store)
    commit(store, delete(b"ghost", next(NUMBERS)))
    at = planner.tail
    _enter_segment(store)
    tally = Tally()
    churned: list[int] = []

    def press(piece: int) -> None:
        after = store._state.unread_after
        if after is not None and put_at <= after < at.sequence and not churned:
            churned.append(piece)
            store._state.unread_after = None  # what a full mirror does not heed
            _churn(store, 160)
            found = planner.table.get(at.segment)
            assert found is None or found.generation > at.generation

    assert scrub(machine, press, tally).finished
    assert churned
    _healthy(machine, tally)


def _enter_segment(store: Store) -> None:
    """Write until the log enters the next segment."""
    segment = store._state.planner.tail.segment
    while store._state.planner.tail.segment == segment:
        commit(store, put(b"inline %d" % (next(NUMBERS) % 20), next(NUMBERS), b"f" * 25_000))


def test_a_delete_that_came_and_went_between_two_looks_brings_nothing_back(
    machine: Machine,
) -> None:
    """Whole segments are entered and freed behind what the scrub has read."""
    store = machine.open()
    _churn(store, 40)
    planner = store._state.planner
    tally = Tally()
    looks: list[int] = []

    def live() -> None:
        looks.append(len(looks))
        if len(looks) == 2:  # the log has grown since the first look, and is read once more
            commit(store, put(b"ghost", next(NUMBERS)))
            for _ in range(70):
                commit(store, put(b"inline 1", next(NUMBERS), b"s"))
        elif len(looks) == 3:
            _enter_segment(store)
            commit(store, delete(b"ghost", next(NUMBERS)))
            at = planner.tail
            store._state.unread_after = None
            _churn(store, 160)
            found = planner.table.get(at.segment)
            assert found is None or found.generation > at.generation

    assert scrub(machine, None, tally, live).finished
    assert len(looks) > 3
    _healthy(machine, tally)
