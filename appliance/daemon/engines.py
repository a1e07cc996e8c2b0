"""The mirror engine as the daemon uses it: made, opened by a store, reached by the others.

Owns the adaptation between control's words for drives and the engine's. Refuses nothing itself.
"""

from __future__ import annotations

import os
from pathlib import Path

from appliance.control.disks.creation import NewMirror
from appliance.control.disks.permissions import Owners
from appliance.core.errors import Unavailable
from appliance.core.ports import Clock, Entropy
from appliance.daemon.config import Config
from appliance.engine.interface import Engine


def make_mirror(
    new: NewMirror, *, clock: Clock, entropy: Entropy, owners: Owners | None = None
) -> None:
    """Lay out a new mirror on two empty drives. Blocking; durable on return."""
    from appliance.engine.mirror.create import NewDrive, NewMirrorPlan, create_mirror
    from appliance.system.files import DirectoryVolume

    volumes = [DirectoryVolume(member.path, member.drive_id) for member in new.members]
    index = DirectoryVolume(new.index_directory, "index")
    witness = DirectoryVolume(new.witness_file.parent, "witness")
    try:
        drives = [
            NewDrive(member.drive_id, volume, serial=member.serial, label=new.name)
            for member, volume in zip(new.members, volumes, strict=True)
        ]
        plan = NewMirrorPlan(
            new.mirror_id,
            drives,
            index,
            str(new.index_directory),
            witness,
            new.witness_file.name,
        )
        create_mirror(plan, clock=clock, entropy=entropy)
    finally:
        for volume in (*volumes, index, witness):
            volume.close()
    if owners is not None:
        for member in new.members:
            _give(member.path, owners)
        for directory in (new.index_directory, new.witness_file.parent):
            _give(directory, owners)


def _give(directory: Path, owners: Owners) -> None:
    """To the store, with everything the engine laid out in it: control works as root."""
    for place, _, names in os.walk(directory):
        os.chown(place, owners.store_user, owners.service_group)
        for name in names:
            os.chown(Path(place) / name, owners.store_user, owners.service_group)


async def connect(config: Config, mirror: str, *, role: str) -> Engine:
    """The engine behind a mirror's store. Raises ``Unreachable`` or ``Unavailable``."""
    raise Unavailable("soon")
