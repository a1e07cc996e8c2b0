"""The index at the start: opened, replayed, or built anew from the log.

Owns the choice between them. Invariant: the index that is served has exactly the batches of the
log; one whose last batch is not in the log is never believed.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from typing import Final

from appliance.core.errors import Damaged, DriveFault
from appliance.core.ports import Volume
from appliance.engine.mirror.accepted import Loss
from appliance.engine.mirror.format import DecodedBatch
from appliance.engine.mirror.index import (
    Index,
    Position,
    building_name,
    newest_index,
    publish,
    remove_others,
)
from appliance.engine.mirror.index_file import CONDEMNED, remove_unpublished
from appliance.engine.mirror.log import Log
from appliance.engine.mirror.planner import Tail

REPLAY_BATCHES: Final = 256
"""Batches in one transaction."""
CHECKPOINT_PAGES: Final = 16 * 1024

_log = logging.getLogger(__name__)


def open_index(
    directory: Volume, path: str, mirror_id: bytes, is_in_log: Callable[[Position], bool]
) -> tuple[Index, Position | None]:
    """The newest index if it is whole and of this log, else an empty one under a new name. With its
    position: what follows it must be replayed. Raises ``DriveFault`` of the index's device."""
    remove_unpublished(directory)
    name = newest_index(directory)
    if name is not None:
        index = _open_sound(f"{path}/{name}", mirror_id, is_in_log)
        if index is not None:
            return index, index.position()
    name = publish(directory, create_index(directory, path, mirror_id))
    remove_others(directory, name)
    return Index.open(f"{path}/{name}", mirror_id), None


def copy_for_reading(index: Index, directory: Volume, path: str, mirror_id: bytes) -> Index:
    """A copy of the index that is never published: what is replayed into it, past a hole in the
    log, is believed by nobody after this life. Closes the original. Raises ``DriveFault``."""
    name = building_name(directory)
    index.copy_to(f"{path}/{name}")
    index.close()
    return Index.open(f"{path}/{name}", mirror_id)


def condemn(directory: Volume, name: str) -> None:
    """Never open this index again: what it says was found wrong. Its number stays taken, for a new
    index must not meet its write-ahead log. Who has it open may go on. Raises ``DriveFault``."""
    if directory.stat(name) is not None:
        directory.rename(name, f"{name}{CONDEMNED}")
        directory.flush_directory("")


def create_index(directory: Volume, path: str, mirror_id: bytes) -> str:
    """An empty index, closed, not published yet; its name."""
    building = building_name(directory)
    Index.create(f"{path}/{building}", mirror_id).close()
    return building


def _open_sound(path: str, mirror_id: bytes, is_in_log: Callable[[Position], bool]) -> Index | None:
    try:
        index = Index.open(path, mirror_id)
    except (Damaged, DriveFault) as error:
        _log.warning("the index cannot be used and is built anew: %s", error)
        return None
    try:
        position = index.position()
        if position is None or is_in_log(position):
            return index
        _log.warning("the index ends with a batch that is not in the log: it is built anew")
    except Damaged as error:
        _log.warning("the index is damaged and is built anew: %s", error)
    except BaseException:
        index.close()
        raise
    index.close()
    return None


def tail_after(position: Position | None) -> Tail | None:
    """The end of the log as the index knows it."""
    if position is None:
        return None
    return Tail(
        position.sequence, position.crc, position.segment, position.generation, position.end
    )


def has_batch(log: Log, position: Position) -> bool:
    """Whether the log has exactly the batch an index ends with. Raises ``DriveFault``."""
    try:
        batch = log.read_batch(position.segment, position.generation, position.offset)
    except Damaged:
        return False
    header = batch.header
    place = header.place
    return (place.sequence, place.incarnation, header.crc) == (
        position.sequence,
        position.incarnation,
        position.crc,
    )


def replay(index: Index, log: Log, after: Tail | None, lost: Collection[Loss] = ()) -> int:
    """Apply what the log has behind ``after``; how many batches. Nothing is passed over but what
    is known to be ``lost``: raises ``DriveFault`` for a drive that does not give back what its log
    was found to have, ``Damaged`` for an index that is older than what was freed since."""
    batches = _batches(log, after, lost)
    count = 0
    while chunk := list(islice(batches, REPLAY_BATCHES)):
        index.apply_many(chunk)
        count += len(chunk)
        if index.wal_pages > CHECKPOINT_PAGES:
            index.shorten_wal()
    return count


def _batches(log: Log, after: Tail | None, lost: Collection[Loss]) -> Iterator[DecodedBatch]:
    expected = 0 if after is None else after.sequence + 1
    for found in log.scan(after):
        if isinstance(found, DecodedBatch):
            sequence = found.header.place.sequence
            if expected and sequence != expected:
                # What was freed may have held the delete of a record that such an index still has.
                raise Damaged(
                    f"the index ends before batch {expected}, which is freed already: it is an"
                    " older copy"
                )
            expected = expected and sequence + 1
            yield found
        elif any(known.covers(found) for known in lost):
            expected = 0
        else:
            raise DriveFault(log.volume.name, "reading its log again", errno.EIO, found.reason)
