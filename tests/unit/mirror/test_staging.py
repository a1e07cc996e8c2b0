"""Large blobs on drives that fail, fill up, hang or leave while a gateway writes to them."""

from __future__ import annotations

import asyncio
import errno
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from appliance.core.errors import DriveFault, InvalidInput, NoSpace, Unavailable
from appliance.engine.mirror.blob import decode_chunks, staged_path
from appliance.engine.mirror.staged_files import StagingMember
from appliance.engine.mirror.staging import (
    PIECE_BYTES,
    MirrorBlobWriter,
    StagedBlob,
    StagingContext,
)
from tests.crash.simulated import Operation, Power, SeededEntropy, SimulatedDisk

INLINE_BYTES = 1000
DATA = random.Random(4).randbytes(150_000)
DRIVES = ("drive-a", "drive-b")

pytestmark = pytest.mark.timeout(30)


@dataclass
class House:
    """Two drives, the members a gateway sees, and what it reported of them."""

    disks: dict[str, SimulatedDisk]
    members: dict[str, StagingMember]
    context: StagingContext
    reported: list[str] = field(default_factory=list)

    def writer(self, size_bytes: int | None = None) -> MirrorBlobWriter:
        return MirrorBlobWriter(self.context, size_bytes)

    def fail(self, kind: str, code: int, *drives: str) -> None:
        def hook(operation: Operation) -> None:
            if operation.kind == kind:
                raise DriveFault("sick", kind, code)

        for drive in drives:
            self.disks[drive].hook = hook


@asynccontextmanager
async def house(reserve_bytes: int = 0) -> AsyncIterator[House]:
    power, loop = Power(), asyncio.get_running_loop()
    disks = {name: SimulatedDisk(name, power, capacity_bytes=1 << 24) for name in DRIVES}
    members: dict[str, StagingMember] = {}
    threads = [ThreadPoolExecutor(1) for _ in DRIVES]
    for (name, disk), pool in zip(disks.items(), threads, strict=True):
        volume = disk.mount()
        volume.make_directory("staging/gateway-1")
        members[name] = StagingMember(name, 1, volume, pool, loop.create_future())
    reported: list[str] = []

    def seen() -> Mapping[str, StagingMember]:
        return dict(members)

    async def no_room(_size_bytes: int) -> None:
        raise NoSpace("the store has none")

    context = StagingContext(
        "gateway-1",
        SeededEntropy(random.Random(2)),
        seen,
        lambda drive, fault: reported.append(drive),
        INLINE_BYTES,
        no_room,
        reserve_bytes,
    )
    yield House(disks, members, context, reported)
    for pool in threads:
        pool.shutdown()


def run(scenario: Callable[[House], Awaitable[None]], *, reserve_bytes: int = 0) -> None:
    async def within() -> None:
        async with house(reserve_bytes) as home:
            await scenario(home)

    asyncio.run(within())


def _stable(home: House, blob: StagedBlob, drive: str) -> bytes:
    """What a power cut leaves of the blob's contents on a drive."""
    volume = home.members[drive].volume
    path = staged_path("gateway-1", blob.blob_id)
    volume.flush_directory("staging/gateway-1")
    raw = home.disks[drive].contents()[path]
    chunks = decode_chunks(blob.blob_id, len(DATA), 0, -(-len(DATA) // 65_536), raw)
    assert chunks is not None, "it was only in a cache"
    return b"".join(map(bytes, chunks))


def test_what_finish_returns_is_flushed_on_every_drive_it_names() -> None:
    async def scenario(home: House) -> None:
        writer = home.writer()
        await writer.write(DATA)
        blob = await writer.finish()
        assert isinstance(blob, StagedBlob)
        assert blob.stamps == {"drive-a": (1, 1), "drive-b": (1, 1)}
        for drive in DRIVES:
            assert _stable(home, blob, drive) == DATA
        blob.settle()

    run(scenario)


@pytest.mark.parametrize("kind", ["create", "write", "truncate", "flush"])
def test_a_drive_that_fails_is_reported_and_not_counted(kind: str) -> None:
    async def scenario(home: House) -> None:
        home.fail(kind, errno.EIO, "drive-b")
        writer = home.writer()
        await writer.write(DATA)
        blob = await writer.finish()
        assert isinstance(blob, StagedBlob)
        assert list(blob.stamps) == ["drive-a"]
        assert home.reported == ["drive-b"]
        assert _stable(home, blob, "drive-a") == DATA
        blob.settle()

    run(scenario)


@pytest.mark.parametrize("kind", ["create", "write", "flush"])
def test_without_any_drive_nothing_was_stored(kind: str) -> None:
    async def scenario(home: House) -> None:
        home.fail(kind, errno.EIO, *DRIVES)
        writer = home.writer()
        with pytest.raises(Unavailable, match="cannot store"):
            await writer.write(DATA)
            await writer.finish()
        with pytest.raises(InvalidInput):
            await writer.finish()

    run(scenario)


@pytest.mark.parametrize("kind", ["create", "allocate", "write", "flush"])
def test_a_full_drive_is_not_reported_and_nothing_is_left(kind: str) -> None:
    async def scenario(home: House) -> None:
        home.fail(kind, errno.ENOSPC, "drive-b")
        writer = home.writer(len(DATA))
        with pytest.raises(NoSpace):
            await writer.write(DATA)
            await writer.finish()
        assert home.reported == []
        for disk in home.disks.values():
            disk.hook = None
        for member in home.members.values():
            await asyncio.wrap_future(member.threads.submit(lambda: None))
            names = member.volume.names("staging/gateway-1")
            assert names == [], "room must not stay taken"

    run(scenario)


def test_the_reserve_is_left_to_the_log() -> None:
    async def scenario(home: House) -> None:
        with pytest.raises(NoSpace):
            await home.writer(1 << 23).write(DATA)
        writer = home.writer(len(DATA))
        await writer.write(DATA)
        blob = await writer.finish()
        assert isinstance(blob, StagedBlob)
        blob.settle()

    run(scenario, reserve_bytes=(1 << 23) + 1)


def test_no_member_no_upload() -> None:
    async def scenario(home: House) -> None:
        home.members.clear()
        with pytest.raises(Unavailable, match="in sync"):
            await home.writer().write(DATA)

    run(scenario)


def test_a_blob_whose_drives_all_left_meanwhile_does_not_count() -> None:
    async def scenario(home: House) -> None:
        writer = home.writer()
        await writer.write(DATA)
        kept = dict(home.members)
        home.members.clear()
        with pytest.raises(Unavailable, match="took the whole blob"):
            await writer.finish()
        home.members.update(kept)

    run(scenario)


def test_a_drive_that_rejoined_meanwhile_is_named_with_both_generations() -> None:
    """The store then copies: what was written before it joined may not be there."""

    async def scenario(home: House) -> None:
        writer = home.writer()
        await writer.write(DATA)
        member = home.members["drive-b"]
        home.members["drive-b"] = StagingMember(
            "drive-b", 2, member.volume, member.threads, member.gone
        )
        blob = await writer.finish()
        assert isinstance(blob, StagedBlob)
        assert blob.stamps == {"drive-a": (1, 1), "drive-b": (1, 2)}
        blob.settle()

    run(scenario)


def test_a_mistake_in_a_drive_s_thread_is_no_failed_drive() -> None:
    async def scenario(home: House) -> None:
        def hook(operation: Operation) -> None:
            if operation.kind == "write":
                raise ZeroDivisionError

        home.disks["drive-b"].hook = hook
        writer = home.writer()
        with pytest.raises(ZeroDivisionError):
            await writer.write(DATA + bytes(PIECE_BYTES))
            await writer.finish()
        assert home.reported == []

    run(scenario)


def test_a_file_made_after_its_drive_left_is_not_held_open() -> None:
    """A drive that hangs while an upload begins leaves, and goes on: held open, it could not be
    mounted afresh."""

    async def scenario(home: House) -> None:
        going_on = threading.Event()

        def hook(operation: Operation) -> None:
            if operation.kind == "create":
                assert going_on.wait(20)

        home.disks["drive-b"].hook = hook
        member = home.members["drive-b"]
        member.gone.set_result(None)
        writer = home.writer()
        await writer.write(DATA)
        blob = await writer.finish()
        assert isinstance(blob, StagedBlob)
        assert list(blob.stamps) == ["drive-a"]
        going_on.set()
        for _ in ("made", "removed"):
            await asyncio.wrap_future(member.threads.submit(bool))
        assert member.volume.stat(staged_path("gateway-1", blob.blob_id)) is None
        blob.settle()

    run(scenario)
