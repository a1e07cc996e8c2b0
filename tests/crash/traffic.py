"""Objects written to a mirror on recorded drives, and what was promised about them when.

Owns the oracle: for every key what was attempted and acknowledged, each with the number of the
*look* at both recordings taken at that moment. A look is one instant: the second recording's
length is taken between two equal ones of the first. Looks are numbered in the order they were
taken, so "acknowledged before look N" and "recorded at look N" speak of the same moment, and any
look is a moment at which the power of both drives may be cut at once.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import random
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple
from zlib import crc32

from appliance.engine.interface import Batch, Committed, Partition, Put
from appliance.engine.mirror.blob import blob_path
from appliance.engine.mirror.staging import StagedBlob
from appliance.objects.model import CompletedPart
from appliance.objects.store import ObjectStore
from tests.crash.recorded_drive import RecordedDrive
from tests.unit.objects.world import ALICE, BytesBody

BUCKET: Final = "recorded"
WORKERS: Final = 5
KEYS_PER_WORKER: Final = 7
ABSENT: Final = ""
LOOK_EVERY_S: Final = 0.001
PART_BYTES: Final = 90_000
WITNESS_BYTES: Final = 8192


class Look(NamedTuple):
    """The lengths of both recordings, and the witness, at one instant."""

    positions: tuple[int, int]
    witness: bytes


class Looks:
    """Takes looks, from any thread, and now and then by itself."""

    def __init__(self, drives: Sequence[RecordedDrive], witness: Path) -> None:
        self._first, self._second = drives
        self._witness = os.open(witness, os.O_RDONLY)
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._watching = threading.Thread(target=self._watch, name="looks", daemon=True)
        self.all: Final[list[Look]] = []

    def take(self) -> int:
        """The number of a look taken now."""
        with self._lock:
            while True:
                witness = self._read_witness()
                before = self._first.position()
                second = self._second.position()
                if before == self._first.position() and witness == self._read_witness():
                    break
            self.all.append(Look((before, second), witness))
            return len(self.all) - 1

    def _read_witness(self) -> bytes:
        return os.pread(self._witness, WITNESS_BYTES, 0)

    def _watch(self) -> None:
        while not self._ending.wait(LOOK_EVERY_S):
            self.take()

    def __enter__(self) -> Looks:
        self._watching.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._watching.join()
        os.close(self._witness)


@dataclass(slots=True)
class Attempt:
    """One change of one key. ``digest``: of the body, or ``ABSENT``. Looks by number."""

    digest: str
    began: int
    acknowledged: int | None = None


@dataclass(frozen=True, slots=True)
class Extent:
    """A range of a drive and the CRC-32 of what must stand there."""

    offset: int
    size_bytes: int
    crc: int


@dataclass(frozen=True, slots=True)
class Promise:
    """One answered commit: its batch's sequence, and where its blobs lie on each drive."""

    sequence: int
    blobs: Sequence[Sequence[Extent]]
    began: int
    answered: int


class WitnessedEngine:
    """The engine, with a note of every commit it answered. Everything else passes through."""

    def __init__(self, engine: Any, drives: Sequence[RecordedDrive], looks: Looks) -> None:
        self._engine = engine
        self._drives = drives
        self._looks = looks
        self.promises: Final[list[Promise]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def commit(self, partition: Partition, batch: Batch) -> Committed:
        """See ``Engine``."""
        began = self._looks.take()
        outcome: Committed = await self._engine.commit(partition, batch)
        answered = self._looks.take()
        staged = [
            one.blob.blob_id
            for one in batch.operations
            if isinstance(one, Put) and isinstance(one.blob, StagedBlob)
        ]
        # Beside the loop, which goes on while a drive hangs.
        blobs = [await asyncio.to_thread(self._extents, blob_id) for blob_id in staged]
        self.promises.append(
            Promise(
                outcome.version >> 16,
                [[extent for each in blobs for extent in each[side]] for side in (0, 1)],
                began,
                answered,
            )
        )
        return outcome

    def _extents(self, blob_id: bytes) -> list[list[Extent]]:
        """None on a drive that does not have it: it is not in sync."""
        files = [drive.root / blob_path(blob_id) for drive in self._drives]
        return [list(extents(file)) if file.exists() else [] for file in files]


@dataclass(slots=True)
class Oracle:
    """What each key may hold."""

    attempts: dict[str, list[Attempt]] = field(default_factory=dict)

    def acceptable(self, key: str, look: int) -> set[str]:
        """Digests that may be found after a power cut at this look: the last one acknowledged
        before it, and all that were begun after that one and before the cut."""
        allowed = {ABSENT}
        for attempt in self.attempts.get(key, ()):
            if attempt.began > look:
                break
            if attempt.acknowledged is not None and attempt.acknowledged <= look:
                allowed = set()
            allowed.add(attempt.digest)
        return allowed

    @property
    def acknowledged(self) -> int:
        """How many changes were acknowledged at all."""
        return sum(a.acknowledged is not None for each in self.attempts.values() for a in each)


class Traffic:
    """A few clients, each with keys of its own, so that the order of a key's changes is known."""

    def __init__(self, store: ObjectStore, looks: Looks, seed: int) -> None:
        self._store = store
        self._looks = looks
        self._seed = seed
        self.oracle: Final = Oracle()
        self.stopping = False

    async def run(self, operations: int) -> None:
        """``operations`` changes altogether, or until ``stopping``."""
        async with asyncio.TaskGroup() as group:
            for worker in range(WORKERS):
                group.create_task(self._work(worker, operations // WORKERS))

    async def _work(self, worker: int, operations: int) -> None:
        chance = random.Random(f"{self._seed}-{worker}-{len(self.oracle.attempts)}")
        for _ in range(operations):
            if self.stopping:
                return
            key = f"{worker}/{chance.randrange(KEYS_PER_WORKER)}"
            kind = chance.choices(("small", "large", "parts", "delete"), (50, 18, 12, 20))[0]
            if kind == "delete":
                await self._attempt(key, b"", self._delete)
            elif kind == "parts":
                size = PART_BYTES + chance.randrange(PART_BYTES)
                await self._attempt(key, chance.randbytes(size), self._upload)
            else:
                size = chance.randrange(1, 30_000 if kind == "small" else 700_000)
                await self._attempt(key, chance.randbytes(size), self._put)

    async def _attempt(self, key: str, body: bytes, change: Callable[[str, bytes], Any]) -> None:
        digest = hashlib.sha256(body).hexdigest() if body else ABSENT
        attempt = Attempt(digest, self._looks.take())
        self.oracle.attempts.setdefault(key, []).append(attempt)
        await change(key, body)
        attempt.acknowledged = self._looks.take()

    async def _put(self, key: str, body: bytes) -> None:
        await self._store.objects.put(ALICE, BUCKET, key, BytesBody(body))

    async def _delete(self, key: str, _body: bytes) -> None:
        await self._store.objects.delete(ALICE, BUCKET, key)

    async def _upload(self, key: str, body: bytes) -> None:
        uploads = self._store.uploads
        upload = await uploads.create(ALICE, BUCKET, key)
        done = []
        for number, start in enumerate((0, PART_BYTES), 1):
            piece = body[start : start + PART_BYTES] if number == 1 else body[start:]
            part = await uploads.put_part(
                ALICE, BUCKET, key, upload.upload_id, number, BytesBody(piece)
            )
            done.append(CompletedPart(number, part.etag))
        await uploads.complete(ALICE, BUCKET, key, upload.upload_id, done)


# FS_IOC_FIEMAP of linux/fiemap.h: start u64, length u64, flags u32, mapped u32, count u32, unused
# u32; then for each extent logical u64, physical u64, length u64, 16 bytes, flags u32, 12 bytes.
_FIEMAP: Final = 0xC020660B
_MAP: Final = struct.Struct("<QQIIII")
_EXTENT: Final = struct.Struct("<QQQ16xI12x")
_EXTENTS_MAX: Final = 64
_UNKNOWN_OR_DELAYED: Final = 0x2 | 0x4


def extents(path: Path) -> Iterator[Extent]:
    """Where a file lies on its drive, and what is in it now. Asks for no write-back."""
    content = path.read_bytes()
    question = bytearray(_MAP.size + _EXTENTS_MAX * _EXTENT.size)
    _MAP.pack_into(question, 0, 0, len(content), 0, 0, _EXTENTS_MAX, 0)
    with path.open("rb") as file:
        fcntl.ioctl(file.fileno(), _FIEMAP, question)
    mapped = _MAP.unpack_from(question)[3]
    assert 0 < mapped < _EXTENTS_MAX, f"{path}: {mapped} extents"
    covered = 0
    for number in range(mapped):
        at = _MAP.size + number * _EXTENT.size
        logical, physical, length, flags = _EXTENT.unpack_from(question, at)
        assert logical == covered and not flags & _UNKNOWN_OR_DELAYED, f"{path} is not there yet"
        piece = content[logical : logical + length]
        yield Extent(physical, len(piece), crc32(piece))
        covered += length
    assert covered >= len(content), f"{path} has a hole"
