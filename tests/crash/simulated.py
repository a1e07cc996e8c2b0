"""Simulated drives: a volatile cache over stable storage, power cuts, and faults on demand.

What it models, and so which faults the engine must survive on it:

- A write waits in the cache until its file is flushed (a durable file flushes itself). A power cut
  keeps any subset of the 512-byte sectors of the waiting writes.
- Creating, renaming and unlinking are journaled in order, as XFS and ext4 do: a power cut keeps
  some beginning of what was not flushed. A flushed directory flushes all that came before it.
- The cut strikes at the N-th operation of the whole machine, while it is under way: it may have
  taken effect wholly, partly or not at all.
- Operations fail on demand, once or from then on: EIO, ENOSPC, a deadline. Bits flip, writes are
  lost or land elsewhere, a drive lies about flushes, a whole drive goes back to an old state.

Everything random comes from one seeded generator, so a seed replays a run.
"""

from __future__ import annotations

import errno
import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from appliance.core.errors import DriveFault, DriveTimeout
from tests.crash.images import Content, Frozen, Image, NameChange, change_names
from tests.crash.simulated_ports import SeededEntropy, SerialLanes, SimulatedClock
from tests.crash.simulated_volume import (
    Inode,
    PowerCut,
    SimulatedFile,
    SimulatedVolume,
    parent,
)

__all__ = [
    "Inode",
    "Operation",
    "Power",
    "PowerCut",
    "SeededEntropy",
    "SerialLanes",
    "SimulatedClock",
    "SimulatedDisk",
    "SimulatedFile",
    "SimulatedVolume",
]


ROOMY_BYTES: Final = 1 << 40
"""A drive of this size is never full: nobody counts what is used of it."""


@dataclass(slots=True)
class Operation:
    """What a hook sees before it happens. ``number`` counts the drive's own operations."""

    number: int
    kind: str
    path: str
    offset: int = 0
    length: int = 0


@dataclass(slots=True)
class Power:
    """The supply all drives of a machine hang on. ``cut_at``: the operation it fails in."""

    cut_at: int = 0
    operations: int = 0
    is_on: bool = True
    disks: list[SimulatedDisk] = field(default_factory=list)
    observer: Callable[[SimulatedDisk, str, str], None] | None = None
    """Called while an operation that changes something is under way, with its drive, kind and path:
    what it does waits in the cache, and what came before is as durable as it will be."""

    def use(self) -> bool:
        """One more operation; False if the power goes while it is under way."""
        if not self.is_on:
            raise PowerCut
        self.operations += 1
        if self.operations == self.cut_at:
            self.is_on = False
        return self.is_on

    def cut(self) -> None:
        """Off, between operations."""
        self.is_on = False

    def restore(self, rng: random.Random) -> None:
        """On again: what was in the caches is lost but for what ``rng`` lets through."""
        for disk in self.disks:
            disk.lose_cache(rng)
        self.is_on = True
        self.operations = 0
        self.cut_at = 0


_Tree = dict[str, Inode | None]


class SimulatedDisk:
    """One drive. ``mount`` gives the volume the engine uses; a power cut or ``pull`` ends it."""

    def __init__(self, name: str, power: Power, *, capacity_bytes: int = ROOMY_BYTES) -> None:
        self.name = name
        self.power = power
        self.capacity_bytes = capacity_bytes
        self.operations = 0
        self.hook: Callable[[Operation], None] | None = None
        self.look_hook: Callable[[str, str], None] | None = None
        """Called with kind and path before what only looks and is no numbered operation."""
        self.lies_about_flushes = False
        self.lost_writes: set[int] = set()
        self.misdirected_writes: dict[int, int] = {}
        self.mounts = 0
        self.is_present = True
        self._live: _Tree = {"": None}
        self._stable: _Tree = {"": None}
        self._journal: list[tuple[str, str, str, Inode | None]] = []
        self.short_writes: set[int] = set()
        self.late_writes: set[int] = set()
        """Writes whose call does not come back: what they write waits in the cache."""
        power.disks.append(self)

    def mount(self) -> SimulatedVolume:
        """A fresh volume; earlier ones answer EIO from now on."""
        self.mounts += 1
        return SimulatedVolume(self, self.mounts)

    def pull(self) -> None:
        """Gone: every operation fails until ``insert``. What the cache held is kept or lost as at
        a power cut, when the drive is inserted."""
        self.is_present = False

    def insert(self, rng: random.Random) -> None:
        """Back again, needing a fresh mount."""
        self.is_present = True
        self.mounts += 1
        self.lose_cache(rng)

    def fail_at(
        self,
        number: int,
        code: int,
        *,
        kinds: frozenset[str] | None = None,
        persistent: bool = False,
    ) -> None:
        """The ``number``-th operation from now (of ``kinds``, if given) fails with this errno, and
        all later ones too if ``persistent``. ETIMEDOUT raises ``DriveTimeout``."""
        seen = 0

        def hook(operation: Operation) -> None:
            nonlocal seen
            if kinds is not None and operation.kind not in kinds:
                return
            seen += 1
            if seen == number or (persistent and seen > number):
                if code == errno.ETIMEDOUT:
                    raise DriveTimeout(self.name, operation.kind, code)
                raise DriveFault(self.name, operation.kind, code)

        self.hook = hook

    def flip(self, path: str, offset: int, bit: int = 0) -> None:
        """Rot: one bit on the medium and in what readers see."""
        inode = self._live[path]
        assert inode is not None, f"no file {path}"
        inode.put(offset, bytes([inode.stable.data[offset] ^ 1 << bit]))

    def overwrite(self, path: str, offset: int, data: bytes) -> None:
        """Put any bytes on the medium, whatever they mean."""
        inode = self._live[path]
        assert inode is not None, f"no file {path}"
        inode.put(offset, data)

    def contents(self) -> dict[str, bytes]:
        """The files as on stable storage."""
        return {
            path: inode.stable.data for path, inode in self._stable.items() if inode is not None
        }

    def digest(self) -> str:
        """A hash of everything on stable storage."""
        digest = hashlib.sha256()
        for path, inode in sorted(self._stable.items(), key=lambda item: item[0]):
            content = b"" if inode is None else inode.stable.data
            digest.update(b"%d:%s:%d:" % (inode is None, path.encode(), len(content)) + content)
        return digest.hexdigest()

    def image(self) -> Image:
        """Stable storage as it is, for ``restore_image``: an old state, a clone."""
        return {
            path: None if inode is None else inode.stable for path, inode in self._stable.items()
        }

    def restore_image(self, image: Mapping[str, Content | None]) -> None:
        """Become what ``image`` was. Mounts end."""
        self.mounts += 1
        self._stable = {
            path: None if content is None else Inode(content) for path, content in image.items()
        }
        self._live = dict(self._stable)
        self._journal.clear()

    def frozen(self) -> Frozen:
        """The drive as it is now, with all that a power cut may keep or lose."""
        journal = tuple(
            NameChange(kind, source, target, None if inode is None else inode.frozen())
            for kind, source, target, inode in self._journal
        )
        tree = {
            path: None if inode is None else inode.frozen() for path, inode in self._stable.items()
        }
        return Frozen(tree, journal)

    def lose_cache(self, rng: random.Random) -> None:
        """A power cut: keep a beginning of the journal, and parts of the waiting writes."""
        self.mounts += 1
        inodes = {id(i): i for t in (self._live, self._stable) for i in t.values() if i is not None}
        self._settle_journal(rng.randint(0, len(self._journal)))
        self._journal.clear()
        self._live = dict(self._stable)
        for inode in inodes.values():
            inode.lose_cache(rng)

    def used_bytes(self) -> int:
        return sum(len(inode.live) for inode in self._live.values() if inode is not None)

    def has_room(self, grown_bytes: int) -> bool:
        """Whether a file may grow by so much; one that does not grow always has its room."""
        if self.capacity_bytes >= ROOMY_BYTES:
            return True
        return self.used_bytes() + max(0, grown_bytes) <= self.capacity_bytes

    def begin(self, kind: str, path: str, offset: int = 0, length: int = 0) -> bool:
        """Every operation passes here first. False: do it, then the power goes."""
        self.operations += 1
        if not self.is_present:
            raise DriveFault(self.name, f"{kind} {path}", errno.EIO, "the drive is gone")
        if self.hook is not None:
            self.hook(Operation(self.operations, kind, path, offset, length))
        return self.power.use()

    def under_way(self, stays_on: bool, kind: str, path: str) -> None:
        """Every operation that changes something passes here when it has reached the cache."""
        if not stays_on:
            raise PowerCut
        if self.power.observer is not None:
            self.power.observer(self, kind, path)

    def write(self, inode: Inode, path: str, offset: int, data: bytes, *, durable: bool) -> None:
        stays_on = self.begin("write", path, offset, len(data))
        if not self.has_room(offset + len(data) - len(inode.live)):
            raise DriveFault(self.name, f"write {path}", errno.ENOSPC)
        if self.operations in self.lost_writes:
            return
        if self.operations in self.short_writes:
            inode.write(offset, data[: len(data) // 2])
            raise DriveFault(self.name, f"write {path}", errno.EIO, "a short write")
        if self.operations in self.late_writes:
            inode.write(offset, data)
            raise DriveTimeout(self.name, f"write {path}", errno.ETIMEDOUT)
        offset = self.misdirected_writes.get(self.operations, offset)
        inode.write(offset, data)
        self.under_way(stays_on, "write", path)
        if durable and not self.lies_about_flushes:
            inode.flush_range(offset, len(data))

    def change(self, kind: str, source: str, target: str, inode: Inode | None) -> None:
        """A change of names: seen at once, stable once flushed."""
        change_names(self._live, kind, source, target, inode)
        self._journal.append((kind, source, target, inode))

    def flush_names(self, directory: str) -> None:
        """Everything journaled up to the last change in this directory."""
        count = 0
        for number, (_, source, target, _) in enumerate(self._journal, 1):
            if directory in {parent(source), parent(target)}:
                count = number
        if not self.lies_about_flushes:
            self._settle_journal(count)

    def _settle_journal(self, count: int) -> None:
        for kind, source, target, inode in self._journal[:count]:
            change_names(self._stable, kind, source, target, inode)
        del self._journal[:count]

    @property
    def tree(self) -> _Tree:
        return self._live
