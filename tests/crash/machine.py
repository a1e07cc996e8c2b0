"""A whole simulated machine: two drives, a witness, an index directory, the real store on them.

Owns the rigging of one run: a seed decides all randomness, so a seed and a cut replay it. The index
lies in a real directory, because SQLite does its own I/O; after a power cut it is kept, lost, or
put back to an older copy, as the seed says.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from appliance.core.errors import DriveFault
from appliance.core.ports import Lanes, Volume
from appliance.engine.mirror.assembled import Assembly, Orders, Ports
from appliance.engine.mirror.blob import encode_chunks, file_bytes, staged_path
from appliance.engine.mirror.create import NewDrive, NewMirrorPlan, create_mirror
from appliance.engine.mirror.index import IndexReader
from appliance.engine.mirror.messages import Staged
from appliance.engine.mirror.reader import DriveReader, MirrorReader
from appliance.engine.mirror.room import Spawn, at_once
from appliance.engine.mirror.state import Callbacks, StoreSettings
from appliance.engine.mirror.store import Store
from appliance.system.files import DirectoryVolume
from tests.crash.images import Image
from tests.crash.simulated import (
    ROOMY_BYTES,
    Power,
    PowerCut,
    SeededEntropy,
    SerialLanes,
    SimulatedClock,
    SimulatedDisk,
)

MIRROR_ID: Final = "c3" * 16
SEGMENT_BYTES: Final = 256 * 1024
DRIVES: Final = ("drive-a", "drive-b")
WITNESS: Final = "witness"
GATEWAY: Final = "gateway-1"
SETTINGS: Final = StoreSettings(
    reserve_bytes=0,
    batch_target_bytes=64 * 1024,
    segments_ahead=1,
    release_grace_s=0.0,
    recycle_grace_s=0.0,
    missing_members_wait_s=0.0,
    crash_limit=0,
)


def scratch_directory() -> Path:
    """In memory where the system has such a place: a sweep makes thousands of small databases."""
    memory = Path("/dev/shm")
    place = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="crash-", dir=place))


class Machine:
    """One machine, from its making on."""

    def __init__(
        self, seed: int | str, directory: Path, *, segment_size_bytes: int = SEGMENT_BYTES
    ) -> None:
        self._rig(seed, directory, SimulatedClock())
        create_mirror(
            NewMirrorPlan(
                MIRROR_ID,
                [NewDrive(name, disk.mount()) for name, disk in self.disks.items()],
                self._index_volume(),
                str(self.index_directory),
                self.witness.mount(),
                segment_size_bytes=segment_size_bytes,
            ),
            clock=self.clock,
            entropy=self.entropy,
        )

    @classmethod
    def holding(
        cls, seed: int | str, directory: Path, images: Mapping[str, Image], clock: SimulatedClock
    ) -> Machine:
        """A machine whose drives and witness, by name, hold these images; a name that is missing
        keeps a blank one. Its index directory is as it lies there."""
        made = cls.__new__(cls)
        made._rig(seed, directory, clock)
        for name, image in images.items():
            disk = made.witness if name == WITNESS else made.disks[name]
            disk.restore_image(image)
        return made

    def _rig(self, seed: int | str, directory: Path, clock: SimulatedClock) -> None:
        self.rng = random.Random(seed)
        self.power = Power()
        self.disks = {name: SimulatedDisk(name, self.power) for name in DRIVES}
        self.witness = SimulatedDisk(WITNESS, self.power)
        self.clock = clock
        self.entropy = SeededEntropy(self.rng)
        self.alerts: list[str] = []
        self.suspects: list[tuple[str, bytes]] = []
        self.index_directory = directory / "index"
        self._older_index = directory / "older"
        self.index_directory.mkdir(parents=True, exist_ok=True)
        self.store: Store | None = None
        self._index_volumes: list[DirectoryVolume] = []

    # -- the store -----------------------------------------------------------------------------

    def open(
        self,
        *present: str,
        orders: Orders | None = None,
        witness: bool = True,
        lanes: Lanes | None = None,
        spawn: Spawn = at_once,
        settings: StoreSettings = SETTINGS,
        beside: Sequence[Volume] = (),
        replaces: Mapping[str, str] | None = None,
    ) -> Store:
        """Open the store on fresh mounts of the present drives (default: the first two), and on
        what else is put ``beside`` them."""
        assembly = Assembly(
            MIRROR_ID,
            [*(self.disks[name].mount() for name in present or DRIVES), *beside],
            self._index_volume(),
            str(self.index_directory),
            self.witness.mount() if witness else None,
            replaces=replaces or {},
        )
        self.store = Store.open(
            assembly,
            Ports(self.clock, self.entropy, lanes or SerialLanes(self.rng)),
            settings,
            callbacks=Callbacks(alert=self.alerts.append),
            spawn=spawn,
            orders=orders or Orders(waited=True),
            sweep=collect,
        )
        return self.store

    def add_disk(self, name: str, *, capacity_bytes: int = ROOMY_BYTES) -> SimulatedDisk:
        """One more drive in the machine, empty."""
        self.disks[name] = SimulatedDisk(name, self.power, capacity_bytes=capacity_bytes)
        return self.disks[name]

    def _index_volume(self) -> DirectoryVolume:
        self._index_volumes.append(DirectoryVolume(self.index_directory, "index"))
        return self._index_volumes[-1]

    def drop_store(self) -> None:
        """The process is gone: nothing is closed in good order but the database's handles."""
        store, self.store = self.store, None
        if store is not None:
            store._state.index.close()
        for volume in self._index_volumes:
            volume.close()
        self._index_volumes.clear()

    def restore_power(self) -> None:
        """Power is back: caches are lost, and the index is kept, lost or older."""
        self.drop_store()
        self.power.restore(self.rng)
        fate = self.rng.randrange(4)
        if fate == 0:
            shutil.rmtree(self.index_directory)
            self.index_directory.mkdir()
        elif fate == 1 and self._older_index.exists():
            shutil.rmtree(self.index_directory)
            shutil.copytree(self._older_index, self.index_directory)

    def remember_index(self) -> None:
        """Keep a copy of the index as it is, for a machine that comes back with an older one."""
        store = self.store
        assert store is not None, "it is open"
        store.checkpoint()
        shutil.rmtree(self._older_index, ignore_errors=True)
        self._older_index.mkdir()
        name = Path(store._state.index.path).name
        store._state.index.copy_to(str(self._older_index / name))

    # -- a gateway -----------------------------------------------------------------------------

    def stage(self, data: bytes) -> Staged:
        """Stage a large blob on every in-sync drive as a gateway does."""
        store = self.store
        assert store is not None, "it is open"
        blob_id = self.rng.randbytes(16)
        stamps = {}
        for drive, member in store._state.members.items():
            try:
                self._stage_on(member.volume, blob_id, data)
            except DriveFault:
                continue
            stamps[drive] = (member.generation, member.generation)
        return Staged(blob_id, len(data), GATEWAY, stamps)

    def _stage_on(self, volume: Volume, blob_id: bytes, data: bytes) -> None:
        volume.make_directory(f"staging/{GATEWAY}")
        file = volume.open(staged_path(GATEWAY, blob_id), write=True, create=True)
        file.allocate(file_bytes(len(data)))
        file.write_at(0, encode_chunks(blob_id, 0, data))
        file.flush()

    @contextmanager
    def reader(self, *drives: str) -> Iterator[MirrorReader]:
        """A reader over some drives' copies (default: all in sync); suspects go to the alerts."""
        store = self.store
        assert store is not None, "it is open"
        path = store._state.index.path
        reader = MirrorReader(
            lambda: IndexReader(path),
            lambda drive, place, why: self.suspects.append((drive, place)),
        )
        self.suspects = []
        volumes = store.members
        reader.use(
            {
                drive: DriveReader(drive, volumes[drive], bytes.fromhex(MIRROR_ID))
                for drive in drives or volumes
            }
        )
        yield reader
        reader.close()


def collect(volumes: Sequence[Volume], directory: str) -> int:
    """The ``Sweep`` of a machine whose gateways died with it."""
    count = 0
    for volume in volumes:
        path = f"staging/{directory}"
        if volume.stat(path) is None:
            continue
        for name in volume.names(path):
            volume.unlink(f"{path}/{name}")
            count += 1
    return count


__all__ = ["DRIVES", "Machine", "PowerCut", "collect", "scratch_directory"]
