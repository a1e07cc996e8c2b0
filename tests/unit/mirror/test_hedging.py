"""Reads past a drive that hangs, with drives that hang at the test's word."""

from __future__ import annotations

import asyncio
import threading
from typing import cast

import pytest

from appliance.core.errors import Unavailable
from appliance.engine.interface import BlobRef
from appliance.engine.mirror.hedging import HedgedReads
from appliance.engine.mirror.reader import DriveReader, MirrorReader

THREADS = 2
HEDGE_S = 0.02
BLOB = BlobRef(4, b"place")

pytestmark = pytest.mark.timeout(30)


class HangingDrive:
    """Answers with its name; ``hung`` ones once ``over`` is set."""

    def __init__(self, drive: str, hung: bool = False) -> None:
        self.drive = drive
        self.over = threading.Event()
        if not hung:
            self.over.set()

    def answer(self) -> bytes:
        self.over.wait(20)
        return self.drive.encode()


class TwoDrives:
    """As much of a ``MirrorReader`` as is asked here; the first drive is always preferred."""

    def __init__(self, *drives: HangingDrive) -> None:
        self.drives = list(drives)

    def order(self, place: bytes, avoid: frozenset[str]) -> list[DriveReader]:
        ordered = sorted(self.drives, key=lambda drive: drive.drive in avoid)
        return [cast(DriveReader, drive) for drive in ordered]

    def read_cached(self, blob: BlobRef, start: int, end: int) -> None:
        return None

    def read_blob(
        self, blob: BlobRef, start: int, end: int, *, avoid: frozenset[str], asking: list[str]
    ) -> bytes:
        first = cast(HangingDrive, self.order(blob.place, avoid)[0])
        asking.append(first.drive)
        return first.answer()


def hedged(reader: TwoDrives) -> HedgedReads:
    return HedgedReads(cast(MirrorReader, reader), "test", threads=THREADS, hedge_s=HEDGE_S)


def test_however_many_reads_hang_in_a_drive_the_other_one_answers() -> None:
    """Before any of them is blamed on the drive, too: all are asked at once."""

    async def scenario() -> None:
        sick, well = HangingDrive("sick", hung=True), HangingDrive("well")
        reads = hedged(TwoDrives(sick, well))
        got = await asyncio.gather(*(reads.read(BLOB, 0, 4) for _ in range(10 * THREADS)))
        assert set(got) == {b"well"}
        names = [thread.name for thread in threading.enumerate() if "reader sick" in thread.name]
        assert len(names) == THREADS, "no more threads than its own hang in a drive"
        sick.over.set()
        await reads.close()

    asyncio.run(scenario())


def test_a_drive_mounted_afresh_gets_threads_of_its_own() -> None:
    """What hangs on the old mount has the old threads for as long as it likes."""

    async def scenario() -> None:
        old, well = HangingDrive("sick", hung=True), HangingDrive("well")
        drives = TwoDrives(old, well)
        reads = hedged(drives)
        await asyncio.gather(*(reads.read(BLOB, 0, 4) for _ in range(3 * THREADS)))
        drives.drives = [HangingDrive("sick")]
        got = await asyncio.gather(*(reads.read(BLOB, 0, 4) for _ in range(3 * THREADS)))
        assert set(got) == {b"sick"}
        old.over.set()
        await reads.close()

    asyncio.run(scenario())


def test_a_lone_drive_that_is_slow_is_waited_for() -> None:
    async def scenario() -> None:
        slow = HangingDrive("slow", hung=True)
        reads = hedged(TwoDrives(slow))
        reading = asyncio.create_task(reads.read(BLOB, 0, 4))
        done, _ = await asyncio.wait({reading}, timeout=5 * HEDGE_S)
        assert not done
        slow.over.set()
        assert await reading == b"slow"
        await reads.close()

    asyncio.run(scenario())


def test_a_mirror_without_a_drive_says_so() -> None:
    async def run() -> None:
        reads = hedged(TwoDrives())
        with pytest.raises(Unavailable, match="no drive of the mirror"):
            await reads.read(BLOB, 0, 4)
        reads.index_threads.shutdown()

    asyncio.run(run())
