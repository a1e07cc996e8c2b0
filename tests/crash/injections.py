"""Injections: faults that strike one drive at its N-th operation while the store runs.

Owns how each is put on a simulated drive. Two families: the drive says that it failed (EIO, full, a
short write, a call that does not come back), or it lies (a write is lost or lands elsewhere, a
flush does nothing), which only checksums and the other drive can find out.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from appliance.core.errors import DriveFault, DriveTimeout
from tests.crash.images import BLOCK_BYTES
from tests.crash.machine import WITNESS
from tests.crash.simulated import ROOMY_BYTES, Operation, SimulatedDisk
from tests.crash.world import World

STRIKES_MAX: Final = 60
"""A drive that fails for ever ends the run here: somebody switches the machine off."""


class SwitchedOff(BaseException):
    """Somebody lost patience with a machine that does not answer."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault. ``lies``: nobody is told. ``writes_only``: counts writes alone."""

    name: str
    strike: Callable[[SimulatedDisk, Operation, World], None]
    lies: bool = False
    writes_only: bool = False
    may_persist: bool = True


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


KINDS: Final = (
    Kind("EIO", _fail),
    Kind("hang", _hang),
    Kind("no space", _fill_up),
    Kind("short write", _cut_short, writes_only=True),
    Kind("lost write", _lose, lies=True, writes_only=True, may_persist=False),
    Kind("misdirected write", _misdirect, lies=True, writes_only=True, may_persist=False),
    Kind("lost flushes", _lie, lies=True, may_persist=False),
)


@dataclass(frozen=True, slots=True)
class Injection:
    """One fault on one drive (or on W), at its ``number``-th operation from now on."""

    kind: Kind
    drive: str
    number: int
    persistent: bool

    @property
    def label(self) -> str:
        """The fault class of the states it leads to."""
        if self.drive == WITNESS:
            return "witness fails"
        if not self.kind.may_persist:
            return self.kind.name
        return f"{self.kind.name}, {'persistent' if self.persistent else 'once'}"

    def install(self, world: World) -> None:
        """From now on."""
        disk = disk_of(world, self.drive)
        seen = strikes = 0

        def hook(operation: Operation) -> None:
            nonlocal seen, strikes
            if self.kind.writes_only and operation.kind != "write":
                return
            seen += 1
            if seen == self.number or (self.persistent and seen > self.number):
                world.injected = True
                strikes += 1
                if strikes > STRIKES_MAX:
                    raise SwitchedOff
                self.kind.strike(disk, operation, world)

        disk.hook = hook

    def relent(self, world: World) -> None:
        """Called between deeds: what struck once is over."""
        if world.injected and not self.persistent:
            disk_of(world, self.drive).capacity_bytes = ROOMY_BYTES


def disk_of(world: World, drive: str) -> SimulatedDisk:
    """A drive's, or W's."""
    return world.machine.witness if drive == WITNESS else world.machine.disks[drive]


def count_operations(world: World, drive: str, *, writes_only: bool) -> Callable[[], int]:
    """Counts from now on; call the result for how many there were."""
    seen = 0

    def hook(operation: Operation) -> None:
        nonlocal seen
        if operation.kind == "write" or not writes_only:
            seen += 1

    disk_of(world, drive).hook = hook
    return lambda: seen
