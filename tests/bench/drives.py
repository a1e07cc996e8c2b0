"""Two XFS file systems on loop devices, and what their devices counted.

Needs root. Both devices do direct I/O on sparse files, so a flush is a flush of the disk below.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FLUSHES_FIELD: Final = 15
"""Index of "flush requests completed" in /sys/block/*/stat (kernel, Documentation/block/stat)."""
WRITES_FIELD: Final = 4
SECTORS_WRITTEN_FIELD: Final = 6


@dataclass(frozen=True, slots=True)
class Drive:
    """A mounted loop device."""

    device: str
    mount: Path

    def flushes(self) -> int:
        """Flushes the device has completed; a FUA write on a device without FUA is one too."""
        return self._stat(FLUSHES_FIELD)

    def writes(self) -> int:
        """Writes the device has completed."""
        return self._stat(WRITES_FIELD)

    def sectors_written(self) -> int:
        """Sectors of 512 bytes the device has written."""
        return self._stat(SECTORS_WRITTEN_FIELD)

    def _stat(self, index: int) -> int:
        text = Path(f"/sys/block/{Path(self.device).name}/stat").read_text()
        return int(text.split()[index])


@contextmanager
def two_drives(home: Path, size_bytes: int) -> Iterator[list[Drive]]:
    """Two fresh drives below ``home``; unmounted, detached and removed at the end."""
    with fresh_drives(home, ("a", "b"), size_bytes) as drives:
        yield drives


@contextmanager
def fresh_drives(home: Path, names: Sequence[str], size_bytes: int) -> Iterator[list[Drive]]:
    """The same, as many as there are names."""
    with ExitStack() as stack:
        yield [stack.enter_context(_drive(home / name, size_bytes)) for name in names]


@contextmanager
def _drive(home: Path, size_bytes: int) -> Iterator[Drive]:
    home.mkdir(parents=True)
    image, mount = home / "image", home / "mount"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(size_bytes)
    device = _run("losetup", "--find", "--show", "--direct-io=on", str(image)).strip()
    try:
        _run("mkfs.xfs", "-q", "-m", "reflink=0", device)
        _run("mount", device, str(mount))
        try:
            yield Drive(device, mount)
        finally:
            _run("umount", "--lazy", str(mount))
    finally:
        _run("losetup", "--detach", device)
        image.unlink()


def _run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"cannot run {' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
