"""A new mirror, as the disk manager asks for it and as the engine lays it out.

Owns the adaptation between control's words for drives and the engine's, and that everything laid
out belongs to the store, although control works as root. Refuses nothing itself.
"""

from __future__ import annotations

import os
from pathlib import Path

from appliance.control.disks.creation import NewMirror
from appliance.control.disks.permissions import Owners
from appliance.engine.mirror.launch import DrivePath
from appliance.engine.mirror.launch import make_mirror as lay_out_mirror


def make_mirror(new: NewMirror, *, owners: Owners | None = None) -> None:
    """Lay out a new mirror on two empty drives. Blocking; durable on return."""
    lay_out_mirror(
        new.mirror_id,
        [
            DrivePath(member.drive_id, member.path, serial=member.serial, label=new.name)
            for member in new.members
        ],
        index_directory=new.index_directory,
        witness_file=new.witness_file,
    )
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
