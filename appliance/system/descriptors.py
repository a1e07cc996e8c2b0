"""Descriptors that outlive the process: given to the service manager, had back at the next start.

Owns systemd's descriptor store (sd_notify(3), ``FDSTORE``) as this process sees it. The supervisor
of development speaks the same protocol, but hands descriptors back under numbers of their own.
Refuses names the store does not take. Without a service manager nothing is kept.
Invariant: each kept descriptor is handed out once, closed on exec.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import Final

KEPT_VARIABLE: Final = "APPLIANCE_KEPT_DESCRIPTORS"
"""``NAME=NUMBER`` pairs, one a line: how the supervisor of development hands them back."""
_FIRST: Final = 3
_NAME_MAX: Final = 255


def keep(name: str, descriptor: int, notify_socket: str | None) -> None:
    """Have the service manager hold a copy under ``name``. Raises ``OSError``."""
    _send(notify_socket, f"FDSTORE=1\nFDPOLL=0\nFDNAME={checked(name)}", [descriptor])


def forget(name: str, notify_socket: str | None) -> None:
    """Have the service manager close what it holds under ``name``. Raises ``OSError``."""
    _send(notify_socket, f"FDSTOREREMOVE=1\nFDNAME={checked(name)}", [])


def kept(environment: MutableMapping[str, str]) -> dict[str, int]:
    """What an earlier life of this process had kept, by name. Takes it out of the environment, so
    that no child believes it to be its own."""
    lines = environment.pop(KEPT_VARIABLE, "").splitlines()
    found = {name: int(number) for name, _, number in (line.rpartition("=") for line in lines)}
    count = environment.pop("LISTEN_FDS", "0")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if environment.pop("LISTEN_PID", "") == str(os.getpid()) and count.isdigit():
        numbers = range(_FIRST, _FIRST + int(count))
        found |= dict(zip(names, numbers, strict=False))
    for number in found.values():
        os.set_inheritable(number, False)
    return found


def checked(name: str) -> str:
    """``name``, which systemd will take: printable, no colon, not too long."""
    assert name.isascii() and name.isprintable() and ":" not in name and len(name) <= _NAME_MAX
    return name


def _send(notify_socket: str | None, message: str, descriptors: list[int]) -> None:
    if not notify_socket:
        return
    address = f"\0{notify_socket[1:]}" if notify_socket.startswith("@") else notify_socket
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.connect(address)
        socket.send_fds(notices, [message.encode("ascii")], descriptors)
