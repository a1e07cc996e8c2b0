"""Reading every byte of blob files on all members, and judging each copy.

Owns the order of the reads. Refuses nothing but what ``Kit`` does. Invariant: a copy is good only
if all of its chunks verified, in a file of exactly the right length.

Files are read in rounds: on each drive several lanes take one piece after the other, of whatever
file is next, so that a drive is never without work while the round lasts. Whether the bytes are
right is found out where they were read, beside the other lanes' reads.
"""

from __future__ import annotations

import enum
import errno
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple, TypeAlias

from appliance.core.errors import DriveFault
from appliance.core.ports import Volume
from appliance.engine.mirror.blob import (
    CHUNK_BYTES,
    FRAME_BYTES,
    blob_path,
    decode_chunks,
    file_bytes,
    spans,
)
from appliance.engine.mirror.format import FileBlob
from appliance.engine.mirror.scrub_kit import PIECE_BYTES, Kit

ROUND_BYTES: Final = 32 * 1024 * 1024
ROUND_PARTS_MAX: Final = 256
ROUND_S: Final = 1.0
"""A round ends after about so long, so that the deadline is one for a few reads only."""


class Copy(enum.IntEnum):
    """What a drive's copy of a blob is, from good to worst."""

    GOOD = 0
    BAD = 1
    MISSING = 2


Copies: TypeAlias = dict[str, Copy]
"""By drive."""


class _Part(NamedTuple):
    """A piece of a blob's file, by the bytes of the blob."""

    blob: FileBlob
    start: int
    end: int

    @property
    def bytes_on_drive(self) -> int:
        return file_bytes(self.end - self.start)

    @property
    def is_last(self) -> bool:
        return self.end == self.blob.size_bytes


class BlobLooks:
    """Looks at blobs, as many at a time as keep the drives busy."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit

    def look(self, blobs: Iterable[FileBlob]) -> Iterator[tuple[FileBlob, Copies]]:
        """What the members' copies of each blob are, in order."""
        copies: Copies = {}
        for parts in _rounds(blobs):
            found = self._read(parts)
            for number, part in enumerate(parts):
                for drive, copy in found[number].items():
                    copies[drive] = max(copy, copies.get(drive, Copy.GOOD))
                if part.is_last:
                    yield part.blob, copies
                    copies = {}

    def _read(self, parts: list[_Part]) -> list[Copies]:
        """One round, in as many turns as it takes."""
        kit = self._kit
        found: list[Copies] = [{} for _ in parts]
        volumes = {drive: member.volume for drive, member in kit.members.items()}
        waiting = {drive: deque(enumerate(parts)) for drive in volumes}
        while any(waiting.values()):
            # Under a limit a turn is one part of each drive.
            size_bytes = max(queue[0][1].bytes_on_drive for queue in waiting.values() if queue)
            with kit.throttle.piece(size_bytes):
                kit.drives.together(
                    {
                        drive: [self._turn(drive, volumes, queue, found)] * kit.depth
                        for drive, queue in waiting.items()
                        if queue
                    }
                )
            kit.progress()
        for drive in volumes:
            kit.tally.of(drive).read_bytes += sum(part.bytes_on_drive for part in parts)
        return found

    def _turn(
        self,
        drive: str,
        volumes: Mapping[str, Volume],
        waiting: deque[tuple[int, _Part]],
        found: list[Copies],
    ) -> Callable[[], None]:
        """What each lane of a drive does: take part after part until none is left, clients want
        the drive, or it took long enough."""
        clock, throttle = self._kit.state.clock, self._kit.throttle
        volume, end_s = volumes[drive], clock.monotonic_s() + ROUND_S

        def turn() -> None:
            while True:
                try:
                    number, part = waiting.popleft()
                except IndexError:
                    return
                found[number][drive] = _judged(volume, part)
                if throttle.is_gentle or clock.monotonic_s() > end_s:
                    return

        return turn


def _rounds(blobs: Iterable[FileBlob]) -> Iterator[list[_Part]]:
    """The parts of the blobs in order, some at a time."""
    parts: list[_Part] = []
    size_bytes = 0
    for blob in blobs:
        cuts = list(spans(0, blob.size_bytes, PIECE_BYTES)) or [(0, 0)]
        for start, end in cuts:
            parts.append(_Part(blob, start, end))
            size_bytes += parts[-1].bytes_on_drive
            if size_bytes >= ROUND_BYTES or len(parts) >= ROUND_PARTS_MAX:
                yield parts
                parts, size_bytes = [], 0
    if parts:
        yield parts


def _judged(volume: Volume, part: _Part) -> Copy:
    """Raises ``DriveFault`` for anything but a bad spot."""
    try:
        file = volume.open(blob_path(part.blob.blob_id), direct=True)
    except DriveFault as fault:
        if fault.errno == errno.ENOENT:
            return Copy.MISSING
        if not fault.is_bad_spot:
            raise
        return Copy.BAD
    try:
        if file.size_bytes() != file_bytes(part.blob.size_bytes):
            return Copy.BAD
        first, last = part.start // CHUNK_BYTES, -(-part.end // CHUNK_BYTES)
        offset = first * FRAME_BYTES
        raw = file.read_at(offset, file_bytes(part.end) - offset, past_cache=True)
        blob = part.blob
        payloads = decode_chunks(blob.blob_id, blob.size_bytes, first, last, raw)
        return Copy.BAD if payloads is None else Copy.GOOD
    except DriveFault as fault:
        if not fault.is_bad_spot:
            raise
        return Copy.BAD
    finally:
        file.close()
