"""Whether a present drive may be brought (back) into the mirror, and what it still has of it.

Owns the judgement on an outsider and the superblock it is given. Refuses a drive of another mirror,
one whose history went its own way, and one that cannot be read: only a claim wipes a drive.
Committer thread only.
"""

from __future__ import annotations

from dataclasses import replace

from appliance.core.errors import Refused
from appliance.core.histories import is_older
from appliance.core.ports import Volume
from appliance.engine.mirror.state import MirrorState
from appliance.engine.mirror.superblock import (
    Blank,
    Superblock,
    SuperblockFile,
    Unreadable,
    format_drive,
    read_superblock,
)


class WentItsOwnWay(Refused):
    """The drive holds another history than ours."""


def claim_outsider(state: MirrorState, volume: Volume) -> SuperblockFile:
    """The outsider's superblock, given one of this mirror if it has none. Raises ``Refused``."""
    found = read_superblock(volume)
    if isinstance(found, Unreadable):
        raise Refused(f"cannot bring drive {volume.name} in: {found.reason}; claim it anew")
    fresh = Superblock(
        drive_id=volume.name,
        mirror_id=state.mirror_id,
        segment_size_bytes=state.segment_size_bytes,
        created_ns=state.clock.now_ns(),
    )
    if isinstance(found, Blank):
        format_drive(volume, fresh)
    elif not found.mirror_id:
        format_drive(
            volume,
            replace(found, mirror_id=state.mirror_id, segment_size_bytes=state.segment_size_bytes),
        )
    elif found.mirror_id != state.mirror_id:
        raise Refused(f"cannot bring drive {volume.name} in: it belongs to another mirror")
    elif found.history and not is_older(found.history, state.votes.history):
        raise WentItsOwnWay(
            f"cannot bring drive {volume.name} in: its history went its own way; its data is kept "
            "until it is claimed"
        )
    opened = SuperblockFile.open(volume)
    if not isinstance(opened, SuperblockFile):
        raise Refused(f"cannot bring drive {volume.name} in: its superblock cannot be opened")
    return opened
