"""Unix sockets by path: made, reached, and asked who is at the other end.

Owns the socket files' life and modes. Refuses to take a path from a living process and to remove
anything that is not a dead socket. Paths may be of any length, though a socket address holds only
107 bytes: the directory is opened and named through ``/proc/self/fd``.
Invariant: nothing here waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.core.errors import Unreachable

_BACKLOG: Final = 128
_UCRED: Final = struct.Struct("3i")
_NON_BLOCKING: Final = socket.SOCK_STREAM | socket.SOCK_NONBLOCK


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who is at the other end, as the kernel says (SO_PEERCRED, unix(7))."""

    process_id: int
    user_id: int
    group_id: int


def credentials_of(endpoint: socket.socket) -> Credentials:
    """The process that connected to, or listens behind, ``endpoint``."""
    packed = endpoint.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return Credentials(*_UCRED.unpack(packed))


def transport_credentials(transport: asyncio.BaseTransport) -> Credentials:
    """The process at the other end of a connection."""
    return credentials_of(transport.get_extra_info("socket"))


def listen(path: Path, *, mode: int) -> socket.socket:
    """A listening, non-blocking socket at ``path`` with file mode ``mode``. A dead process's
    socket there is replaced. Raises ``Unreachable`` when a living process listens there."""
    with _short_name(path) as name:
        _remove_dead(path, name)
        listener = socket.socket(socket.AF_UNIX, _NON_BLOCKING)
        try:
            listener.bind(name)
            os.chmod(path, mode)
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            raise Unreachable(f"cannot listen on {path}: {error.strerror}") from error
    return listener


def reach(path: Path) -> socket.socket:
    """A non-blocking socket connected to ``path``. Raises ``Unreachable`` when nobody listens."""
    endpoint = socket.socket(socket.AF_UNIX, _NON_BLOCKING)
    try:
        with _short_name(path) as name:
            endpoint.connect(name)
    except OSError as error:
        endpoint.close()
        raise Unreachable(f"cannot reach the role behind {path}: {error.strerror}") from error
    except Unreachable:
        endpoint.close()
        raise
    return endpoint


@contextlib.contextmanager
def _short_name(path: Path) -> Iterator[str]:
    try:
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Unreachable(f"cannot use {path.parent}: {error.strerror}") from error
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def _remove_dead(path: Path, name: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise Unreachable(f"cannot listen on {path}: it exists and is no socket")
    except FileNotFoundError:
        return
    probe = socket.socket(socket.AF_UNIX, _NON_BLOCKING)
    try:
        probe.connect(name)
    except OSError as error:
        if error.errno not in (errno.ECONNREFUSED, errno.ENOENT):
            raise Unreachable(f"cannot listen on {path}: {error.strerror}") from error
    else:
        raise Unreachable(f"cannot listen on {path}: another process already does")
    finally:
        probe.close()
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
