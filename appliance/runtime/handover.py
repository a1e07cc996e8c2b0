"""Listening sockets handed from the process that may open them to those that serve them.

Owns the giving and the taking of descriptors over a unix socket (SCM_RIGHTS, unix(7)). Refuses
more than ``SOCKETS_MAX`` sockets and an answer whose names and descriptors do not pair up.

The giver keeps its own descriptors open: while a taker restarts, connections queue in the kernel
instead of being refused, and the new taker gets the very same sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from appliance.core.errors import Unreachable
from appliance.runtime import unix_sockets
from appliance.runtime.unix_sockets import Credentials

SOCKETS_MAX: Final = 200
"""Below the kernel's SCM_MAX_FD (253)."""
_MESSAGE_BYTES_MAX: Final = 64 * 1024

_log = logging.getLogger(__name__)

Offer: TypeAlias = Callable[[Credentials], Mapping[str, socket.socket]]
"""Which sockets, by name, the process that asks may have; empty for none."""


class SocketGiver:
    """Answers every connection on a unix socket with listening sockets, then closes it."""

    def __init__(self, path: Path, offer: Offer, *, mode: int = 0o660) -> None:
        """Listen. Raises ``Unreachable`` when ``path`` cannot be listened on. Needs a running
        event loop, whose thread owns this object."""
        self._path = path
        self._offer = offer
        self._loop = asyncio.get_running_loop()
        self._listener = unix_sockets.listen(path, mode=mode)
        self._loop.add_reader(self._listener, self._answer)

    def close(self) -> None:
        """Stop answering. The sockets given away stay as they are. Idempotent."""
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()

    def _answer(self) -> None:
        with contextlib.suppress(BlockingIOError):
            connection, _ = self._listener.accept()
            with connection:
                connection.setblocking(False)
                self._give(connection)

    def _give(self, connection: socket.socket) -> None:
        offered = self._offer(unix_sockets.credentials_of(connection))
        assert len(offered) <= SOCKETS_MAX
        message = json.dumps(list(offered)).encode()
        try:
            # A fresh connection's buffer holds the whole message: this cannot wait.
            socket.send_fds(connection, [message], [entry.fileno() for entry in offered.values()])
        except OSError as error:
            _log.warning("listening sockets were not taken: %s", error)


async def take_sockets(path: Path, *, timeout_s: float = 10.0) -> dict[str, socket.socket]:
    """The listening sockets offered behind ``path``, by name. Raises ``Unreachable`` when nobody
    offers them in time."""
    loop = asyncio.get_running_loop()
    with unix_sockets.reach(path) as connection:
        readable = asyncio.Event()
        loop.add_reader(connection, readable.set)
        try:
            async with asyncio.timeout(timeout_s):
                await readable.wait()
        except TimeoutError:
            raise Unreachable(f"cannot take sockets from {path}: no answer in time") from None
        finally:
            loop.remove_reader(connection)
        try:
            message, descriptors, _, _ = socket.recv_fds(
                connection, _MESSAGE_BYTES_MAX, SOCKETS_MAX
            )
        except OSError as error:
            raise Unreachable(f"cannot take sockets from {path}: {error.strerror}") from error
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)  # recv_fds ignores MSG_CMSG_CLOEXEC in Python 3.11
    return _pair(path, message, descriptors)


def _pair(path: Path, message: bytes, descriptors: list[int]) -> dict[str, socket.socket]:
    try:
        names = json.loads(message) if message else []
        if not isinstance(names, list) or len(names) != len(descriptors):
            raise ValueError("names and descriptors do not pair up")
    except ValueError as error:
        for descriptor in descriptors:
            os.close(descriptor)
        raise Unreachable(f"cannot take sockets from {path}: {error}") from error
    return {
        str(name): socket.socket(fileno=descriptor)
        for name, descriptor in zip(names, descriptors, strict=True)
    }
