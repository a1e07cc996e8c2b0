"""Injections: faults that strike a drive, both drives or W at the N-th operation of a run.

Owns how each is put on a simulated drive. Two families: the drive says that it failed (EIO, full, a
short write, a call that does not come back), or it lies (a write is lost or lands elsewhere, a
flush does nothing), which only checksums and the other drive can find out.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from appliance.core.errors import DriveFault, DriveTimeout
from tests.crash.images import BLOCK_BYTES
from tests.crash.machine import DRIVES, WITNESS
from tests.crash.simulated import ROOMY_BYTES, Operation, SimulatedDisk
from tests.crash.world import World

STRIKES_MAX: Final = 60
"""A drive that fails for ever ends the run here: somebody switches the machine off."""
HANG_STRIKES: Final = 9
"""Calls that do not come back while both drives hang for a time."""


class SwitchedOff(BaseException):
    """Somebody lost patience with a machine that does not answer."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault. ``lies``: nobody is told. ``writes_only``: counts writes alone.
    ``looks``: strikes what only looks, too, once it has struck for good."""

    name: str
    strike: Callable[[SimulatedDisk, Operation, World], None]
    lies: bool = False
    writes_only: bool = False
    looks: bool = False


def _fail(disk: SimulatedDisk, operation: Operation, _world: World) -> None:
    raise DriveFault(disk.name, operation.kind, errno.EIO)


def _hang(disk: SimulatedDisk, operation: Operation, world: World) -> None:
    if operation.kind == "write" and world.rng.random() < 0.5:
        disk.late_writes.add(operation.number)  # the drive has it, but nobody is told
        return
    raise DriveTimeout(disk.name, operation.kind, errno.ETIMEDOUT)


def _fill_up(disk: SimulatedDisk, _operation: Operation, _world: World) -> None:
    disk.capacity_bytes = disk.used_bytes()


def _cut_short(disk: SimulatedDisk, operation: Operation, _world: World) -> None:
    disk.short_writes.add(operation.number)


def _lose(disk: SimulatedDisk, operation: Operation, _world: World) -> None:
    disk.lost_writes.add(operation.number)


def _misdirect(disk: SimulatedDisk, operation: Operation, world: World) -> None:
    inode = disk.tree.get(operation.path)
    size = 0 if inode is None else len(inode.live)
    places = [
        at
        for at in range(0, max(size - operation.length, 0) + 1, BLOCK_BYTES)
        if at != operation.offset
    ]
    if places:
        disk.misdirected_writes[operation.number] = world.rng.choice(places)
    else:
        disk.lost_writes.add(operation.number)


def _lie(disk: SimulatedDisk, _operation: Operation, _world: World) -> None:
    disk.lies_about_flushes = True


EIO: Final = Kind("EIO", _fail, looks=True)
HANG: Final = Kind("hang", _hang, looks=True)
NO_SPACE: Final = Kind("no space", _fill_up)
SHORT_WRITE: Final = Kind("short write", _cut_short, writes_only=True)
LOST_WRITE: Final = Kind("lost write", _lose, lies=True, writes_only=True)
MISDIRECTED_WRITE: Final = Kind("misdirected write", _misdirect, lies=True, writes_only=True)
LOST_FLUSHES: Final = Kind("lost flushes", _lie, lies=True)


class Where(Enum):
    """Whom a fault strikes."""

    DRIVE = "one drive"
    BOTH = "both drives"
    WITNESS = "W"


@dataclass(frozen=True, slots=True)
class Attack:
    """A kind of fault, whom it strikes, and whether it stays. ``label``: the fault class of the
    states it leads to."""

    kind: Kind
    where: Where
    persistent: bool
    label: str


ATTACKS: Final = (
    *(
        Attack(kind, Where.DRIVE, stays, f"{kind.name}, {'persistent' if stays else 'once'}")
        for kind in (EIO, HANG, NO_SPACE, SHORT_WRITE)
        for stays in (False, True)
    ),
    *(
        Attack(kind, Where.DRIVE, False, kind.name)
        for kind in (LOST_WRITE, MISDIRECTED_WRITE, LOST_FLUSHES)
    ),
    *(Attack(HANG, Where.BOTH, stays, "both drives hang") for stays in (False, True)),
    Attack(NO_SPACE, Where.BOTH, True, "both drives full"),
    *(Attack(EIO, Where.WITNESS, stays, "witness fails") for stays in (False, True)),
    Attack(HANG, Where.WITNESS, True, "witness hangs"),
    Attack(NO_SPACE, Where.WITNESS, True, "witness full"),
    *(Attack(kind, Where.WITNESS, False, "witness lies") for kind in (LOST_WRITE, LOST_FLUSHES)),
)


class Injection:
    """One attack at the ``number``-th operation of a drive from ``install`` on; 0: never, only
    counting how many there are."""

    def __init__(self, attack: Attack, drive: str, number: int) -> None:
        self.attack: Final = attack
        self.drive: Final = WITNESS if attack.where is Where.WITNESS else drive
        self.number: Final = number
        self.seen = 0
        """Operations that could have been struck."""
        self._strikes = 0

    def install(self, world: World) -> None:
        """From now on."""
        for name in self._struck():
            disk = disk_of(world, name)
            disk.hook = self._hook(disk, world)
            if self.attack.kind.looks:
                disk.look_hook = self._look_hook(disk, world)

    def _struck(self) -> tuple[str, ...]:
        return DRIVES if self.attack.where is Where.BOTH else (self.drive,)

    def _hook(self, disk: SimulatedDisk, world: World) -> Callable[[Operation], None]:
        def hook(operation: Operation) -> None:
            if self.attack.kind.writes_only and operation.kind != "write":
                return
            self.seen += 1
            if self._is_due(world):
                self.attack.kind.strike(disk, operation, world)

        return hook

    def _look_hook(self, disk: SimulatedDisk, world: World) -> Callable[[str, str], None]:
        def hook(kind: str, path: str) -> None:
            if world.injected and self._is_due(world):
                self.attack.kind.strike(disk, Operation(0, kind, path), world)

        return hook

    def _is_due(self, world: World) -> bool:
        if self.number == 0 or self.seen < self.number or not self._goes_on():
            return False
        if not world.injected:
            world.injected = True
            world.is_survivable = self._is_survivable(world)
            world.recorder.start()
            world.recorder.mark("the fault strikes")
        self._strikes += 1
        if self._strikes > STRIKES_MAX:
            raise SwitchedOff
        return True

    def _is_survivable(self, world: World) -> bool:
        """Whether the mirror must go on: not without the only drive that is in sync."""
        if self.attack.where is not Where.DRIVE:
            return True
        return bool(world.in_sync() - {self.drive})

    def _goes_on(self) -> bool:
        if self.attack.persistent:
            return True
        if self.attack.where is Where.BOTH:
            return self._strikes < HANG_STRIKES
        return self.seen == self.number

    def relent(self, world: World) -> None:
        """Called between deeds: what struck once is over."""
        if world.injected and not self.attack.persistent:
            for name in self._struck():
                disk_of(world, name).capacity_bytes = ROOMY_BYTES


def disk_of(world: World, drive: str) -> SimulatedDisk:
    """A drive's, or W's."""
    return world.machine.witness if drive == WITNESS else world.machine.disks[drive]
