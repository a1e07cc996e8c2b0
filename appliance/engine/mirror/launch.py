"""The calls by which a process makes a mirror, or runs its store; for ``connect_engine`` see
``connecting``.

Owns the real clock, randomness and directories handed to the engine. Everything else in this
package is injected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.core.ports import Clock, Entropy
from appliance.engine.mirror.client import ClientSettings, MirrorEngine
from appliance.engine.mirror.create import NewDrive, NewMirrorPlan, create_mirror
from appliance.engine.mirror.port import LocalPort
from appliance.engine.mirror.segment import SEGMENT_BYTES_DEFAULT
from appliance.engine.mirror.service import StoreService
from appliance.engine.mirror.state import StoreSettings
from appliance.runtime.clock import SystemClock, SystemEntropy
from appliance.runtime.ipc import Server, serve
from appliance.system.files import DirectoryVolume

CLOCK: Final[Clock] = SystemClock()
ENTROPY: Final[Entropy] = SystemEntropy()


@dataclass(frozen=True, slots=True)
class DrivePath:
    """A claimed, empty drive, mounted at ``path``."""

    drive_id: str
    path: Path
    serial: str = ""
    label: str = ""


def make_mirror(
    mirror_id: str,
    drives: Sequence[DrivePath],
    *,
    index_directory: Path,
    witness_file: Path,
    segment_size_bytes: int = SEGMENT_BYTES_DEFAULT,
) -> None:
    """Lay out a new mirror; ``mirror_id`` is 32 hexadecimal digits. Blocking; durable on return; an
    interrupted call is simply made again. Raises ``InvalidInput``, ``Refused``, ``DriveFault``."""
    index_directory.mkdir(parents=True, exist_ok=True)
    witness_file.parent.mkdir(parents=True, exist_ok=True)
    volumes = [DirectoryVolume(drive.path, drive.drive_id) for drive in drives]
    index = DirectoryVolume(index_directory, "index")
    witness = DirectoryVolume(witness_file.parent, "witness")
    try:
        create_mirror(
            NewMirrorPlan(
                mirror_id,
                [
                    NewDrive(drive.drive_id, volume, drive.serial, drive.label)
                    for drive, volume in zip(drives, volumes, strict=True)
                ],
                index,
                str(index_directory),
                witness,
                witness_file.name,
                segment_size_bytes,
            ),
            clock=CLOCK,
            entropy=ENTROPY,
        )
    finally:
        for volume in (*volumes, index, witness):
            volume.close()


class RunningStore:
    """A store that answers on its socket."""

    def __init__(self, service: StoreService, server: Server) -> None:
        self.service: Final = service
        self._server = server

    async def close(self) -> None:
        """Answer what was handed over, then end. Idempotent."""
        await self.service.close()
        await self._server.close()


async def open_store(
    socket: Path, assembly: object, *, settings: StoreSettings | None = None, mode: int = 0o660
) -> RunningStore:
    """Run the store of one mirror in this process. ``assembly`` is control's message:
    ``{"mirror": name, "members": [{"drive", "path", "serial"}], "index_directory",
    "witness_file"}``. Returns at once: ``service.serving`` is set while the mirror is open; before,
    everything is answered with ``Unavailable``. Call ``service.assembly_changed`` with each
    new message. Raises ``InvalidInput``, ``Unreachable`` (another store listens there)."""
    service = StoreService(clock=CLOCK, entropy=ENTROPY, settings=settings)
    server = await serve(
        socket,
        service.handlers(),
        mode=mode,
        on_open=service.peer_opened,
        on_close=service.peer_closed,
        role="store",
    )
    try:
        service.start(assembly)
    except BaseException:
        await server.close()
        raise
    return RunningStore(service, server)


async def local_engine(
    service: StoreService, *, role: str = "local", settings: ClientSettings | None = None
) -> MirrorEngine:
    """An engine over a store in this process. See ``connect_engine``."""
    chosen = settings or ClientSettings()
    port = LocalPort(service, CLOCK, patience_s=chosen.patience_s)
    engine = MirrorEngine(port, name=role, clock=CLOCK, entropy=ENTROPY, settings=chosen)
    await engine.start()
    return engine
