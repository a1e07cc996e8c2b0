"""One recording: two real drives under the real engine and the object layer, a load, its oracle.

Owns everything that runs while it is made. What is left is files: pristine images, write logs,
copies of the index, and in memory the oracle, the promises and the looks.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from appliance.engine.interface import Engine
from appliance.engine.mirror.launch import CLOCK, ENTROPY, DrivePath, local_engine, make_mirror
from appliance.engine.mirror.service import StoreService
from appliance.engine.mirror.state import StoreSettings
from appliance.objects.store import ObjectStore
from tests.crash.recorded_drive import RecordedDrive
from tests.crash.traffic import BUCKET, Look, Looks, Oracle, Promise, Traffic, WitnessedEngine
from tests.unit.objects.world import ALICE, SMALL_LIMITS, FakeKeys

MIRROR_ID: Final = "7b" * 16
NAMES: Final = ("drive-a", "drive-b")
SEGMENT_BYTES: Final = 1024 * 1024
SERVING_S: Final = 30.0
SETTINGS: Final = StoreSettings(
    inline_limit_bytes=32 * 1024,
    batch_target_bytes=256 * 1024,
    reserve_bytes=0,
    segments_ahead=1,
    release_grace_s=0.0,
    recycle_grace_s=0.0,
    checkpoint_every_bytes=2 * 1024 * 1024,
    missing_members_wait_s=0.0,
)


@dataclass(frozen=True, slots=True)
class Recording:
    """What a run left behind."""

    drives: Sequence[RecordedDrive]
    oracle: Oracle
    promises: Sequence[Promise]
    looks: Sequence[Look]
    began: int
    """The first look at which the bucket was there."""
    indexes: Sequence[Path]
    """Copies of the index's directory, from the beginning and from the end."""
    stalls: Sequence[Stall]


@dataclass(frozen=True, slots=True)
class Stall:
    """A time in which one drive did nothing: the first look in it, and the last."""

    first: int
    last: int


@dataclass(slots=True)
class Run:
    """A recording while it is made."""

    drives: Sequence[RecordedDrive]
    service: StoreService
    traffic: Traffic
    looks: Looks
    assembly: dict[str, Any]
    stalls: list[Stall]

    async def stall(self, side: int, hold_s: float) -> None:
        """Let one drive hang for a moment."""
        drive = self.drives[side]
        await asyncio.to_thread(drive.stall)
        first = self.looks.take()
        await asyncio.sleep(hold_s)
        self.stalls.append(Stall(first, self.looks.take()))
        drive.resume()

    async def take_away(self, side: int) -> None:
        """Control says that a drive is gone."""
        gone = NAMES[side]
        members = [each for each in self.assembly["members"] if each["drive"] != gone]
        self.service.assembly_changed({**self.assembly, "members": members})
        await self._until(lambda found: sum(m.in_sync for m in found.members) == 1)

    async def give_back(self, side: int, *, both: bool) -> None:
        """The drive is there again, on a mount that counts as new; returns when it is in sync.
        ``both``: the other one is newly mounted too, so that the store loses its last drive."""
        for member in self.assembly["members"]:
            if both or member["drive"] == NAMES[side]:
                member["mount"] = member.get("mount", 0) + 1
        self.service.assembly_changed(self.assembly)
        await self._until(lambda found: sum(m.in_sync for m in found.members) == 2)

    async def _until(self, condition: Callable[[Any], bool]) -> None:
        async with asyncio.timeout(SERVING_S):
            while not condition(await self.service.health()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


Script = Callable[[Run], Awaitable[None]]


def record(folder: Path, seed: int, script: Script) -> Recording:
    """Run ``script`` on two fresh recorded drives. Raises whatever it raises."""
    (folder / "witness").mkdir()
    with ExitStack() as stack:
        drives = [stack.enter_context(RecordedDrive(folder, name)) for name in ("a", "b")]
        assembly = _lay_out(folder, drives)
        looks = stack.enter_context(Looks(drives, folder / "witness" / "w"))
        return asyncio.run(_run(folder, seed, drives, assembly, looks, script))


def _lay_out(folder: Path, drives: Sequence[RecordedDrive]) -> dict[str, Any]:
    paths = [DrivePath(name, drive.root, name) for name, drive in zip(NAMES, drives, strict=True)]
    make_mirror(
        MIRROR_ID,
        paths,
        index_directory=folder / "index",
        witness_file=folder / "witness" / "w",
        segment_size_bytes=SEGMENT_BYTES,
    )
    return assembly_of([drive.root for drive in drives], folder / "index", folder / "witness" / "w")


def assembly_of(roots: Sequence[Path], index: Path, witness: Path) -> dict[str, Any]:
    """Control's message about drives mounted there."""
    return {
        "mirror": "m0",
        "members": [
            {"drive": name, "path": str(root), "serial": name}
            for name, root in zip(NAMES, roots, strict=True)
        ],
        "index_directory": str(index),
        "witness_file": str(witness),
    }


@asynccontextmanager
async def serving(assembly: dict[str, Any]) -> AsyncIterator[tuple[StoreService, Engine]]:
    """The real store and client in this process, serving. A bug in the store is raised here."""
    bugs: list[BaseException] = []
    service = StoreService(clock=CLOCK, entropy=ENTROPY, settings=SETTINGS, on_bug=bugs.append)
    service.start(assembly)
    engine = await local_engine(service)
    try:
        await engine.ready(SERVING_S)
        yield service, engine
    finally:
        await engine.close()
        await service.close()
        if bugs:
            raise bugs[0]


def objects_over(engine: Any, executor: ThreadPoolExecutor) -> ObjectStore:
    """The object layer on an engine."""
    return ObjectStore(engine, FakeKeys(), CLOCK, ENTROPY, SMALL_LIMITS, executor)


async def _run(
    folder: Path,
    seed: int,
    drives: Sequence[RecordedDrive],
    assembly: dict[str, Any],
    looks: Looks,
    script: Script,
) -> Recording:
    with ThreadPoolExecutor(2) as executor:
        async with serving(assembly) as (service, engine):
            witnessed = WitnessedEngine(engine, drives, looks)
            store = objects_over(witnessed, executor)
            await store.buckets.create(ALICE, BUCKET)
            began = looks.take()
            early = _copy_index(folder, "early")
            traffic = Traffic(store, looks, seed)
            run = Run(drives, service, traffic, looks, assembly, [])
            await script(run)
            late = _copy_index(folder, "late")
    oracle = traffic.oracle
    indexes = [early, late]
    return Recording(drives, oracle, witnessed.promises, looks.all, began, indexes, run.stalls)


def _copy_index(folder: Path, name: str) -> Path:
    """As it lies there, its write-ahead log included: what a crash of the machine may leave."""
    return Path(shutil.copytree(folder / "index", folder / f"index-{name}"))
