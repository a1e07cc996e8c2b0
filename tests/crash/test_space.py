"""Room on full drives: nothing is refused that what is dead could make room for, deletes never are,
and what lies on a drive stays near what lives.

Counters, not clocks: time passes as it would on a drive of 10 TB written at 200 MB/s, so that the
graces of released blobs and freed segments weigh what they weigh there.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from appliance.core.errors import NoSpace
from appliance.engine.mirror.blob import file_bytes
from appliance.engine.mirror.digest import digest
from appliance.engine.mirror.messages import CommitOrder, Order, Staged
from appliance.engine.mirror.staged_files import StagingMember
from appliance.engine.mirror.staging import MirrorBlobWriter, StagedBlob, StagingContext
from tests.crash.acts import commit, delete, put
from tests.crash.history import PARTITION
from tests.crash.machine import SEGMENT_BYTES, SETTINGS, Machine

MIB = 1024 * 1024
FILLED_IN_S = 50_000.0
INLINE_BYTES = 16_000
STAGED_BYTES = 100_000


class Tenant:
    """Overwrites a fixed set of objects, half of their bytes inline, and watches the drives."""

    def __init__(self, directory: Path, capacity_bytes: int, share: float) -> None:
        self.machine = Machine(11, directory)
        self.capacity_bytes = capacity_bytes
        for disk in self.machine.disks.values():
            disk.capacity_bytes = capacity_bytes
        self.settings = dataclasses.replace(
            SETTINGS,
            reserve_bytes=capacity_bytes // 64,
            release_grace_s=3600.0,
            recycle_grace_s=60.0,
            checkpoint_every_bytes=capacity_bytes // 32,
        )
        self.store = self.machine.open(settings=self.settings)
        half = capacity_bytes * share / 2
        self.sizes = [INLINE_BYTES] * int(half / INLINE_BYTES)
        self.sizes += [STAGED_BYTES] * int(half / STAGED_BYTES)
        self.live_bytes = sum(self.sizes)
        self.peak = 0.0
        self.refused = 0
        self.written = 0
        self.number = 0

    def fill(self) -> None:
        """Each object once."""
        for number in range(len(self.sizes)):
            self.turn(number)

    def overwrite(self, total_bytes: int) -> None:
        """Random ones, as many bytes inline as staged."""
        weights = [1 / size for size in self.sizes]
        end = self.written + total_bytes
        while self.written < end:
            for number in self.machine.rng.choices(range(len(self.sizes)), weights, k=8):
                self.turn(number)
            self.peak = max(self.peak, self.amplification())

    def turn(self, number: int) -> None:
        """One turn of the committer, and the time its bytes would take."""
        self.put(number)
        self.pass_time(self.sizes[number] / self.capacity_bytes * FILLED_IN_S)

    def put(self, number: int) -> None:
        """Anew, in no time."""
        size_bytes = self.sizes[number]
        self.number += 1
        self.written += size_bytes
        blob = self._blob(size_bytes)
        if blob is not None:
            order = Order(b"object %05d" % number, b"0:%d" % self.number, b"", blob)
            request_id = self.number.to_bytes(16, "big")
            (outcome,) = self.store.commit(
                [CommitOrder(PARTITION.encode(), request_id, [order], [], [])]
            )
            self.refused += not isinstance(outcome, int)

    def _blob(self, size_bytes: int) -> bytes | Staged | None:
        data = self.machine.rng.randbytes(16) * (size_bytes // 16)
        if size_bytes < STAGED_BYTES:
            return data
        assert self.settings.reserve_bytes is not None
        free = min(volume.space().free_bytes for volume in self.store.members.values())
        if free - file_bytes(size_bytes) < self.settings.reserve_bytes:
            self.refused += 1  # as a gateway refuses it
            return None
        return self.machine.stage(data)

    def pass_time(self, seconds: float) -> None:
        """The committer's idle turns."""
        self.machine.clock.sleep_s(seconds)
        self.store.step()
        self.store.checkpoint_if_due()
        for _ in range(20):
            if self.store.work_wait_s > 1:
                break
            self.machine.clock.sleep_s(self.store.work_wait_s)
            self.store.work()

    def amplification(self) -> float:
        """What lies on a drive for a byte that lives."""
        used = max(disk.used_bytes() for disk in self.machine.disks.values())
        return used / self.live_bytes

    def rest(self) -> None:
        """A quiet night."""
        for _ in range(150):
            self.pass_time(120.0)

    def write_amplification(self) -> float:
        """Bytes logged and staged for a byte written."""
        return (self.written + self.store.counts()["moved_bytes"]) / self.written


@pytest.fixture
def tenants(scratch: Path) -> Iterator[list[Tenant]]:
    made: list[Tenant] = []
    yield made
    for tenant in made:
        tenant.machine.drop_store()


def _overwrite(tenant: Tenant, times: float) -> None:
    tenant.fill()
    tenant.overwrite(int(times * tenant.capacity_bytes))
    print(f"peak {tenant.peak:.3f}, {tenant.write_amplification():.2f} written per byte")
    assert tenant.refused == 0
    assert tenant.peak <= 1.5
    tenant.rest()
    print(f"at rest {tenant.amplification():.3f}, {tenant.store.counts()}")
    assert tenant.amplification() <= 1.25
    with tenant.machine.reader() as reader:
        found = reader.scan(PARTITION, b"", b"\xff", 10_000, False)
        assert len(found) == len(tenant.sizes)
        for record in found:
            assert record.blob is not None
            assert len(reader.read_blob(record.blob, 0, record.blob.size_bytes))
    assert len({digest(member) for member in tenant.store._state.members.values()}) == 1


def test_a_drive_that_is_80_percent_full_is_overwritten(
    tenants: list[Tenant], scratch: Path
) -> None:
    tenants.append(Tenant(scratch / "machine", 16 * MIB, 0.8))
    _overwrite(tenants[0], 0.5)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("share", "times"), [(0.8, 10), (0.4, 3)])
def test_many_times_the_capacity_is_overwritten(
    share: float, times: float, tenants: list[Tenant], scratch: Path
) -> None:
    tenants.append(Tenant(scratch / "machine", 16 * MIB, share))
    _overwrite(tenants[0], times)


# -- full ------------------------------------------------------------------------------------------


def _full(machine: Machine) -> int:
    """Fill the drives until a put is refused. The number of the last one that was not."""
    for disk in machine.disks.values():
        disk.capacity_bytes = 24 * SEGMENT_BYTES
    store = machine.open()
    for number in range(1, 1000):
        (outcome,) = store.commit([put(b"key %04d" % number, number, b"x" * 12_000)])
        if isinstance(outcome, NoSpace):
            return number - 1
        store.step()
    raise AssertionError("the drives never got full")


def test_deletes_make_room_on_full_drives(machine: Machine) -> None:
    """Every delete is admitted, and most of their room is there again."""
    count = _full(machine)
    store = machine.store
    assert store is not None
    assert count * 12_000 > 0.75 * 24 * SEGMENT_BYTES
    for number in range(1, count + 1, 2):
        commit(store, delete(b"key %04d" % number, 10_000 + number))
    for number in range(1, count // 3):
        commit(store, put(b"new %04d" % number, 20_000 + number, b"y" * 12_000))
    assert store.stopped == ""
    assert len(store.members) == 2
    assert len({digest(member) for member in store._state.members.values()}) == 1


def test_every_record_of_full_drives_can_be_deleted_one_by_one(machine: Machine) -> None:
    count = _full(machine)
    store = machine.store
    assert store is not None
    for number in range(1, count + 1):
        commit(store, delete(b"key %04d" % number, 10_000 + number))
        store.step()
        store.checkpoint_if_due()
    assert store.stopped == ""
    with machine.reader() as reader:
        assert reader.scan(PARTITION, b"", b"\xff", 1000, False) == []


@pytest.mark.parametrize("drives", [["drive-a"], ["drive-a", "drive-b"]])
def test_a_drive_without_room_is_no_failed_drive(machine: Machine, drives: list[str]) -> None:
    """A put that finds no room leaves nothing behind, on neither drive, and the next one with room
    passes."""
    store = machine.open()
    before = [commit(store, put(b"key %d" % number, number, b"x" * 12_000)) for number in range(9)]
    for drive in drives:
        machine.disks[drive].capacity_bytes = machine.disks[drive].used_bytes()
    outcomes: list[object] = []
    for number in range(100, 200):
        outcomes += store.commit([put(b"more %d" % number, number, b"x" * 12_000)])
    assert any(isinstance(outcome, NoSpace) for outcome in outcomes)
    kept = sum(isinstance(outcome, int) for outcome in outcomes)
    assert len(store.members) == 2 and store.stopped == ""
    names = [machine.disks[drive].mount().names("log") for drive in sorted(machine.disks)]
    assert names[0] == names[1]
    machine.drop_store()
    for disk in machine.disks.values():
        disk.capacity_bytes = 1 << 40
    store = machine.open()
    commit(store, put(b"with room", 5000))
    with machine.reader() as reader:
        assert len(reader.scan(PARTITION, b"", b"\xff", 1000, False)) == len(before) + kept + 1


def test_released_blobs_go_sooner_when_room_is_short(scratch: Path) -> None:
    tenant = Tenant(scratch / "machine", 16 * MIB, 0.8)
    tenant.fill()
    before = tenant.store.counts()["released_blobs"]
    tenant.turn(len(tenant.sizes) - 1)
    tenant.machine.clock.sleep_s(120)
    tenant.store.step()
    assert tenant.store.counts()["released_blobs"] == before, "an hour's grace"
    for disk in tenant.machine.disks.values():
        disk.capacity_bytes = disk.used_bytes() + MIB // 2
    tenant.machine.clock.sleep_s(2)
    tenant.store.step()
    assert tenant.store.counts()["released_blobs"] == before + 1
    tenant.machine.drop_store()


def test_room_is_made_for_a_file_before_it_is_refused(scratch: Path) -> None:
    """Of what was released just now, after a short grace; and it is said when there is nothing."""
    tenant = Tenant(scratch / "machine", 16 * MIB, 0.5)
    tenant.fill()
    tenant.machine.clock.sleep_s(10)
    for number in range(len(tenant.sizes) - 20, len(tenant.sizes)):
        tenant.put(number)
    store, clock = tenant.store, tenant.machine.clock
    for disk in tenant.machine.disks.values():
        disk.capacity_bytes = disk.used_bytes() + tenant.capacity_bytes // 64
    wanted = file_bytes(2 * STAGED_BYTES)
    waited_s = 0.0
    while wait_s := store.make_room(wanted):
        waited_s += wait_s
        clock.sleep_s(wait_s)
    assert 0 < waited_s <= 11
    assert min(volume.space().free_bytes for volume in store.members.values()) >= wanted
    with pytest.raises(NoSpace, match="full up to their reserve"):
        while wait_s := store.make_room(4 * MIB):
            clock.sleep_s(wait_s)
    tenant.machine.drop_store()


def test_nothing_is_given_up_for_a_file_that_can_never_fit(scratch: Path) -> None:
    """A client may announce any length: that must end nobody's read nor hold up the commits."""
    tenant = Tenant(scratch / "machine", 16 * MIB, 0.5)
    tenant.fill()
    for number in range(len(tenant.sizes)):
        tenant.put(number)
    tenant.machine.clock.sleep_s(10)
    before = tenant.store.counts()
    with pytest.raises(NoSpace, match="full up to their reserve"):
        tenant.store.make_room(16 * MIB)
    assert tenant.store.counts() == before
    tenant.machine.drop_store()


def test_the_log_is_not_compacted_for_a_file_that_gets_none_of_it(scratch: Path) -> None:
    """While a drive is brought in no segment is given back to files."""
    tenant = Tenant(scratch / "machine", 16 * MIB, 0.5)
    tenant.fill()
    for number in range(tenant.sizes.count(INLINE_BYTES) // 2):
        tenant.put(number)
    store, disks = tenant.store, tenant.machine.disks
    for disk in disks.values():
        disk.capacity_bytes = disk.used_bytes() + tenant.capacity_bytes // 64
    store.lose("drive-b", "pulled")
    store.add_outsider(disks["drive-b"].mount())
    resync = store.begin_resync("drive-b")
    tenant.machine.clock.sleep_s(10)
    store.step()
    before = store.counts()["recycled_segments"]
    with pytest.raises(NoSpace):
        while wait_s := store.make_room(MIB // 2):
            tenant.machine.clock.sleep_s(wait_s)
    assert store.counts()["recycled_segments"] == before
    store.abandon_resync(resync)
    tenant.machine.clock.sleep_s(2)
    while wait_s := store.make_room(MIB // 2):
        tenant.machine.clock.sleep_s(wait_s)
    assert store.counts()["recycled_segments"] > before
    tenant.machine.drop_store()


def test_a_file_is_staged_once_the_store_made_room(machine: Machine) -> None:
    store = machine.open()
    asked: list[int] = []
    for disk in machine.disks.values():
        disk.capacity_bytes = disk.used_bytes() + MIB

    async def make_room(size_bytes: int) -> None:
        asked.append(size_bytes)
        if len(asked) > 1:
            raise NoSpace("full")
        for disk in machine.disks.values():
            disk.capacity_bytes += 4 * MIB

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as threads:
            members = {
                drive: StagingMember(drive, 1, volume, threads, loop.create_future())
                for drive, volume in store.members.items()
            }
            context = StagingContext(
                "g", machine.entropy, lambda: members, lambda *_: None, 1000, make_room
            )
            for volume in store.members.values():
                volume.make_directory("staging/g")
            writer = MirrorBlobWriter(context, 2 * MIB)
            await writer.write(b"x" * 2 * MIB)
            blob = await writer.finish()
            assert isinstance(blob, StagedBlob) and blob.size_bytes == 2 * MIB
            assert asked == [file_bytes(2 * MIB)]
            again = MirrorBlobWriter(context, 4 * MIB)
            with pytest.raises(NoSpace):
                await again.write(b"x" * 4 * MIB)
            assert len(asked) == 2
        files = [volume.names("staging/g") for volume in store.members.values()]
        assert [len(each) for each in files] == [1, 1]

    asyncio.run(scenario())
