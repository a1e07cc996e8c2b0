"""A bay of pretended drives: they come, go, die and are doubled at a word; places are real
directories, so that passports are written and read for real."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from appliance.control.disks.bay import Mounted
from appliance.core.drives import Drive, DriveKind, Signature, label_of
from appliance.core.errors import DriveFault
from appliance.core.ports import Space


@dataclass(slots=True)
class Slot:
    """One device. ``content`` is the drive's file system, which moves with the drive."""

    drive: Drive
    content: Path
    dead: bool = False
    held: bool = False


@dataclass(slots=True)
class FakeBay:
    """Fulfils ``Bay``."""

    root: Path
    slots: dict[str, Slot] = field(default_factory=dict)
    places: dict[str, Mounted] = field(default_factory=dict)
    callbacks: list[Callable[[], None]] = field(default_factory=list)
    formatted: list[str] = field(default_factory=list)
    failing_step: str = ""
    on_mount: Callable[[], None] = lambda: None
    closed: bool = False
    mistakes: int = 0
    spaces: dict[str, Space] = field(default_factory=dict)
    trimmed: list[tuple[str, int, int]] = field(default_factory=list)
    not_to_be_told: set[str] = field(default_factory=set)

    def attach(
        self, serial: str, node: str, content: Path | None = None, size_bytes: int = 10**12
    ) -> Slot:
        path = content or self.root / "content" / serial
        path.mkdir(parents=True, exist_ok=True)
        slot = Slot(Drive(f"id-{serial}", DriveKind.DISK, node, size_bytes, serial=serial), path)
        marker = path / "drive-id"
        if marker.exists():
            slot.drive = _ours(slot.drive, marker.read_text())
        self.slots[node] = slot
        self.ring()
        return slot

    def detach(self, node: str) -> Slot:
        slot = self.slots.pop(node)
        self.ring()
        return slot

    def ring(self) -> None:
        for callback in self.callbacks:
            callback()

    def scan(self, *, fresh: bool = False) -> list[Drive]:
        if self.mistakes:
            self.mistakes -= 1
            raise ZeroDivisionError
        own = {place.node: place for place in self.places.values()}
        found = []
        for node, slot in sorted(self.slots.items()):
            place = own.get(node)
            busy = slot.held or place is not None
            mounts = (str(place.path),) if place else slot.drive.mounts
            found.append(dataclasses.replace(slot.drive, busy=busy, mounts=mounts))
        return found

    def format(self, drive: Drive, drive_id: str, step: Callable[[str], None]) -> None:
        for text in ("wiping what is on it", "making the file system"):
            step(text)
            if text == self.failing_step:
                raise DriveFault(drive.identity, "format", 5, "it would not")
        slot = self.slots[drive.node]
        shutil.rmtree(slot.content)
        slot.content.mkdir()
        (slot.content / "drive-id").write_text(drive_id)
        slot.drive = _ours(slot.drive, drive_id)
        self.formatted.append(drive.node)

    def mount(self, drive: Drive) -> Path:
        slot = self.slots[drive.node]
        if slot.dead:
            raise DriveFault(drive.identity, "mount", 5)
        self.places[drive.drive_id] = Mounted(drive.drive_id, drive.node, slot.content)
        self.on_mount()
        return slot.content

    def unmount(self, drive_id: str) -> None:
        self.places.pop(drive_id, None)

    def mounted(self) -> Mapping[str, Mounted]:
        return dict(self.places)

    def space(self, drive_id: str) -> Space:
        return self.spaces.get(drive_id, Space(10**12, 10**12))

    def pieces(self, drive_id: str) -> Sequence[tuple[int, int]]:
        return [(0, 10), (10, 5)]

    def trim(self, drive_id: str, start: int, length: int) -> int | None:
        if drive_id in self.not_to_be_told:
            return None
        self.trimmed.append((drive_id, start, length))
        return length

    def answers(self, drive: Drive) -> bool:
        return not self.slots[drive.node].dead

    def watch(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    def close(self) -> None:
        self.closed = True


def _ours(drive: Drive, drive_id: str) -> Drive:
    signature = Signature("xfs", label_of(drive_id), drive_id)
    return dataclasses.replace(drive, drive_id=drive_id, signatures=(signature,), partitions=())
