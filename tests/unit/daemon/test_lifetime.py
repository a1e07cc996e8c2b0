"""A start that takes long is not mistaken for one that hangs."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing
from pathlib import Path

import pytest

from appliance.core.errors import Refused
from appliance.daemon.config import Config
from appliance.daemon.lifetime import Lifetime
from appliance.system.systemd import Notifier


def test_more_time_is_asked_for_until_the_step_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "notify"
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))

    async def scenario(manager: socket.socket, notifier: Notifier) -> None:
        loop = asyncio.get_running_loop()
        life = Lifetime("control", Config(), notifier)

        async def hear() -> list[bytes]:
            async with asyncio.timeout(10):
                return [await loop.sock_recv(manager, 1024) for _ in range(4)]

        heard = await life.during_start("bringing the drives in", hear(), tell_every_s=0.05)
        assert heard == [
            b"EXTEND_TIMEOUT_USEC=100000",
            b"STATUS=bringing the drives in",
            b"EXTEND_TIMEOUT_USEC=100000",
            b"EXTEND_TIMEOUT_USEC=100000",
        ]

        async def fail() -> None:
            raise Refused("no")

        with pytest.raises(Refused):
            await life.during_start("failing", fail())
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.setblocking(False)
        with closing(Notifier()) as notifier:
            asyncio.run(scenario(manager, notifier))
