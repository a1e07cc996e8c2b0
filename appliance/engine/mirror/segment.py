"""Log segments: their header, and the table of which are used and free.

Owns segment files' names and first block, and the choice of the next segment, which is the same on
every drive because it depends on the log alone. Refuses nothing by itself; a header that does not
verify is ``Damaged``. Invariant: a (segment, generation) pair is written once, front to back, and a
segment id whose file was removed is never used again, so a location never means two things.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final

from awscrt.checksums import crc32c

from appliance.core.errors import Damaged, DriveFault
from appliance.core.ports import Buffer, Volume
from appliance.engine.mirror.format import BLOCK_BYTES, Manifest, ManifestEntry

LOG_DIRECTORY: Final = "log"
SEGMENT_BYTES_DEFAULT: Final = 64 * 1024 * 1024
FIRST_OFFSET: Final = BLOCK_BYTES
"""Where the first batch of a segment lies."""

_MAGIC: Final = b"APLSEGMT"
_FORMAT: Final = 1
_HEADER: Final = struct.Struct("<8sHH16sIIQ")
_CRC: Final = struct.Struct("<I")
_PREPARING: Final = ".new"
_ZEROS_BYTES: Final = 1024 * 1024


def segment_path(segment: int) -> str:
    """The file of a segment on each drive."""
    return f"{LOG_DIRECTORY}/{segment:08x}"


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """The first block of a segment."""

    mirror_id: bytes
    segment: int
    generation: int
    size_bytes: int


def encode_segment_header(header: SegmentHeader) -> bytes:
    """One block. Everything is within its first 512 bytes, which a drive writes as one sector."""
    head = _HEADER.pack(
        _MAGIC, _FORMAT, 0, header.mirror_id, header.segment, header.generation, header.size_bytes
    )
    return (head + _CRC.pack(crc32c(head))).ljust(BLOCK_BYTES, b"\0")


def decode_segment_header(data: Buffer) -> SegmentHeader:
    """Inverse of ``encode_segment_header``. Raises ``Damaged``."""
    if len(data) < _HEADER.size + _CRC.size:
        raise Damaged("cannot read a segment's header: too few bytes")
    magic, form, _, mirror_id, segment, generation, size_bytes = _HEADER.unpack_from(data)
    (crc,) = _CRC.unpack_from(data, _HEADER.size)
    if magic != _MAGIC or crc != crc32c(bytes(data[: _HEADER.size])):
        raise Damaged("cannot read a segment's header: its checksum is wrong")
    if form != _FORMAT:
        raise Damaged(f"cannot read a segment's header: format {form} is newer than this program")
    return SegmentHeader(mirror_id, segment, generation, size_bytes)


def prepare_segment(volume: Volume, header: SegmentHeader) -> None:
    """Make a segment of really written zeros, durable on return. Any thread; touches no other file.
    Raises ``DriveFault``; what is left then is removed by ``remove_unfinished``, at once if the
    drive is only full.

    Really written, so that an append later changes no metadata of the file system: one write, one
    flush. Crash points: before the rename the unfinished file is dropped at the next open; after it
    the segment is whole and free.
    """
    path = segment_path(header.segment)
    temporary = path + _PREPARING
    if volume.stat(temporary) is not None:
        volume.unlink(temporary)
    zeros = bytes(_ZEROS_BYTES)
    file = volume.open(temporary, write=True, create=True)
    try:
        file.allocate(header.size_bytes)
        for offset in range(0, header.size_bytes, _ZEROS_BYTES):
            file.write_at(offset, zeros[: header.size_bytes - offset])
        file.write_at(0, encode_segment_header(header))
        file.flush()
    except DriveFault as fault:
        if fault.errno in {errno.ENOSPC, errno.EDQUOT}:
            volume.unlink(temporary)
        raise
    finally:
        file.close()
    volume.rename(temporary, path)
    volume.flush_directory(LOG_DIRECTORY)


def remove_unfinished(volume: Volume) -> None:
    """Drop segments whose preparation was cut short. Raises ``DriveFault``."""
    for name in volume.names(LOG_DIRECTORY):
        if name.endswith(_PREPARING):
            volume.unlink(f"{LOG_DIRECTORY}/{name}")


def segment_ids(volume: Volume) -> list[int]:
    """The segments that lie on a drive, rising. Foreign names are passed over."""
    ids = []
    for name in volume.names(LOG_DIRECTORY):
        if len(name) == 8 and not name.strip("0123456789abcdef"):
            ids.append(int(name, 16))
    return ids


@dataclass(frozen=True, slots=True)
class SegmentState:
    """A segment of the mirror. Free while ``first_sequence`` is 0."""

    segment: int
    generation: int
    first_sequence: int = 0
    last_sequence: int = 0


class SegmentTable:
    """Which segments exist, and which are used. Pure; one thread. The same for every drive."""

    def __init__(
        self,
        states: Collection[SegmentState] = (),
        *,
        next_segment: int = 1,
        listed: Iterable[int] = (),
    ) -> None:
        """``listed``: the segments the newest manifest in the log names."""
        self._states = {state.segment: state for state in states}
        self._free = {state.segment for state in states if not state.first_sequence}
        self._next_segment = max([next_segment, *(s + 1 for s in self._states)])
        self._listed = frozenset(listed)

    def states(self) -> list[SegmentState]:
        """All, by id."""
        return [self._states[segment] for segment in sorted(self._states)]

    def get(self, segment: int) -> SegmentState | None:
        """One, or None if there is no such segment."""
        return self._states.get(segment)

    def used(self) -> list[SegmentState]:
        """By first sequence, so from old to new."""
        used = [state for state in self._states.values() if state.first_sequence]
        return sorted(used, key=lambda state: state.first_sequence)

    def free(self) -> list[SegmentState]:
        """By id: the first is entered next."""
        return [self._states[segment] for segment in sorted(self._free)]

    @property
    def free_count(self) -> int:
        """How many are free; asked before every batch."""
        return len(self._free)

    def next_to_prepare(self) -> SegmentState:
        """The segment to prepare when more free ones are wanted; then call ``prepared``."""
        return SegmentState(self._next_segment, 1)

    def prepared(self, state: SegmentState) -> None:
        """A free segment exists on every in-sync drive from now on."""
        assert state.segment not in self._states and state.segment >= self._next_segment
        self._states[state.segment] = replace(state, first_sequence=0, last_sequence=0)
        self._free.add(state.segment)
        self._next_segment = state.segment + 1

    def recycled(self, segment: int) -> SegmentState:
        """The header with the next generation is durable on every in-sync drive."""
        state = self._states[segment]
        fresh = SegmentState(segment, state.generation + 1)
        self._states[segment] = fresh
        self._free.add(segment)
        return fresh

    def removable(self) -> list[SegmentState]:
        """Free segments that no manifest at the log's end still names as used: only their files may
        be unlinked, for a named one that is missing counts as lost."""
        return [state for state in self.free() if state.segment not in self._listed]

    def removed(self, segment: int) -> None:
        """The segment's file is unlinked on every in-sync drive."""
        assert not self._states[segment].first_sequence
        del self._states[segment]
        self._free.discard(segment)

    def manifest_on_entering(self, segment: int, sequence: int) -> Manifest:
        """The manifest for the first batch, ``sequence``, of a free segment."""
        state = self._states[segment]
        entries = [
            ManifestEntry(s.segment, s.generation, s.first_sequence, s.last_sequence)
            for s in self.used()
        ]
        entries.append(ManifestEntry(segment, state.generation, sequence, 0))
        return Manifest(self._next_segment, entries)

    def written(self, segment: int, sequence: int) -> None:
        """Batch ``sequence`` is durable in ``segment``."""
        state = self._states[segment]
        if state.first_sequence:
            self._states[segment] = replace(state, last_sequence=sequence)
            return
        self._listed = frozenset([*(s.segment for s in self.used()), segment])
        self._states[segment] = replace(state, first_sequence=sequence, last_sequence=sequence)
        self._free.discard(segment)
