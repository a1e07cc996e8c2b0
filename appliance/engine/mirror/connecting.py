"""The call by which a process uses a mirror whose store is another process.

Owns the real clock and randomness of that engine. Apart from ``launch``, so that gateways do not
load the store: they start sooner and are smaller.
"""

from __future__ import annotations

from pathlib import Path

from appliance.engine.mirror.client import ClientSettings, MirrorEngine
from appliance.engine.mirror.port import PeerPort
from appliance.runtime.clock import SystemClock, SystemEntropy


async def connect_engine(
    socket: Path, *, role: str, settings: ClientSettings | None = None
) -> MirrorEngine:
    """An engine over the store that listens, or will, on ``socket``. Returns at once: calls raise
    ``Unavailable`` until ``engine.ready()``. ``role`` is who we are ("gateway", "control", ...)."""
    chosen = settings or ClientSettings()
    port = PeerPort(socket, role, SystemClock(), patience_s=chosen.patience_s)
    engine = MirrorEngine(
        port, name=role, clock=SystemClock(), entropy=SystemEntropy(), settings=chosen
    )
    await engine.start()
    return engine
