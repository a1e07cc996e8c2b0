"""Block devices: what sysfs and a low-level probe tell, wiping and formatting.

Owns ``/sys/block``, wipefs and mkfs.xfs. Refuses nothing by itself: the rules are in
``core.drives``. Reading never writes to a device and never opens one for writing, because udev
takes a closed writer for a change and would wake everybody.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from appliance.core.drives import Signature
from appliance.core.errors import DriveFault
from appliance.system import process

PROBE_DEADLINE_S: Final = 10.0
ANSWER_S: Final = 10.0
FORMAT_DEADLINE_S: Final = 900.0
"""mkfs discards the whole device first, which some large SSDs take minutes for."""

_SYS_BLOCK: Final = Path("/sys/block")
_SECTOR_BYTES: Final = 512
_ALIGNMENT_BYTES: Final = 4096
_DELETED: Final = " (deleted)"
_reading: Final[dict[str, threading.Thread]] = {}
_reading_lock: Final = threading.Lock()


def attribute(name: str, path: str) -> str:
    """A sysfs attribute of a whole disk, empty when there is none."""
    try:
        return (_SYS_BLOCK / name / path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def size_bytes(name: str) -> int:
    """Capacity; 0 for a device without a medium, such as a detached loop device."""
    size = attribute(name, "size")
    return int(size) * _SECTOR_BYTES if size.isdigit() else 0


def backing_file(name: str) -> str:
    """The file behind a loop device; empty when there is none or it was deleted."""
    path = attribute(name, "loop/backing_file")
    return "" if path.endswith(_DELETED) else path


def partitions(name: str) -> tuple[str, ...]:
    """Names of the partitions the kernel knows."""
    try:
        entries = list((_SYS_BLOCK / name).iterdir())
    except OSError:
        return ()
    return tuple(sorted(each.name for each in entries if (each / "partition").exists()))


def holders(name: str) -> tuple[str, ...]:
    """What stands on the device or a partition of it: device mapper, md, loop devices, swap."""
    names = (name, *partitions(name))
    nodes = {f"/dev/{each}" for each in names}
    found: set[str] = set()
    for path in [_SYS_BLOCK / name, *(_SYS_BLOCK / name / part for part in partitions(name))]:
        try:
            found.update(each.name for each in (path / "holders").iterdir())
        except OSError:
            continue
    # A loop device over a block device appears nowhere in ``holders``.
    for loop in _SYS_BLOCK.glob("loop*"):
        if attribute(loop.name, "loop/backing_file") in nodes:
            found.add(loop.name)
    found.update(f"swap on {node}" for node in nodes & _swaps())
    return tuple(sorted(found))


def _swaps() -> set[str]:
    lines = Path("/proc/swaps").read_text(encoding="utf-8").splitlines()[1:]
    return {line.split()[0] for line in lines if line}


def is_busy(node: str) -> bool:
    """Whether the kernel refuses an exclusive open: mounted anywhere, or somebody's member.

    Raises ``DriveFault`` when the device cannot be opened at all.
    """
    try:
        descriptor = os.open(node, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return True
        raise DriveFault(node, "open", error.errno or 0, os.strerror(error.errno or 0)) from error
    os.close(descriptor)
    return False


def signatures(node: str) -> tuple[Signature, ...]:
    """Everything libblkid recognises on the device itself. Raises ``DriveFault``."""
    finished = process.run(["wipefs", "--no-act", "--json", node], deadline_s=PROBE_DEADLINE_S)
    if finished.code != 0:
        raise DriveFault(node, "probe", errno.EIO, finished.complaint)
    if not finished.output.strip():
        return ()
    found = [
        Signature(each["type"], each.get("label") or "", each.get("uuid") or "")
        for each in json.loads(finished.output)["signatures"]
    ]
    return tuple(dict.fromkeys(found))


def answers(node: str, *, deadline_s: float = ANSWER_S) -> bool:
    """Whether the device really reads, past every cache: a dead one keeps its node and size.

    A read that hangs costs its deadline once; while it hangs, the answer is no, at once.
    """
    outcome: list[bool] = []
    with _reading_lock:
        if node in _reading and _reading[node].is_alive():
            return False
        reader = threading.Thread(
            target=lambda: outcome.append(_reads(node)), name=f"probe {node}", daemon=True
        )
        _reading[node] = reader
        reader.start()
    reader.join(deadline_s)
    return outcome == [True]


def _reads(node: str) -> bool:
    try:
        descriptor = os.open(node, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        with mmap.mmap(-1, _ALIGNMENT_BYTES) as buffer:
            return os.preadv(descriptor, [buffer], 0) == _ALIGNMENT_BYTES
    except OSError:
        return False
    finally:
        os.close(descriptor)


def wipe(nodes: Sequence[str]) -> None:
    """Erase every signature, partitions before the disk that holds them. Raises ``DriveFault``."""
    for node in nodes:
        finished = process.run(["wipefs", "--all", "--quiet", node], deadline_s=PROBE_DEADLINE_S)
        if finished.code != 0:
            raise DriveFault(node, "wipe", errno.EIO, finished.complaint)


def make_xfs(node: str, *, label: str, uuid: str) -> None:
    """A fresh XFS over the whole device. Raises ``DriveFault``; refuses a mounted device itself.

    ``reflink=0``: nothing here is ever shared, and the reverse bookkeeping costs writes.
    """
    finished = process.run(
        ["mkfs.xfs", "-q", "-f", "-m", f"reflink=0,uuid={uuid}", "-L", label, node],
        deadline_s=FORMAT_DEADLINE_S,
    )
    if finished.code != 0:
        raise DriveFault(node, "format", errno.EIO, finished.complaint)


def announce(node: str) -> None:
    """Have the kernel send a change event, so that udev looks at the device anew.

    udev watches for closed writers by itself, but not while it works on an earlier event of the
    same device: the last of several writers in a row can go unseen. Raises ``DriveFault``.
    """
    try:
        (_SYS_BLOCK / Path(node).name / "uevent").write_text("change", encoding="ascii")
    except OSError as error:
        raise DriveFault(node, "announcing it to udev", error.errno or 0, str(error)) from error
