"""Drives that fail, fill up, hang, rot or come back stale, under the real store."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.core.errors import (
    DataLost,
    DriveTimeout,
    EngineError,
    NoSpace,
)
from appliance.engine.mirror.blob import blob_path
from appliance.engine.mirror.messages import Order
from appliance.engine.mirror.place import FilePlace, InlinePlace, decode_place
from appliance.engine.mirror.segment import segment_path
from appliance.engine.mirror.state import Stopped
from tests.crash.acts import blob_of, bring_back, commit, delete, put, put_staged
from tests.crash.history import PARTITION, History, Oracle
from tests.crash.machine import SETTINGS, Machine
from tests.crash.simulated import Operation


@pytest.mark.parametrize("persistent", [False, True], ids=["once", "persistent"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ETIMEDOUT])
def test_one_drive_failing_at_any_operation_loses_nothing(
    scratch: Path, code: int, persistent: bool
) -> None:
    survived_degraded = 0
    for number in range(1, 16):
        machine = Machine(number, scratch / f"{number}")
        machine.open()
        history, oracle = History(number), Oracle()
        history.commit(machine, oracle)
        machine.disks["drive-b"].fail_at(number, code, persistent=persistent)
        for _ in range(4):
            history.commit(machine, oracle)
        store = machine.store
        assert store is not None
        if len(store.members) == 1:
            survived_degraded += 1
            assert list(store.members) == ["drive-a"]
            bring_back(machine, "drive-b")
        machine.disks["drive-b"].hook = None
        history.commit(machine, oracle)
        oracle.check(machine)
        assert len(store.members) == 2
        machine.drop_store()
        machine.open()
        oracle.check(machine)
        machine.drop_store()
    print(f"degraded in {survived_degraded} of 15 runs")
    assert survived_degraded > 5


def test_both_drives_failing_stops_and_a_fresh_start_serves(machine: Machine) -> None:
    store = machine.open()
    commit(store, put(b"a", 1))
    for disk in machine.disks.values():
        disk.pull()
    with pytest.raises(Stopped):
        store.commit([put(b"b", 2)])
    with pytest.raises(Stopped):
        store.commit([put(b"c", 3)])
    machine.drop_store()
    for disk in machine.disks.values():
        disk.insert(machine.rng)
    store = machine.open()
    with machine.reader("drive-b") as reader:
        assert reader.read(PARTITION, [b"a"]) != [None]
    commit(store, put(b"d", 4))


def test_a_full_drive_refuses_puts_admits_deletes_and_stays_in_sync(machine: Machine) -> None:
    store = machine.open()
    disk = machine.disks["drive-b"]
    disk.capacity_bytes = disk.used_bytes() + 100_000
    number, refusal = 0, None
    while refusal is None:
        number += 1
        (outcome,) = store.commit([put(b"k%d" % number, number, b"y" * 30_000)])
        refusal = outcome if isinstance(outcome, EngineError) else None
    assert isinstance(refusal, NoSpace)
    for victim in range(1, number):
        commit(store, delete(b"k%d" % victim, 1000 + victim))
    assert len(store.members) == 2
    with machine.reader() as reader:
        assert reader.scan(PARTITION, b"", b"\xff", 10, False) == []
    disk.capacity_bytes = 1 << 40
    machine.clock.sleep_s(5)
    commit(store, put(b"again", 5000))


def test_recycled_segments_are_used_again(machine: Machine) -> None:
    store = machine.open()
    for number in range(1, 120):
        commit(store, put(b"same key", number, b"z" * 20_000))
        if number % 10 == 0:
            store.checkpoint()
            store.step()
    counts = store.counts()
    assert counts["recycled_segments"] > 4
    machine.drop_store()
    shutil.rmtree(machine.index_directory)
    machine.index_directory.mkdir()
    machine.open()
    with machine.reader() as reader:
        (record,) = reader.read(PARTITION, [b"same key"])
        assert record is not None
        assert record.value == b"0:119"


@pytest.mark.parametrize("size", [5_000, 200_000])
def test_a_flipped_bit_is_answered_from_the_peer_and_repaired(machine: Machine, size: int) -> None:
    store = machine.open()
    data = machine.rng.randbytes(size)
    order = put(b"k", 1, data)
    if size > 100_000:
        order = order._replace(orders=[Order(b"k", b"0:", b"", machine.stage(data))])
    commit(store, order)
    commit(store, put(b"other", 2))
    blob = blob_of(machine, b"k")
    for drive in ("drive-a", "drive-b"):
        place = decode_place(blob.place)
        if isinstance(place, InlinePlace):
            path = segment_path(place.location.segment)
            offset = place.location.offset + place.location.length - 7
        else:
            path, offset = blob_path(place.blob_id), 100_000
        machine.disks[drive].flip(path, offset, 3)
        for _ in range(2):
            with machine.reader() as reader:
                assert reader.read_blob(blob, 0, size) == data
                suspects = set(machine.suspects)
        assert {name for name, _ in suspects} <= {drive}
        assert store.repair(drive, blob.place)
        assert not store.repair(drive, blob.place), "it is good now"
        with machine.reader(drive) as reader:
            assert reader.read_blob(blob, 0, size) == data
            assert machine.suspects == []
    health = {member.drive_id: member for member in store.health().members}
    assert all(member.repaired == 1 for member in health.values())


def test_a_drive_without_room_for_a_repair_stays(machine: Machine) -> None:
    store = machine.open()
    put_staged(machine, b"large", 1, machine.rng.randbytes(150_000))
    blob = blob_of(machine, b"large")
    place = decode_place(blob.place)
    assert isinstance(place, FilePlace)
    machine.disks["drive-b"].flip(blob_path(place.blob_id), 100_000)
    machine.disks["drive-b"].fail_at(1, errno.ENOSPC, kinds=frozenset({"write", "allocate"}))
    assert not store.repair("drive-b", blob.place)
    assert list(store.members) == ["drive-a", "drive-b"]
    assert store.repair("drive-b", blob.place), "there is room again"


def test_rot_on_both_drives_is_data_lost_and_no_wrong_byte(machine: Machine) -> None:
    store = machine.open()
    commit(store, put(b"k", 1))
    blob = blob_of(machine, b"k")
    place = decode_place(blob.place)
    assert isinstance(place, InlinePlace)
    for disk in machine.disks.values():
        disk.flip(segment_path(place.location.segment), place.location.offset + 90)
    with machine.reader() as reader, pytest.raises(DataLost):
        reader.read_blob(blob, 0, 10)
    assert not store.repair("drive-a", blob.place)


def test_a_place_gives_the_bytes_of_its_own_record_alone(machine: Machine) -> None:
    store = machine.open()
    commit(store, put(b"k4", 1, b"four" * 100))
    commit(store, put(b"k5", 2, b"five" * 100))
    four = blob_of(machine, b"k4")
    astray = four._replace(place=four.place[:-1] + b"5")
    with machine.reader() as reader, pytest.raises(DataLost):
        reader.read_blob(astray, 0, 400)


def test_a_rotten_log_is_repaired_at_the_start(machine: Machine) -> None:
    store = machine.open()
    for number in range(1, 10):
        commit(store, put(b"k%d" % number, number))
    place = decode_place(blob_of(machine, b"k4").place)
    assert isinstance(place, InlinePlace)
    machine.drop_store()
    machine.disks["drive-b"].flip(segment_path(place.location.segment), place.location.offset + 90)
    shutil.rmtree(machine.index_directory)
    machine.index_directory.mkdir()
    store = machine.open()
    assert store.recovery.repaired == {"drive-b": 1}
    with machine.reader("drive-b") as reader:
        assert len(reader.scan(PARTITION, b"", b"\xff", 100, False)) == 9
        assert reader.read_blob(blob_of(machine, b"k4"), 0, 3000) == b"x" * 3000


def test_released_blobs_and_orphans_go(machine: Machine) -> None:
    store = machine.open()
    order = put(b"k", 1)._replace(orders=[Order(b"k", b"0:", b"", machine.stage(b"q" * 100_000))])
    commit(store, order)
    place = decode_place(blob_of(machine, b"k").place)
    machine.stage(b"never committed" * 9000)
    commit(store, delete(b"k", 2))
    machine.clock.sleep_s(60)
    store.step()
    for disk in machine.disks.values():
        files = [path for path in disk.contents() if path.startswith(("blob/", "staging/"))]
        assert not isinstance(place, InlinePlace)
        assert blob_path(place.blob_id) not in disk.tree
        assert all(path not in disk.tree for path in files)


def test_a_sweep_leaves_a_released_blob_its_grace(machine: Machine) -> None:
    store = machine.open()
    order = put(b"k", 1)._replace(orders=[Order(b"k", b"0:", b"", machine.stage(b"q" * 100_000))])
    commit(store, order)
    place = decode_place(blob_of(machine, b"k").place)
    assert not isinstance(place, InlinePlace)
    commit(store, delete(b"k", 2))
    store.sweep_orphans()
    for volume in store.members.values():
        assert volume.stat(blob_path(place.blob_id)) is not None, "a slow reader may be in it"


def _be_late(machine: Machine, drive: str, times: int) -> None:
    """The drive's next writes miss their deadline."""
    left = times

    def hook(operation: Operation) -> None:
        nonlocal left
        if operation.kind == "write" and left > 0:
            left -= 1
            raise DriveTimeout(drive, "write", errno.ETIMEDOUT)

    machine.disks[drive].hook = hook


@pytest.mark.parametrize(("first", "second"), [(3, 3), (1, 40), (40, 1)])
def test_a_host_that_stood_still_ejects_no_drive(machine: Machine, first: int, second: int) -> None:
    """Nor do its drives have to come back at the same instant."""
    store = machine.open()
    _be_late(machine, "drive-a", first)
    _be_late(machine, "drive-b", second)
    commit(store, put(b"k", 1))
    assert len(store.members) == 2
    assert any("held" in alert for alert in machine.alerts)


def test_of_drives_that_stood_still_the_one_that_stays_away_is_failed(machine: Machine) -> None:
    store = machine.open()
    _be_late(machine, "drive-a", 3)
    _be_late(machine, "drive-b", 1_000_000)
    commit(store, put(b"k", 1))
    assert list(store.members) == ["drive-a"]


def test_a_drive_that_hangs_alone_is_failed(machine: Machine) -> None:
    store = machine.open()
    _be_late(machine, "drive-a", 1)
    commit(store, put(b"k", 1))
    assert list(store.members) == ["drive-b"]


def test_read_errors_are_counted_over_lives_and_past_a_threshold_it_is_advised(
    machine: Machine,
) -> None:
    advised = replace(SETTINGS, read_errors_advised=3)
    for number in range(1, 5):
        store = machine.open(settings=advised)
        commit(store, put(b"k%d" % number, number))
        commit(store, put(b"other", 100 + number))
        place = decode_place(blob_of(machine, b"k%d" % number).place)
        assert isinstance(place, InlinePlace)
        path = segment_path(place.location.segment)
        machine.disks["drive-b"].flip(path, place.location.offset + place.location.length - 7)
        assert store.repair("drive-b", blob_of(machine, b"k%d" % number).place)
        told = {member.drive_id: member for member in store.health().members}
        assert (told["drive-a"].read_errors, told["drive-b"].read_errors) == (0, number)
        assert ("replace it" in told["drive-b"].reason) == (number >= 3)
        assert told["drive-a"].reason == ""
        store.step()
        assert any("replace it" in alert for alert in machine.alerts) == (number >= 3)
        machine.clock.sleep_s(3700)
        store.step()  # the heartbeat takes the count along
        machine.drop_store()


def test_a_drive_that_lied_about_a_flush_is_told_with_its_serial(machine: Machine) -> None:
    store = machine.open()
    commit(store, put(b"a", 1))
    disk = machine.disks["drive-b"]

    def lose(operation: Operation) -> None:
        if operation.kind == "write" and operation.path.startswith("log/"):
            disk.lost_writes.add(operation.number)

    disk.hook = lose
    for number in range(2, 8):
        commit(store, put(b"k%d" % number, number))
    machine.drop_store()
    disk.hook = None
    store = machine.open()
    assert store.recovery.lied == ["drive-b"]
    alerts = [alert for alert in machine.alerts if "had confirmed" in alert]
    assert alerts
    assert all("drive drive-b (serial " in alert for alert in alerts)
    with machine.reader("drive-b") as reader:
        assert None not in reader.read(PARTITION, [b"k%d" % number for number in range(2, 8)])
