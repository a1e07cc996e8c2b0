"""What systemd is told, over a real notification socket."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from appliance.system.systemd import Notifier, watchdog_interval_s


def test_every_word_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        notifier = Notifier()
        notifier.ready("serving\nSTATUS=forged")
        notifier.status("mirror m0 in sync")
        notifier.alive()
        notifier.reloading(17)
        notifier.stopping("stopping")
        notifier.extend_timeout(1.5)
        notifier.close()
        heard = [manager.recv(1024).decode() for _ in range(6)]
    assert heard == [
        "READY=1\nSTATUS=serving STATUS=forged",
        "STATUS=mirror m0 in sync",
        "WATCHDOG=1",
        "RELOADING=1\nMONOTONIC_USEC=17",
        "STOPPING=1\nSTATUS=stopping",
        "EXTEND_TIMEOUT_USEC=1500000",
    ]


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notifier = Notifier()
    notifier.ready("serving")
    notifier.close()
    notifier.close()


@pytest.mark.parametrize(
    ("granted", "keeper", "interval_s"),
    [
        (None, None, None),
        ("30000000", None, 15.0),
        ("30000000", "ours", 15.0),  # the same name of the test in every worker process
        ("30000000", "1", None),
        ("soon", None, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_due(
    granted: str | None,
    keeper: str | None,
    interval_s: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("WATCHDOG_USEC", granted), ("WATCHDOG_PID", keeper)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        elif value == "ours":
            monkeypatch.setenv(name, str(os.getpid()))
        else:
            monkeypatch.setenv(name, value)
    assert watchdog_interval_s() == interval_s
