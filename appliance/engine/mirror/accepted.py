"""Losses the operator has accepted: parts of the log that no drive holds any more.

Owns the list of them on each drive, so that later starts, also of a drive alone or of one that
joined since, do not stop at them again. Invariant: only what was reported and then accepted is on
it; anything else that is bad on every drive is reported anew. A part that turns up again, on a
drive that comes back, is repaired in spite of the list.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgpack

from appliance.core.ports import Volume
from appliance.engine.mirror.scan import Damage
from appliance.engine.mirror.slots import PAYLOAD_BYTES_MAX, SlotFile, create_slots

LOSSES_PATH: Final = "losses"
_KIND: Final = 3


class Loss(NamedTuple):
    """A part of a segment's generation; ``length`` 0: all of it."""

    segment: int
    generation: int
    offset: int = 0
    length: int = 0

    def covers(self, damage: Damage) -> bool:
        """Whether the damage is no more than what was accepted."""
        if (self.segment, self.generation) != (damage.segment, damage.generation):
            return False
        if self.length == 0:
            return True
        end = self.offset + self.length
        return damage.length > 0 and self.offset <= damage.offset <= end - damage.length


def loss_of(damage: Damage) -> Loss:
    """What accepting this damage means."""
    return Loss(damage.segment, damage.generation, damage.offset, damage.length)


def read_losses(volume: Volume) -> set[Loss]:
    """What a drive remembers; a list that cannot be read is an empty one: its losses are reported
    again. Raises ``DriveFault``."""
    opened = SlotFile.open(volume, LOSSES_PATH, _KIND, write=False)
    if not isinstance(opened, SlotFile):
        return set()
    try:
        return {Loss(*map(int, fields)) for fields in msgpack.unpackb(opened.payload)}
    except (ValueError, TypeError):
        return set()
    finally:
        opened.close()


def write_losses(volume: Volume, losses: Iterable[Loss]) -> None:
    """Remember exactly these. Durable on return. Raises ``DriveFault``."""
    wanted = sorted(set(losses))
    packed = msgpack.packb(wanted)
    if len(packed) > PAYLOAD_BYTES_MAX:
        # So many that whole segments are lost; the newest matter most.
        segments = sorted({loss._replace(offset=0, length=0) for loss in wanted})
        while len(packed := msgpack.packb(segments)) > PAYLOAD_BYTES_MAX:
            segments.pop(0)
    create_slots(volume, LOSSES_PATH, _KIND, packed)
