"""Drives for tests: loop devices, and ones that die like a pulled disk.

Owns every loop device, storage daemon and udevd it starts, and gives them back in reverse order. A
udevd that runs already is used and left alone. ``losetup -d`` on a mounted device is lazy and
proves nothing, so a dying drive's bytes go through a storage daemon: once that is killed, every
read, write and flush is an I/O error.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

UDEVD: Final = "/lib/systemd/systemd-udevd"
RULES: Final = Path(__file__).parents[2] / "udev"
RUNTIME_RULES: Final = Path("/run/udev/rules.d")
UDEV_LOCK: Final = Path("/run/lock/appliance-test-udev")
"""Shared by all who use it."""
UDEV_DOOR: Final = Path("/run/lock/appliance-test-udev-door")
"""Held by whoever comes or goes."""
DRIVE_BYTES: Final = 640 * 1024 * 1024
DEADLINE_S: Final = 30.0


def sh(*arguments: str, check: bool = True) -> str:
    """Run a program and return what it printed."""
    finished = subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=120)
    if check and finished.returncode != 0:
        raise AssertionError(f"{' '.join(arguments)}: {finished.stderr.strip()}")
    return finished.stdout.strip()


def until(condition: Callable[[], bool], what: str, *, deadline_s: float = DEADLINE_S) -> float:
    """Wait for something that sends no event to a test; seconds it took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > deadline_s:
            raise AssertionError(f"not within {deadline_s:g} s: {what}")
        select.select([], [], [], 0.02)
    return time.monotonic() - began


@contextmanager
def udev_daemon() -> Iterator[None]:
    """A systemd-udevd with the appliance's rules. The last user of one that was started here stops
    it again."""
    UDEV_LOCK.parent.mkdir(parents=True, exist_ok=True)
    with UDEV_LOCK.open("a+") as lock:
        with _udev_door():
            if not _udev_answers():
                sh(UDEVD, "--daemon")
                lock.truncate(0)
                lock.write("started here")
                lock.flush()
            RUNTIME_RULES.mkdir(parents=True, exist_ok=True)
            for rules in RULES.glob("*.rules"):
                shutil.copy(rules, RUNTIME_RULES / rules.name)
            sh("udevadm", "control", "--reload")
            fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            yield
        finally:
            with _udev_door():
                _leave_udev(lock.fileno())


@contextmanager
def _udev_door() -> Iterator[None]:
    """Nobody else comes or goes meanwhile; those who are there stay."""
    with UDEV_DOOR.open("a") as door:
        fcntl.flock(door, fcntl.LOCK_EX)
        yield


def _udev_answers() -> bool:
    ping = ["udevadm", "control", "--ping"]
    return subprocess.run(ping, check=False, capture_output=True).returncode == 0


def _leave_udev(lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        # Another test run uses it still.
        return
    if os.pread(lock, 64, 0):
        for rules in RULES.glob("*.rules"):
            (RUNTIME_RULES / rules.name).unlink(missing_ok=True)
        sh("udevadm", "control", "--exit")
        until(lambda: not _udev_answers(), "udevd to be gone, for whoever comes next")
        os.ftruncate(lock, 0)


def settle() -> None:
    """udevd has worked off every event so far."""
    sh("udevadm", "settle", "--timeout", "20")


class LoopDrive:
    """A loop device over a sparse file. ``identity`` is what an operator types."""

    def __init__(self, folder: Path, name: str, *, size_bytes: int = DRIVE_BYTES) -> None:
        self.image = folder / f"{name}.img"
        self.node = ""
        with self.image.open("ab") as file:
            file.truncate(size_bytes)

    @property
    def backing(self) -> Path:
        """The file that the loop device stands on."""
        return self.image

    @property
    def identity(self) -> str:
        return f"loop:{self.backing}"

    @property
    def serial(self) -> str:
        return self.backing.name

    @property
    def name(self) -> str:
        """The kernel's name, for looking into sysfs."""
        return Path(self.node).name

    @property
    def in_flight(self) -> int:
        """Requests the device has not finished."""
        return sum(map(int, Path(f"/sys/block/{self.name}/inflight").read_text().split()))

    def attach(self) -> Self:
        """The device appears."""
        self.node = sh("losetup", "--find", "--show", str(self.backing))
        return self

    def detach(self) -> None:
        """The device goes; if it is mounted, once that ends. Idempotent."""
        if self.node:
            sh("losetup", "--detach", self.node, check=False)
            self.node = ""

    def close(self) -> None:
        """Leave nothing behind, mounts included."""
        nodes = sh("losetup", "--noheadings", "--output", "NAME", "--associated", str(self.backing))
        for node in nodes.split():
            unmount_all(node)
            sh("losetup", "--detach", node, check=False)
        self.node = ""

    def __enter__(self) -> Self:
        return self.attach()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class DyingDrive(LoopDrive):
    """A loop device whose bytes a storage daemon serves: ``die`` makes every I/O fail at once,
    ``come_back`` attaches the same bytes as a new device."""

    def __init__(self, folder: Path, name: str, *, size_bytes: int = DRIVE_BYTES) -> None:
        super().__init__(folder, name, size_bytes=size_bytes)
        self._target = folder / name
        self._target.touch()
        self._daemon: subprocess.Popen[bytes] | None = None
        self._export = -1

    @property
    def backing(self) -> Path:
        return self._target

    def attach(self) -> Self:
        """Start the storage daemon and put a loop device over its export."""
        nodes = [argument for node in self._nodes() for argument in ("--blockdev", node)]
        export = f"type=fuse,id=export,node-name=image,mountpoint={self._target},writable=on"
        self._daemon = subprocess.Popen(
            ["qemu-storage-daemon", *nodes, *self._more(), "--export", export],
            stdin=subprocess.DEVNULL,
        )
        until(lambda: os.path.ismount(self._target), f"an export at {self._target}")
        self._export = os.open(self._target, os.O_RDONLY)
        return super().attach()

    def _nodes(self) -> list[str]:
        """What the daemon stacks below its export, which is called ``image``."""
        return [f"driver=file,node-name=image,filename={self.image},cache.direct=off"]

    def _more(self) -> list[str]:
        """Further arguments of the daemon."""
        return []

    @property
    def pid(self) -> int:
        """The storage daemon's."""
        assert self._daemon is not None, "the drive is not attached"
        return self._daemon.pid

    def die(self) -> None:
        """From now on every I/O of the device fails with EIO. The device itself stays."""
        assert self._daemon is not None, "the drive is not attached"
        self._daemon.send_signal(signal.SIGKILL)
        self._daemon.wait()
        self._daemon = None
        # The page cache under the loop device would go on answering for the dead. (Direct I/O in
        # the loop device would spare it, but mixes up partial pages over FUSE.)
        os.posix_fadvise(self._export, 0, 0, os.POSIX_FADV_DONTNEED)
        self._forget_export()

    def stall(self) -> None:
        """From now on no I/O of the device ends, until ``resume``: a drive that hangs. What it was
        given before this returns is either done or not begun."""
        # A child of this process closes what it inherits, and would hang with the drive.
        self._forget_export()
        os.kill(self.pid, signal.SIGSTOP)
        threads = Path(f"/proc/{self.pid}/task")
        until(lambda: all(_is_stopped(each) for each in threads.iterdir()), "the daemon to stop")

    def resume(self) -> None:
        """The drive goes on where it stalled. Idempotent."""
        os.kill(self.pid, signal.SIGCONT)
        if self._export < 0:
            self._export = os.open(self._target, os.O_RDONLY)

    def come_back(self) -> Self:
        """The same bytes as a new device; the dead one is left to whoever still holds it."""
        self.detach()
        sh("umount", "--lazy", str(self._target), check=False)
        return self.attach()

    def close(self) -> None:
        """Leave nothing behind. While the daemon lives, what is still to be written is written."""
        if self._daemon is not None:
            self.resume()
        super().close()
        if self._daemon is not None:
            self._daemon.terminate()
            self._daemon.wait()
            self._daemon = None
        self._forget_export()
        sh("umount", "--lazy", str(self._target), check=False)

    def _forget_export(self) -> None:
        export, self._export = self._export, -1
        if export >= 0:
            # The close of a dead export is told to nobody, and says so.
            with suppress(OSError):
                os.close(export)


def _is_stopped(thread: Path) -> bool:
    return thread.joinpath("stat").read_text().rpartition(")")[2].split()[0] == "T"


def unmount_all(node: str) -> None:
    """Whatever is mounted from the device, lazily."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ")[1] == node:
            sh("umount", "--lazy", before.split(" ")[4], check=False)


@contextmanager
def attached(*drives: LoopDrive) -> Iterator[None]:
    """All of them, given back in reverse order."""
    with ExitStack() as stack:
        for drive in drives:
            stack.enter_context(drive)
        yield
