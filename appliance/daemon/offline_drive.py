"""A drive opened and replayed for one tool, with the engine and object layers over it.

Owns the opening and closing of everything between a path and the object layer. Refuses what
``examined`` and ``OfflineDrive`` refuse.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance.core.ports import Clock, Entropy, KeyStore
from appliance.daemon.offline import Telling
from appliance.engine.interface import Engine
from appliance.engine.mirror.index import Index
from appliance.engine.mirror.offline import OfflineDrive
from appliance.objects.context import Context, open_context
from appliance.objects.limits import ObjectLimits
from appliance.runtime.clock import SystemClock, SystemEntropy
from appliance.system.examine import examined

_CLOCK: Clock = SystemClock()
_ENTROPY: Entropy = SystemEntropy()


@dataclass(frozen=True, slots=True)
class Opened:
    """A drive whose log was replayed. ``access``: in words, how its bytes are reached."""

    path: Path
    access: str
    drive: OfflineDrive
    index: Index


@contextmanager
def opened_drive(path: Path, scratch: Path, telling: Telling) -> Iterator[Opened]:
    """Open and replay; everything is closed at the end. ``scratch`` is this drive's alone."""
    with (
        examined(path, scratch) as (volume, access),
        closing(OfflineDrive(volume)) as drive,
    ):
        place = scratch / "index"
        place.mkdir()
        index = drive.replay(place, telling.progress(f"reading the log of {path}"))
        yield Opened(path, access, drive, index)


def object_context(engine: Engine, keys: KeyStore, hashing: ThreadPoolExecutor) -> Context:
    """The object layer's context over an engine that only reads."""
    return open_context(engine, keys, _CLOCK, _ENTROPY, ObjectLimits(), hashing)
