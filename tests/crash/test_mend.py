"""The writes of a scrub: only where the place still means what the scrub has read."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from appliance.core.errors import DriveTimeout
from appliance.core.scrubs import DriveScrub
from appliance.engine.mirror.adoption import copy_blob
from appliance.engine.mirror.blob import blob_path
from appliance.engine.mirror.format import DecodedBatch, FileBlob, LogRecord, encode_batch
from appliance.engine.mirror.mend import MENDED_SUFFIX, Mend, Mender
from appliance.engine.mirror.place import FilePlace
from appliance.engine.mirror.record import Kind
from appliance.engine.mirror.scrub import PROVEN
from appliance.engine.mirror.segment import segment_path
from appliance.engine.mirror.state import Stopped
from appliance.engine.mirror.store import Store
from appliance.runtime.clock import SystemClock
from appliance.runtime.lanes import ThreadLanes
from tests.crash.acts import commit, delete, put
from tests.crash.hanging import Hang
from tests.crash.machine import DRIVES, SETTINGS, Machine
from tests.crash.scrubbing import LARGE, fill, place_of, repaired_to, scrub, stable


@pytest.fixture
def store(machine: Machine) -> Store:
    return fill(machine)


def _writes(machine: Machine) -> list[str]:
    """The paths that are written or renamed from now on."""
    written: list[str] = []
    for disk in machine.disks.values():
        disk.hook = lambda operation: (
            written.append(operation.path) if operation.kind in {"write", "rename"} else None
        )
    return written


def test_a_segment_of_another_generation_is_not_written(machine: Machine, store: Store) -> None:
    mender, written = Mender(store._state), _writes(machine)
    used = store._state.planner.table.used()[0]
    later = used.generation + 1
    place = (used.segment, later, 4096)
    assert mender.batch("drive-a", place, bytes(4096)) is Mend.VOID
    assert mender.header("drive-a", used.segment, later) is Mend.VOID
    assert mender.segment("drive-a", "drive-b", used.segment, later) is Mend.VOID
    assert mender.segment("drive-a", "drive-b", 999, 1) is Mend.VOID
    assert written == []


def test_a_drive_that_left_is_not_written(machine: Machine, store: Store) -> None:
    store.lose("drive-a", "pulled")
    mender, written = Mender(store._state), _writes(machine)
    used = store._state.planner.table.used()[0]
    place = (used.segment, used.generation, 4096)
    assert mender.batch("drive-a", place, bytes(4096)) is Mend.VOID
    assert mender.header("drive-a", used.segment, used.generation) is Mend.VOID
    assert mender.segment("drive-b", "drive-a", used.segment, used.generation) is Mend.VOID
    assert mender.blob("drive-a", b"b" * 16) is Mend.VOID
    assert written == []


def test_a_blob_released_meanwhile_is_not_brought_back(machine: Machine, store: Store) -> None:
    place = place_of(machine, b"large 10")
    assert isinstance(place, FilePlace)
    blob = FileBlob(place.blob_id, LARGE)
    path, volume = blob_path(place.blob_id), store.members["drive-a"]
    copy_blob(store.members["drive-b"], path, volume, path + MENDED_SUFFIX, blob)
    commit(store, delete(b"large 10", 9000))
    machine.clock.sleep_s(1)
    store.step()
    assert volume.stat(path) is None
    assert Mender(store._state).blob("drive-a", place.blob_id) is Mend.VOID
    assert volume.stat(path) is None
    assert volume.stat(path + MENDED_SUFFIX) is None


def test_a_stopped_store_mends_nothing(machine: Machine, store: Store) -> None:
    store._state.stop("a test")
    mender, written = Mender(store._state), _writes(machine)
    with pytest.raises(Stopped):
        mender.batch("drive-a", (1, 1, 4096), bytes(4096))
    with pytest.raises(Stopped):
        mender.blob("drive-a", b"b" * 16)
    with pytest.raises(Stopped):
        mender.replace_index(store.index_directory, "building-00000009.db")
    assert written == []


def test_a_write_that_does_not_hold_is_no_repair(machine: Machine, store: Store) -> None:
    path, offset = segment_path(store._state.planner.table.used()[0].segment), 5000
    disk = machine.disks["drive-b"]
    disk.flip(path, offset)
    number = [0]

    def lose(piece: int) -> None:
        number[0] = piece
        disk.lost_writes = set(range(disk.operations, disk.operations + 200))

    done = scrub(machine, lose)
    assert done.finished
    assert done.found("drive-b") == DriveScrub(bad_batches=1, unrepairable=1)


@pytest.mark.parametrize("drive", DRIVES)
@pytest.mark.parametrize("what", ["sequence", "previous_crc"])
def test_a_batch_of_another_history_is_told_from_the_right_one(
    machine: Machine, store: Store, what: str, drive: str
) -> None:
    """Every checksum and the place are right; only the chain says that it does not belong."""
    commit(store, put(b"victim", 5000, b"v" * 7000))
    log = store._state.members["drive-b"].log
    found = [batch for batch in log.scan() if isinstance(batch, DecodedBatch)]
    victim = found[-1]
    commit(store, put(b"behind it", 5001))
    before = stable(machine)
    place = victim.header.place
    changed = replace(place, **{what: getattr(place, what) + 7})
    other = encode_batch(changed, [LogRecord(Kind.MARK, b"", b"")])
    assert len(victim.data) > len(other.data)
    machine.disks[drive].overwrite(segment_path(place.segment), place.offset, other.data)
    done = scrub(machine)
    repaired_to(machine, before, done)
    assert done.tally.index == PROVEN
    assert done.found(drive) == DriveScrub(bad_batches=1, repaired=1)


@pytest.mark.parametrize(
    ("hung", "stays"), [("drive-b", "drive-a"), ("drive-a", "drive-b")], ids=["peer", "target"]
)
def test_a_hang_while_a_segment_is_given_back_is_blamed_on_the_drive_that_hangs(
    machine: Machine, hung: str, stays: str
) -> None:
    lanes = ThreadLanes(SystemClock())
    store = machine.open(lanes=lanes, settings=replace(SETTINGS, deadline_s=0.2))
    fill(machine)
    used = store._state.planner.table.used()[0]
    path = segment_path(used.segment)
    store.members["drive-a"].unlink(path)
    hang = Hang(machine, hung)
    hang.on("read" if hung == "drive-b" else "write", path)
    mender = Mender(store._state)
    assert mender.segment("drive-a", "drive-b", used.segment, used.generation) is Mend.FAILED
    assert hang.struck.is_set()
    assert list(store.members) == ["drive-a", "drive-b"], "nobody is judged by one call"
    hang.over_for_new_calls()
    commit(store, put(b"after", 9000))
    assert list(store.members) == [stays]
    hang.end()
    lanes.close()


def test_who_was_silent_among_other_members_is_not_given_up(store: Store) -> None:
    """It took a while to find out: by now the one that answered may be gone, or the silent one
    back on another mount."""
    mender, asked = Mender(store._state), store._state.members
    late = DriveTimeout("drive-b", "a read", errno.ETIMEDOUT)
    store.lose("drive-a", "pulled")
    mender.give_up({"drive-b": late}, asked)
    assert store.stopped == ""
    assert list(store.members) == ["drive-b"]


def test_who_is_silent_while_another_member_answers_is_given_up(store: Store) -> None:
    late = DriveTimeout("drive-b", "a read", errno.ETIMEDOUT)
    Mender(store._state).give_up({"drive-b": late}, store._state.members)
    assert list(store.members) == ["drive-a"]
    assert store._state.has_failed("drive-b")
