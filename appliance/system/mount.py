"""Mounts: the table, our private XFS mounts, and XFS's own patience with a failing device.

Owns the mount and umount programs and ``/sys/fs/xfs``. Refuses every file system but XFS. An
unmount is lazy and therefore immediate: the name is gone when it returns, whoever still holds a
file on a dead device keeps only that file.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.core.errors import DriveFault
from appliance.system import process

MOUNT_DEADLINE_S: Final = 120.0
"""Replaying the log of a large, slow drive takes a while."""
UNMOUNT_DEADLINE_S: Final = 20.0
STACKED_MAX: Final = 8
"""Mounts over one another that an unmount takes away."""
NAMESPACE_VARIABLE: Final = "APPLIANCE_MOUNT_NAMESPACE"
"""Names the mount namespace to mount in, for a process that systemd put into one of its own."""
XFS_RETRIES_MAX: Final = 3
"""Metadata writes are tried again this often; the default, forever, would hang every unmount."""
XFS_RETRY_TIMEOUT_S: Final = 5

# nouuid: a drive that comes back while somebody still holds a file on its dead former self would
# otherwise be refused as a duplicate. Clones are recognised by drive id, not by the kernel.
_OPTIONS: Final = "nodev,nosuid,noexec,noatime,nouuid,inode64"
_XFS: Final = Path("/sys/fs/xfs")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the mount table. ``device`` is ``major:minor``."""

    source: str
    device: str
    target: str
    file_system: str


def mounts() -> list[Mount]:
    """The mount table of this process. Format: proc(5), ``mountinfo``."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        found.append(
            Mount(
                source=_unescaped(rest[1]),
                device=fields[2],
                target=_unescaped(fields[4]),
                file_system=rest[0],
            )
        )
    return found


def _unescaped(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def mount_xfs(node: str, target: Path) -> None:
    """Mount one of our drives. ``target`` is created. Raises ``DriveFault``."""
    target.mkdir(mode=0o700, parents=False, exist_ok=True)
    finished = process.run(
        _on_the_machine(["mount", "-t", "xfs", "-o", _OPTIONS, node, str(target)]),
        deadline_s=MOUNT_DEADLINE_S,
    )
    if finished.code != 0:
        raise DriveFault(node, "mount", errno.EIO, finished.complaint)
    bound_retries(Path(node).name)


def unmount_lazily(target: Path) -> None:
    """Take the mount out of the tree at once and remove its directory. Idempotent."""
    for _ in range(STACKED_MAX):
        if not _listed(target):
            break
        finished = process.run(
            _on_the_machine(["umount", "--lazy", str(target)]), deadline_s=UNMOUNT_DEADLINE_S
        )
        if finished.code != 0:
            raise DriveFault(str(target), "umount", errno.EBUSY, finished.complaint)
    try:
        target.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise DriveFault(str(target), "rmdir", error.errno or 0, str(error)) from error


def _listed(target: Path) -> bool:
    """By the kernel's table: looking at the place itself could hang with its device."""
    return any(mount.target == str(target) for mount in mounts())


def _on_the_machine(arguments: list[str]) -> list[str]:
    """The program as it must run so that everybody sees the mount, not this sandbox alone."""
    namespace = os.environ.get(NAMESPACE_VARIABLE)
    return ["nsenter", f"--mount={namespace}", "--", *arguments] if namespace else arguments


def bound_retries(device_name: str) -> None:
    """Make XFS give up on a failing device after a few tries. Raises ``DriveFault``."""
    errors = _XFS / device_name / "error"
    try:
        (errors / "fail_at_unmount").write_text("1", encoding="ascii")
        for kind in ("EIO", "ENODEV", "ENOSPC", "default"):
            retries = 0 if kind == "ENODEV" else XFS_RETRIES_MAX
            (errors / "metadata" / kind / "max_retries").write_text(str(retries), encoding="ascii")
            if kind != "ENODEV":
                timeout = str(XFS_RETRY_TIMEOUT_S)
                path = errors / "metadata" / kind / "retry_timeout_seconds"
                path.write_text(timeout, encoding="ascii")
    except OSError as error:
        raise DriveFault(device_name, "bounding retries", error.errno or 0, str(error)) from error
