"""One drive of a mirror, read without its store: identity, log, and an index made from the log.

Owns the replay of a lone drive's log into an index in a scratch directory. Refuses a directory that
is no drive of a mirror (``NotFound``). Writes nothing to the drive (see ``readonly``).

Which batches count is what recovery says: every batch that verifies and follows its predecessor,
up to the log's end; a torn tail was never acknowledged. What does not verify is reported, never
passed over silently. Where the drive itself knows that it left the mirror, the log ends with the
sequence of its leave: whatever lies behind was never acknowledged there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from appliance.core.epochs import History
from appliance.core.errors import Damaged, DriveFault, NotFound
from appliance.core.ports import Progress, Volume
from appliance.engine.mirror.accepted import Loss, read_losses
from appliance.engine.mirror.format import BLOCK_BYTES, BatchHeader, DecodedBatch
from appliance.engine.mirror.index import Index
from appliance.engine.mirror.log import Damage, LogScan, SegmentTable, Tail
from appliance.engine.mirror.readonly import ReadOnlyVolume
from appliance.engine.mirror.segment import (
    LOG_DIRECTORY,
    decode_segment_header,
    segment_ids,
    segment_path,
)
from appliance.engine.mirror.superblock import Superblock, read_superblock

BATCHES_AT_ONCE: Final = 256
INDEX_NAME: Final = "index-00000001.db"
ENDS_KEPT: Final = 16
WAL_PAGES_MAX: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose a drive is. Without a superblock that can be read, ``trouble`` says why and the log's
    segments tell the rest."""

    mirror_id: bytes
    segment_size_bytes: int
    superblock: Superblock | None
    trouble: str = ""


@dataclass(slots=True)
class LogFindings:
    """What a walk through the log came to. ``bytes_read`` are those of batches that verify.
    ``beyond_leave`` counts batches behind the drive's leave, which do not count."""

    table: SegmentTable = field(default_factory=SegmentTable)
    tail: Tail = field(default_factory=Tail)
    torn: bool = False
    damage: list[Damage] = field(default_factory=list)
    accepted: frozenset[Loss] = frozenset()
    batches: int = 0
    records: int = 0
    bytes_read: int = 0
    beyond_leave: int = 0
    first: BatchHeader | None = None
    last: BatchHeader | None = None
    ends: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=ENDS_KEPT))
    """(sequence, CRC) of the last few batches, for comparing where two logs end."""

    @property
    def unaccepted(self) -> list[Damage]:
        """Damage nobody has accepted as a loss."""
        return [d for d in self.damage if not any(loss.covers(d) for loss in self.accepted)]


def identify(volume: Volume) -> Identity:
    """Whose drive this is. Raises ``NotFound`` for none of a mirror's, ``DriveFault``."""
    found = read_superblock(volume)
    if isinstance(found, Superblock) and found.mirror_id:
        return Identity(bytes.fromhex(found.mirror_id), found.segment_size_bytes, found)
    if isinstance(found, Superblock):
        trouble = "it is claimed, and in no mirror yet"
    else:
        trouble = getattr(found, "reason", "") or "it has no superblock"
    header = _any_segment_header(volume)
    if header is None:
        raise NotFound(f"cannot find a mirror's data on {volume.name}: {trouble}, and no log")
    mirror_id, size_bytes = header
    return Identity(mirror_id, size_bytes, None, trouble)


def _any_segment_header(volume: Volume) -> tuple[bytes, int] | None:
    """The mirror and segment size that the log's segments name."""
    if volume.stat(LOG_DIRECTORY) is None:
        return None
    for segment in segment_ids(volume):
        try:
            file = volume.open(segment_path(segment))
            try:
                header = decode_segment_header(file.read_at(0, BLOCK_BYTES))
            finally:
                file.close()
        except (Damaged, DriveFault):
            continue
        return header.mirror_id, header.size_bytes
    return None


def left_at(drive_id: str, history: History) -> int | None:
    """The sequence the drive left with, if the newest epoch it knows is without it and an earlier
    one says so; None while it counts as in sync, by all it knows itself."""
    if not history or drive_id in history[-1].in_sync:
        return None
    for epoch in reversed(history):
        for leave in epoch.leaves:
            if leave.drive_id == drive_id:
                return leave.sequence
        if drive_id in epoch.in_sync:
            return None
    return None


class OfflineDrive:
    """One drive, open for looking. Blocking; one thread at a time. ``close`` ends it."""

    def __init__(self, volume: Volume) -> None:
        """Takes the volume over. Raises ``NotFound``, ``DriveFault``."""
        self.volume: Final = ReadOnlyVolume(volume)
        self.identity: Final = identify(self.volume)
        self.log: Final = LogFindings()
        self.index: Index | None = None

    @property
    def name(self) -> str:
        """The drive's id, or how it was called."""
        superblock = self.identity.superblock
        return self.volume.name if superblock is None else superblock.drive_id

    def replay(self, directory: Path, progress: Progress) -> Index:
        """Read the whole log and make the index it adds up to, in ``directory``, which is empty.
        Progress is in bytes of the log. Raises ``DriveFault`` (the drive's, or ``index`` for the
        directory's)."""
        assert self.index is None, "a drive is replayed once"
        self.index = Index.create(str(directory / INDEX_NAME), self.identity.mirror_id)
        self.log.accepted = frozenset(read_losses(self.volume))
        chunk: list[DecodedBatch] = []
        for batch in self._batches(progress):
            chunk.append(batch)
            if len(chunk) == BATCHES_AT_ONCE:
                self._apply(chunk)
        self._apply(chunk)
        self.index.shorten_wal()
        return self.index

    def _apply(self, chunk: list[DecodedBatch]) -> None:
        assert self.index is not None, "made before"
        self.index.apply_many(chunk)
        chunk.clear()
        if self.index.wal_pages > WAL_PAGES_MAX:
            self.index.shorten_wal()

    def _batches(self, progress: Progress) -> Iterator[DecodedBatch]:
        """The batches that count, while what else there is is noted."""
        log, size_bytes = self.log, self.identity.segment_size_bytes
        superblock = self.identity.superblock
        left = None if superblock is None else left_at(superblock.drive_id, superblock.history)
        scan = LogScan(self.volume, self.identity.mirror_id, size_bytes, None)
        entered: set[int] = set()
        total = 0
        for found in scan:
            if isinstance(found, Damage):
                log.damage.append(found)
                continue
            place = found.header.place
            total = total or len(scan.table.used()) * size_bytes
            entered.add(place.segment)
            progress((len(entered) - 1) * size_bytes + place.offset, total)
            if left is not None and place.sequence > left:
                log.beyond_leave += 1
                continue
            self._note(found)
            yield found
        log.table, log.tail, log.torn = scan.table, scan.tail, scan.torn
        progress(total, total)

    def _note(self, batch: DecodedBatch) -> None:
        log = self.log
        log.batches += 1
        log.records += len(batch.entries)
        log.bytes_read += len(batch.data)
        log.first = log.first or batch.header
        log.last = batch.header
        log.ends.append((batch.header.place.sequence, batch.header.crc))

    def close(self) -> None:
        """Idempotent."""
        if self.index is not None:
            self.index.close()
            self.index = None
        self.volume.close()
