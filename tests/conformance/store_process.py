"""A store process for the suite: ``python -m tests.conformance.store_process SOCKET ASSEMBLY``."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from pathlib import Path

import uvloop

from appliance.engine.mirror.launch import open_store
from tests.conformance.mirrors import SETTINGS


async def main(socket: Path, assembly: object) -> None:
    """Serve until SIGTERM."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    store = await open_store(socket, assembly, settings=SETTINGS)
    await ended.wait()
    await store.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="store: %(message)s")
    uvloop.run(main(Path(sys.argv[1]), json.loads(sys.argv[2])))
