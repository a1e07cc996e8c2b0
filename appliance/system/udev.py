"""udev: the block devices it knows, and its events as they happen.

Owns the netlink socket and the one thread that waits on it; nothing is polled. Where no udevd runs
(a container, a rescue system) the kernel's own events are listened to instead: they carry no
properties, but whoever is woken looks for himself. A lost event is never lost silently: an overrun
socket is opened anew and reported as ``RESCAN``.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyudev

from appliance.core.errors import Unreachable

RESCAN: Final = "rescan"
_CONTROL_SOCKET: Final = Path("/run/udev/control")
_RECEIVE_BYTES: Final = 4 * 1024 * 1024
_REOPEN_S: Final = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BlockDevice:
    """A block device as udev describes it. ``properties`` is udev's database, empty without it."""

    name: str
    node: str
    device_type: str
    properties: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class BlockEvent:
    """Something happened: ``add``, ``change``, ``remove``, ... or ``RESCAN`` with no name."""

    action: str
    name: str = ""


def daemon_runs() -> bool:
    """Whether a systemd-udevd is there to fill in properties and send events."""
    return _CONTROL_SOCKET.exists()


def block_devices() -> list[BlockDevice]:
    """Every block device there is now, whole disks and partitions. Blocking, no device I/O."""
    try:
        context = pyudev.Context()
        found = [_device(each) for each in context.list_devices(subsystem="block")]
    except (OSError, ImportError, pyudev.DeviceNotFoundError) as error:
        raise Unreachable(f"cannot list block devices through udev: {error}") from error
    return sorted(found, key=lambda device: device.name)


def _device(device: pyudev.Device) -> BlockDevice:
    return BlockDevice(
        name=device.sys_name,
        node=device.device_node or f"/dev/{device.sys_name}",
        device_type=device.device_type or "",
        properties={key: device.properties[key] for key in device.properties},
    )


class BlockMonitor:
    """Calls back on every block event, on its own thread, from ``start`` to ``stop``."""

    def __init__(self, callback: Callable[[BlockEvent], None]) -> None:
        self._callback = callback
        self._source = "udev" if daemon_runs() else "kernel"
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._monitor = self._open()
        self._thread = threading.Thread(target=self._listen, name="udev", daemon=True)

    @property
    def source(self) -> str:
        """``udev`` or ``kernel``."""
        return self._source

    def start(self) -> None:
        """Events from here on are seen; list the devices after this, not before."""
        self._thread.start()

    def stop(self) -> None:
        """No callback runs after this returned. Not callable from the callback."""
        os.write(self._wake_write, b"x")
        if self._thread.is_alive():
            self._thread.join()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _open(self) -> pyudev.Monitor:
        try:
            monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source=self._source)
            monitor.filter_by("block")
            try:
                monitor.set_receive_buffer_size(_RECEIVE_BYTES)
            except OSError:
                # Needs CAP_NET_ADMIN. The default size works; an overrun is noticed and mended.
                pass
            monitor.start()
        except (OSError, ImportError) as error:
            raise Unreachable(f"cannot listen to {self._source} events: {error}") from error
        return monitor

    def _listen(self) -> None:
        while True:
            ready, _, _ = select.select([self._monitor.fileno(), self._wake_read], [], [])
            if self._wake_read in ready:
                return
            try:
                device = self._monitor.poll(timeout=0)
            except OSError:
                # Overrun: what it held is not complete any more.
                if not self._reopen():
                    return
                self._callback(BlockEvent(RESCAN))
                continue
            if device is not None:
                self._callback(BlockEvent(device.action or "change", device.sys_name))

    def _reopen(self) -> bool:
        """A fresh socket, however long the system refuses one; False when told to stop."""
        while True:
            try:
                self._monitor = self._open()
            except Unreachable as error:
                _log.warning("%s", error)
                stopping, _, _ = select.select([self._wake_read], [], [], _REOPEN_S)
                if stopping:
                    return False
            else:
                return True
