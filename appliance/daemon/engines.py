"""The mirror engine as control and gateways reach it.

Owns nothing but the waiting for a store. Refuses nothing itself.
"""

from __future__ import annotations

from appliance.daemon.config import Config
from appliance.engine.interface import Engine
from appliance.engine.mirror.connecting import connect_engine


async def connect(config: Config, mirror: str, *, role: str) -> Engine:
    """The engine behind a mirror's store; waits until that serves."""
    engine = await connect_engine(config.store_socket(mirror), role=role.replace(" ", "-"))
    try:
        await engine.ready()
    except BaseException:
        await engine.close()
        raise
    return engine
