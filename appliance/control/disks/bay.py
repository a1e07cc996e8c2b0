"""The seam between the disk manager and whatever holds drives.

Two fulfil it: ``BlockBay`` (disks and loop devices, found through udev) and ``DirectoryBay``
(directories, in development). Everything but ``watch`` blocks on devices and is called from worker
threads; nothing here decides whether a drive may be claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from appliance.core.drives import Drive
from appliance.core.ports import Space


@dataclass(frozen=True, slots=True)
class Mounted:
    """One of our drives in its private place. ``node`` is where its bytes come from."""

    drive_id: str
    node: str
    path: Path


class Bay(Protocol):
    """Where drives are. Methods raise ``DriveFault`` and ``Unreachable``."""

    def scan(self, *, fresh: bool = False) -> list[Drive]:
        """Every drive there is now, ordered by node. ``fresh``: nothing remembered is trusted."""
        ...

    def format(self, drive: Drive, drive_id: str, step: Callable[[str], None]) -> None:
        """Destroy what is on the drive and make it ours and empty. Not idempotent: it wipes again.
        ``step`` is told what is being done."""
        ...

    def mount(self, drive: Drive) -> Path:
        """A fresh mount of a drive of ours, readable by nobody who has no business there."""
        ...

    def unmount(self, drive_id: str) -> None:
        """Take the drive's place away at once, also when the device is dead. Idempotent."""
        ...

    def mounted(self) -> Mapping[str, Mounted]:
        """By drive id, what is mounted now; includes mounts made before this process started."""
        ...

    def answers(self, drive: Drive) -> bool:
        """Whether the drive reads, past every cache."""
        ...

    def space(self, drive_id: str) -> Space:
        """Room on a mounted drive."""
        ...

    def pieces(self, drive_id: str) -> Sequence[tuple[int, int]]:
        """What ``trim`` is to be called with, to cover a mounted drive: (start, length)."""
        ...

    def trim(self, drive_id: str, start: int, length: int) -> int | None:
        """Tell the device which blocks of a mounted drive's piece are free; how many bytes that
        is. None where there is nobody to tell. Idempotent."""
        ...

    def watch(self, callback: Callable[[], None]) -> None:
        """Call back, on any thread, whenever something about the drives may have changed."""
        ...

    def close(self) -> None:
        """Stop watching; mounts stay. Idempotent."""
        ...
