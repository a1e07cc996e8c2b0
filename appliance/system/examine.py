"""A drive that is not in use, made readable without changing a byte of it.

Owns, for one examination, a mount namespace of its own, a read-only loop device over the disk or
image, and what is mounted in it. Refuses what is mounted or otherwise in use. Everything is given
back at the end, and by the kernel when the process dies. Invariant: the disk or image is open for
reading alone, which the loop device enforces whatever the file system would like to do.

A drive that lost its power has a journal that was never replayed: mounted without it, whole files
are missing although they were flushed. Replaying needs writing. So the file system's metadata, the
journal in it, is copied to a sparse file aside and replayed there (``xfs_metadump``,
``xfs_mdrestore``); names and extents are read from that, the bytes of files from the drive itself.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from appliance.core.errors import DriveFault, NotFound, Refused, Unreachable
from appliance.core.ports import Volume
from appliance.system import block, process
from appliance.system.files import DirectoryVolume
from appliance.system.mapped import MappedVolume

MOUNT_DEADLINE_S: Final = 120.0
COPY_DEADLINE_S: Final = 4 * 3600.0
"""Copying the metadata of a large, full drive takes as long as reading it does."""
_NEW_MOUNT_NAMESPACE: Final = 0x20000
_RECURSIVE_PRIVATE: Final = 0x4000 | 0x40000
_LOOPS: Final = Path("/sys/block")
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_OPTIONS: Final = "nodev,nosuid,noexec,noatime,nouuid"


@contextmanager
def examined(path: Path, scratch: Path) -> Iterator[tuple[Volume, str]]:
    """What is on the drive at ``path``, and in words what was done about its journal: a directory
    as it is; a block device or an image file through a read-only mount nobody else sees. The
    volume is the caller's to close. Needs root for all but directories. Raises ``NotFound``,
    ``Refused``, ``Unreachable``, ``DriveFault``."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise NotFound(f"cannot look at {path}: there is no such file or directory") from None
    except OSError as error:
        raise Unreachable(f"cannot look at {path}: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        yield DirectoryVolume(path, str(path)), "a directory"
        return
    if not (stat.S_ISBLK(mode) or stat.S_ISREG(mode)):
        raise Refused(f"cannot look at {path}: it is no directory, block device or image file")
    if not process.is_root():
        raise Refused(f"cannot look at {path}: mounting it takes root; run the command with sudo")
    _check_unused(path, is_device=stat.S_ISBLK(mode))
    with ExitStack() as stack:
        _leave_mount_namespace()
        node = stack.enter_context(_read_only_loop(path))
        yield stack.enter_context(_mounted(node, path, scratch))


def _check_unused(path: Path, *, is_device: bool) -> None:
    """Raises ``Refused`` while somebody may write to it."""
    if is_device:
        busy = block.is_busy(str(path))
    else:
        image = str(path.resolve())
        busy = any(
            block.attribute(loop.name, "loop/backing_file") == image
            and block.attribute(loop.name, "ro") == "0"
            for loop in _LOOPS.glob("loop*")
        )
    if busy:
        raise Refused(
            f"cannot look at {path}: it is in use, mounted or part of something; stop the appliance"
            " (systemctl stop appliance.target) and detach it first"
        )


@functools.cache
def _leave_mount_namespace() -> None:
    """What is mounted from here on is seen by this process and its children alone, and goes with
    them."""
    if _LIBC.unshare(_NEW_MOUNT_NAMESPACE) != 0 or (
        _LIBC.mount(b"none", b"/", None, ctypes.c_ulong(_RECURSIVE_PRIVATE), None) != 0
    ):
        number = ctypes.get_errno()
        raise Unreachable(f"cannot make a mount namespace: {os.strerror(number)}; run as root")


@contextmanager
def _read_only_loop(path: Path, *, writable: bool = False) -> Iterator[str]:
    """A loop device that ends with its last user, whatever becomes of this process."""
    options = [] if writable else ["--read-only"]
    finished = process.run(
        ["losetup", *options, "--find", "--show", str(path)], deadline_s=MOUNT_DEADLINE_S
    )
    if finished.code != 0:
        raise Unreachable(f"cannot put a loop device over {path}: {finished.complaint}")
    node = finished.output.strip()
    descriptor = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # While it is open this only asks for its end with the last close.
        process.run(["losetup", "--detach", node], deadline_s=MOUNT_DEADLINE_S)
        yield node
    finally:
        os.close(descriptor)


@contextmanager
def _mounted(node: str, path: Path, scratch: Path) -> Iterator[tuple[Volume, str]]:
    target = scratch / "mount"
    target.mkdir()
    complaint = _mount(node, target, f"{_OPTIONS},ro")
    if not complaint:
        with _unmounting(target):
            yield DirectoryVolume(target, str(path)), "the file system was closed in good order"
        return
    # Only to tell a journal from a file system that is none.
    bare = _mount(node, target, f"{_OPTIONS},ro,norecovery")
    if bare:
        raise Refused(
            f"cannot look at {path}: it has no XFS file system that can be read ({bare}); check the"
            " name, or copy what is left of it with ddrescue and look at the copy"
        )
    with ExitStack() as stack:
        try:
            volume = stack.enter_context(_replayed_aside(node, path, scratch))
        except (DriveFault, Unreachable) as error:
            with _unmounting(target):
                yield (
                    DirectoryVolume(target, str(path)),
                    "the file system's journal was NOT replayed, files may be missing: "
                    + str(error),
                )
            return
        _unmount(target)
        yield volume, "the file system's journal was replayed aside, the drive is as it was"


@contextmanager
def _replayed_aside(node: str, path: Path, scratch: Path) -> Iterator[Volume]:
    dump, shadow, target = scratch / "metadata", scratch / "shadow", scratch / "replayed"
    _need(["xfs_metadump", "-o", node, str(dump)])
    _need(["xfs_mdrestore", str(dump), str(shadow)])
    dump.unlink()
    target.mkdir()
    with _read_only_loop(shadow, writable=True) as aside:
        complaint = _mount(aside, target, _OPTIONS)
        if complaint:
            raise Unreachable(f"replaying the journal aside: {complaint}")
        with _unmounting(target):
            yield MappedVolume(target, str(path), node)


def _need(arguments: list[str]) -> None:
    finished = process.run(arguments, deadline_s=COPY_DEADLINE_S)
    if finished.code != 0:
        raise Unreachable(f"{arguments[0]}: {finished.complaint}")


def _mount(node: str, target: Path, options: str) -> str:
    """Empty, or why it cannot be mounted."""
    finished = process.run(
        ["mount", "-t", "xfs", "-o", options, node, str(target)], deadline_s=MOUNT_DEADLINE_S
    )
    return "" if finished.code == 0 else finished.complaint or "mount failed"


@contextmanager
def _unmounting(target: Path) -> Iterator[None]:
    try:
        yield
    finally:
        _unmount(target)


def _unmount(target: Path) -> None:
    finished = process.run(["umount", "--lazy", str(target)], deadline_s=MOUNT_DEADLINE_S)
    if finished.code != 0:
        raise DriveFault(str(target), "umount", errno.EBUSY, finished.complaint)
