"""Real mirrors on real directories, with the store in this process or in one of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from appliance.engine.interface import Engine
from appliance.engine.mirror.client import MirrorEngine
from appliance.engine.mirror.connecting import connect_engine
from appliance.engine.mirror.launch import (
    DrivePath,
    local_engine,
    make_mirror,
    open_store,
)
from appliance.engine.mirror.state import StoreSettings

MIRROR_ID: Final = "5a" * 16
SEGMENT_BYTES: Final = 4 * 1024 * 1024
SETTINGS: Final = StoreSettings(reserve_bytes=0, batch_target_bytes=512 * 1024)
DRIVES: Final = ("drive-a", "drive-b")


def lay_out(directory: Path) -> dict[str, Any]:
    """Make a mirror below ``directory``, where drives may be mounted already, unless there is one;
    returns its assembly message."""
    drives = []
    for name in DRIVES:
        path = directory / name
        path.mkdir(exist_ok=True)
        drives.append(DrivePath(name, path, f"serial-{name}"))
    if not (directory / "witness" / "w").exists():
        make_mirror(
            MIRROR_ID,
            drives,
            index_directory=directory / "index",
            witness_file=directory / "witness" / "w",
            segment_size_bytes=SEGMENT_BYTES,
        )
    return {
        "mirror": "m1",
        "members": [{"drive": d.drive_id, "path": str(d.path), "serial": d.serial} for d in drives],
        "index_directory": str(directory / "index"),
        "witness_file": str(directory / "witness" / "w"),
    }


@asynccontextmanager
async def open_in_process(directory: Path) -> AsyncIterator[Engine]:
    """Client and store share this process and its event loop."""
    store = await open_store(directory / "s", lay_out(directory), settings=SETTINGS)
    engine = await local_engine(store.service)
    try:
        await engine.ready(20)
        yield engine
    finally:
        await engine.close()
        await store.close()


class StoreProcess:
    """A store in a process of its own."""

    def __init__(self, directory: Path, assembly: dict[str, Any]) -> None:
        self.socket: Final = directory / "s"
        self._assembly = assembly
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Does not wait until it serves."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.conformance.store_process",
            str(self.socket),
            json.dumps(self._assembly),
            cwd=Path(__file__).parents[2],
        )

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None, "it was started"
        return self._process.pid

    async def kill(self) -> None:
        """SIGKILL: no goodbye."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    async def stop(self) -> None:
        """SIGTERM, and wait."""
        if self._process is not None:
            self._process.terminate()
            code = await self._process.wait()
            self._process = None
            assert code == 0, f"the store ended with {code}"


@asynccontextmanager
async def open_over_ipc(directory: Path) -> AsyncIterator[Engine]:
    """The store is another process."""
    process = StoreProcess(directory, lay_out(directory))
    await process.start()
    engine: MirrorEngine = await connect_engine(process.socket, role="gateway")
    try:
        await engine.ready(20)
        yield engine
    finally:
        await engine.close()
        await process.stop()
