"""Having the stores of mirrors run.

Owns the names of the units. In production systemd runs them, one instance per mirror; in
development the supervisor does, and there is nothing to do here.
"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Final

from appliance.core.errors import Unreachable
from appliance.system import process

START_S: Final = 20.0
BOOTED: Final = Path("/run/systemd/system")
"""Exists where systemd is the service manager: sd_booted(3)."""


def store_unit(mirror: str) -> str:
    """The unit that runs the store of a mirror."""
    return f"appliance-store@{mirror}.service"


async def start_store_unit(mirror: str) -> None:
    """Ask systemd to start it. Idempotent. Raises ``Unreachable`` when it refuses."""
    if not BOOTED.exists():
        # Without systemd whoever started control starts the stores too.
        return
    call = partial(
        process.run,
        ["systemctl", "start", "--no-block", store_unit(mirror)],
        deadline_s=START_S,
    )
    finished = await asyncio.to_thread(call)
    if finished.code != 0:
        raise Unreachable(f"cannot start {store_unit(mirror)}: {finished.complaint}")


async def leave_to_supervisor(mirror: str) -> None:
    """The supervisor runs the store."""
