"""The service manager: readiness, status line and watchdog of this process.

Owns the notification socket. Without one (started by hand, in development) every call does nothing.
"""

from __future__ import annotations

import os
from typing import Final

import sdnotify

_MICROSECONDS: Final = 1_000_000


class Notifier:
    """Tells systemd how this process is. Any thread; never raises."""

    def __init__(self) -> None:
        # Without an address the library would leave a socket behind for the collector.
        told = bool(os.environ.get("NOTIFY_SOCKET"))
        self._channel = sdnotify.SystemdNotifier(debug=False) if told else None

    def ready(self, status: str) -> None:
        """The process serves (``Type=notify``)."""
        self._tell(f"READY=1\nSTATUS={_line(status)}")

    def status(self, status: str) -> None:
        """What ``systemctl status`` shows."""
        self._tell(f"STATUS={_line(status)}")

    def reloading(self, monotonic_us: int) -> None:
        """A reload began; ``ready`` ends it."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={monotonic_us}")

    def stopping(self, status: str) -> None:
        """The process winds down."""
        self._tell(f"STOPPING=1\nSTATUS={_line(status)}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._tell("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> None:
        """Ask for more time to start or stop, while recovery makes progress."""
        self._tell(f"EXTEND_TIMEOUT_USEC={int(seconds * _MICROSECONDS)}")

    def close(self) -> None:
        """Give the socket back. Idempotent; nothing is told afterwards."""
        channel, self._channel = self._channel, None
        if channel is not None and channel.socket is not None:
            channel.socket.close()

    def _tell(self, message: str) -> None:
        if self._channel is not None:
            self._channel.notify(message)


def watchdog_interval_s() -> float | None:
    """How often ``alive`` is due (half the time systemd grants), None without a watchdog."""
    granted = os.environ.get("WATCHDOG_USEC", "")
    keeper = os.environ.get("WATCHDOG_PID", "")
    if not granted.isdigit() or (keeper and keeper != str(os.getpid())):
        return None
    return int(granted) / _MICROSECONDS / 2


def _line(text: str) -> str:
    return " ".join(text.split())
