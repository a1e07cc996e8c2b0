"""Power cuts taken from a recording: both drives as they may have stood at one instant.

Owns the rebuilt images. At a cut everything before the last flush of each drive is there; what was
written since is lost, kept, torn by sectors or kept out of order, as the seed says, on each drive
by itself. Overlapping writes keep their order, as in a drive's cache.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from appliance.core.errors import S3Error
from appliance.engine.interface import MirrorState
from appliance.engine.mirror.service import StoreService
from appliance.engine.mirror.store import Store
from appliance.objects.store import ObjectStore
from tests.crash.recorded_drive import MOUNT_OPTIONS, RecordedDrive, copy_sparse
from tests.crash.recording import Recording, assembly_of, objects_over, serving
from tests.crash.traffic import ABSENT, BUCKET, Oracle
from tests.crash.write_log import FUA, SECTOR_BYTES, Entry, WriteLog
from tests.system.drives import sh
from tests.system.service import digests
from tests.unit.objects.world import ALICE, BytesBody, read_all

WRITE_AGAIN_SHARE: Final = 0.2
CONVERGE_SHARE: Final = 0.15
CONVERGED_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Cut:
    """A moment at which the power goes: entries each drive has done by then, and the look whose
    promises and witness hold."""

    counts: tuple[int, int]
    look: int


class ReplayedDrive:
    """One drive's image, brought forward from cut to cut."""

    def __init__(self, drive: RecordedDrive, folder: Path) -> None:
        self.log: Final = WriteLog(drive.log)
        self._base = folder / f"{drive.image.stem}.base"
        self._folder = folder
        self._name = drive.image.stem
        self._number = 0
        copy_sparse(drive.pristine, self._base)
        self._applied = 0

    def cut(self, count: int, chance: random.Random) -> int:
        """Make an image as it may be after the first ``count`` entries; how many of them were not
        certain to be there. Counts never fall from call to call."""
        durable = self.log.durable_count(count)
        with self._base.open("r+b") as base:
            for entry in self.log.entries[self._applied : durable]:
                self._apply(base, entry)
        self._applied = durable
        self._image.unlink(missing_ok=True)
        self._number += 1
        copy_sparse(self._base, self._image)
        tail = [entry for entry in self.log.entries[durable:count] if entry.size_bytes]
        fate = chance.choice(("lost", "kept", "some", "some", "torn", "torn"))
        with self._image.open("r+b") as image:
            for entry in tail:
                if (
                    fate == "kept"
                    or entry.flags & FUA
                    or (fate != "lost" and chance.random() < 0.5)
                ):
                    self._apply(image, entry, chance if fate == "torn" else None)
        return len(tail)

    @property
    def _image(self) -> Path:
        """Another file for each cut: whoever still holds the one before must not meet this one."""
        return self._folder / f"{self._name}.{self._number}.image"

    def _apply(self, image: BinaryIO, entry: Entry, tearing: random.Random | None = None) -> None:
        data = self.log.data(entry)
        if tearing is None or entry.flags & FUA:
            os.pwrite(image.fileno(), data, entry.offset)
            return
        for at in range(0, entry.size_bytes, SECTOR_BYTES):
            if tearing.random() < 0.5:
                os.pwrite(image.fileno(), data[at : at + SECTOR_BYTES], entry.offset + at)

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        """The image mounted for real: the file system replays its own log."""
        root = self._folder / f"{self._name}.{self._number}.root"
        root.mkdir()
        options = f"loop,{MOUNT_OPTIONS}"
        sh("mount", "-t", "xfs", "-o", options, str(self._image), str(root))
        try:
            yield root
        finally:
            # Lazily: a state transfer that has begun may be at its last call.
            sh("umount", "--lazy", str(root))
            root.rmdir()


def choose_cuts(recording: Recording, logs: list[WriteLog], count: int, seed: int) -> list[Cut]:
    """``count`` different moments, in order. Every look is one; where only one drive moved between
    two looks, every entry of it in between is one too. Moments with something to lose first."""
    found: dict[tuple[int, int], int] = {}
    before: tuple[int, int] | None = None
    for number, look in enumerate(recording.looks[recording.began :], recording.began):
        now = (logs[0].count_at(look.positions[0]), logs[1].count_at(look.positions[1]))
        before = before or now
        if now[1] == before[1]:
            between = [(step, now[1]) for step in range(before[0] + 1, now[0])]
        elif now[0] == before[0]:
            between = [(now[0], step) for step in range(before[1] + 1, now[1])]
        else:
            between = []
        for counts in between:
            found.setdefault(counts, number - 1)
        # Of looks at which nothing had moved the last counts: it has the most promises.
        found[now] = number
        before = now
    cuts = [Cut(counts, look) for counts, look in found.items()]
    random.Random(seed).shuffle(cuts)
    risky = [cut for cut in cuts if _has_tail(cut, logs)][: count * 4 // 5]
    taken = set(risky)
    chosen = [*risky, *(cut for cut in cuts if cut not in taken)][:count]
    return sorted(chosen, key=lambda cut: cut.counts)


def _has_tail(cut: Cut, logs: list[WriteLog]) -> bool:
    return any(
        any(entry.size_bytes for entry in log.entries[log.durable_count(count) : count])
        for log, count in zip(logs, cut.counts, strict=True)
    )


@dataclass(slots=True)
class Machine:
    """Two replayed drives and what lay on the disk of the operating system."""

    drives: list[ReplayedDrive]
    recording: Recording
    folder: Path
    executor: ThreadPoolExecutor
    converged: int = 0
    """States in which both drives came to be in sync, and their blobs were compared."""
    _converging: bool = False

    def try_cut(self, cut: Cut, chance: random.Random) -> tuple[int, int]:
        """Cut the power there, mount, recover, and compare everything with the oracle. How many
        writes were uncertain, and how many objects were read."""
        uncertain = sum(
            drive.cut(count, chance) for drive, count in zip(self.drives, cut.counts, strict=True)
        )
        index, witness = self._rest_of_the_machine(cut, chance)
        first, second = self.drives
        with first.mounted() as one, second.mounted() as other:
            assembly = assembly_of([one, other], index, witness)
            objects = asyncio.run(self._recover(assembly, cut, chance))
            if self._converging:
                # Behind the end of the log a torn batch may lie, on each drive another piece of it.
                different = digests(one).items() ^ digests(other).items()
                differing = {path for path, _ in different if path.startswith("blob/")}
                assert not differing, f"the copies differ: {sorted(differing)}"
                self.converged += 1
            return uncertain, objects

    def _rest_of_the_machine(self, cut: Cut, chance: random.Random) -> tuple[Path, Path]:
        """The witness of that moment, and an index that is lost, behind, or of another moment."""
        self.folder.mkdir(exist_ok=True)
        witness = self.folder / "w"
        witness.write_bytes(self.recording.looks[cut.look].witness)
        index = self.folder / "index"
        shutil.rmtree(index, ignore_errors=True)
        copy = chance.choice([None, *self.recording.indexes])
        if copy is None:
            index.mkdir()
        else:
            shutil.copytree(copy, index)
        return index, witness

    async def _converge(self, service: StoreService) -> None:
        """Both drives become equal, whatever they were."""
        async with asyncio.timeout(CONVERGED_S):
            while (await service.health()).state is not MirrorState.IN_SYNC:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        # Files that an unfinished commit left on one drive are dropped bit by bit otherwise.
        await asyncio.to_thread(service._chores.command, Store.sweep_orphans)

    async def _recover(self, assembly: dict[str, Any], cut: Cut, chance: random.Random) -> int:
        async with serving(assembly) as (service, engine):
            alerts = (await service.health()).alerts
            assert not any("lost" in alert.text for alert in alerts), alerts
            store = objects_over(engine, self.executor)
            objects = await _compare(store, self.recording.oracle, cut.look)
            if chance.random() < WRITE_AGAIN_SHARE:
                body = chance.randbytes(chance.choice((500, 200_000)))
                await store.objects.put(ALICE, BUCKET, "after", BytesBody(body))
                opened = await store.objects.open(ALICE, BUCKET, "after")
                assert await read_all(opened) == body
            self._converging = chance.random() < CONVERGE_SHARE
            if self._converging:
                await self._converge(service)
            return objects


async def _compare(store: ObjectStore, oracle: Oracle, look: int) -> int:
    """Every key holds something acceptable, and the listing says the same."""
    listing = await store.listing.objects(ALICE, BUCKET)
    listed = {entry.key: entry.size_bytes for entry in listing.entries}
    assert set(listed) <= set(oracle.attempts), "a key appeared that nobody wrote"
    for key in oracle.attempts:
        try:
            body = await read_all(await store.objects.open(ALICE, BUCKET, key))
        except S3Error as refusal:
            assert refusal.code == "NoSuchKey", refusal
            assert key not in listed, f"{key} is listed and cannot be read"
            found = ABSENT
        else:
            assert listed.get(key) == len(body), f"{key} is listed with another size"
            found = hashlib.sha256(body).hexdigest()
        assert found in oracle.acceptable(key, look), f"{key} is neither old nor new"
    return len(listed)
