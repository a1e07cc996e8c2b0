"""FITRIM: telling a device which of its blocks a mounted file system does not use.

Owns the ioctl. Refuses nothing: a device or file system that cannot be told is no fault. An SSD, a
thin volume or a loop device gets the room back; whoever reads such a block finds anything there.
The file system sees to it that nothing that is used, or may be after a crash, is ever named.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import Final

from appliance.core.errors import DriveFault
from appliance.core.ports import Space

PIECE_BYTES: Final = 16 * 1024**3
"""Of the file system's addresses: what one call looks at, so that none takes long."""
EXTENT_BYTES_MIN: Final = 64 * 1024
"""Smaller holes are not worth a command to the device."""

# include/uapi/linux/fs.h: _IOWR('X', 121, struct fstrim_range)
_FITRIM: Final = 0xC0185879
_RANGE: Final = struct.Struct("=QQQ")
_CANNOT: Final = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS})


def space(place: Path) -> Space:
    """Room in the file system at a place. Raises ``DriveFault``."""
    try:
        found = os.statvfs(place)
    except OSError as error:
        raise DriveFault(str(place), "asking for its room", error.errno or 0, str(error)) from error
    return Space(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


def pieces(place: Path) -> list[tuple[int, int]]:
    """The (start, length) that cover the file system at a place. Raises ``DriveFault``."""
    size_bytes = space(place).total_bytes
    return [
        (start, min(PIECE_BYTES, size_bytes - start)) for start in range(0, size_bytes, PIECE_BYTES)
    ]


def trim(place: Path, start: int, length: int) -> int | None:
    """Tell the device what is free of a piece; how many bytes that is, None where it cannot be
    told. Needs CAP_SYS_ADMIN. Idempotent, blocking. Raises ``DriveFault``."""
    wanted = bytearray(_RANGE.pack(start, length, EXTENT_BYTES_MIN))
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, _FITRIM, wanted)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _CANNOT:
            return None
        raise DriveFault(str(place), "trim", error.errno or 0, str(error)) from error
    trimmed: int = _RANGE.unpack(wanted)[1]
    return trimmed
