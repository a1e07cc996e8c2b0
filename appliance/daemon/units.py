"""Having the stores of mirrors and the gateways run.

Owns the names of their units. In production systemd runs them, started by control because only
control knows how many there are; in development the supervisor does, and there is nothing to do.
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


def gateway_unit(number: int) -> str:
    """The unit that runs a gateway."""
    return f"appliance-gateway@{number}.service"


async def start_store(mirror: str) -> None:
    """See ``start_unit``."""
    await start_unit(store_unit(mirror))


async def start_unit(unit: str) -> None:
    """Ask systemd to start it, without waiting. Idempotent. Raises ``Unreachable`` when it
    refuses."""
    if not BOOTED.exists():
        # No systemd to ask: whoever started control starts the rest too.
        return
    call = partial(process.run, ["systemctl", "start", "--no-block", unit], deadline_s=START_S)
    finished = await asyncio.to_thread(call)
    if finished.code != 0:
        raise Unreachable(f"cannot start {unit}: {finished.complaint}")


async def leave_to_supervisor(mirror: str) -> None:
    """The supervisor runs the store."""
