"""Making one drive's files equal to another's: blobs and log segments, for a state transfer.

Owns the comparing and copying. Refuses nothing: what the source cannot read is counted and passed
over, and what the target already has there is kept, so that one bad spot on the last good drive
never keeps a second copy of all the rest from being made. Invariant: a blob file of the target is
left alone only when every byte of it verifies, or when its name and length are enough by ``trust``.

Crash points of a blob, in order: (1) part of ``<id>.part``: dropped by the next attempt; (2) all of
it, flushed; (3) its final name; (4) its directory flushed, with those of all blobs of the round. Of
a segment: (1) part of ``<id>.new``: removed when the log is opened; (2) flushed; (3) its name; (4)
the directory flushed. Of one that is there already: (1) some blocks; (2) all; (3) its header, which
makes the generation right last. Nothing of it counts before the join, so that an attempt after the
crash compares all that ``trust`` does not vouch for.

Blocking; any thread, and the pieces of the work on the threads of the crew.
"""

from __future__ import annotations

import errno
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Final, TypeVar

from appliance.core.errors import Damaged, DataLost, DriveFault, DriveTimeout
from appliance.core.ports import Volume
from appliance.engine.mirror.accepted import read_losses, write_losses
from appliance.engine.mirror.adoption import (
    COPY_BYTES,
    PARTIAL_SUFFIX,
    Pacer,
    copy_blob,
    is_verified,
    is_whole,
    unlink_quietly,
    unpaced,
)
from appliance.engine.mirror.blob import (
    BLOB_DIRECTORY,
    BLOB_ID_BYTES,
    STAGING_DIRECTORY,
    blob_bytes,
    blob_directory,
    blob_id_of,
    blob_path,
    file_bytes,
)
from appliance.engine.mirror.crew import Crew, Piece, in_turn
from appliance.engine.mirror.format import BLOCK_BYTES, FileBlob
from appliance.engine.mirror.index import IndexReader
from appliance.engine.mirror.member import Member
from appliance.engine.mirror.segment import (
    LOG_DIRECTORY,
    SegmentHeader,
    SegmentState,
    encode_segment_header,
    segment_path,
)
from appliance.engine.mirror.trust import Trust

T = TypeVar("T")

BLOB_DIRECTORIES: Final = 256
PAGE: Final = 1000
_AFTER_ALL: Final = b"\xff" * (BLOB_ID_BYTES + 1)
SPOTS_MAX: Final = 10_000
"""Spots that could not be read and are remembered one by one; all are counted."""


@dataclass(frozen=True, slots=True)
class Spot:
    """Something no member could be read at: a blob, or [``offset``, ``offset`` + ``length``) of a
    log segment."""

    blob_id: bytes = b""
    segment: int = 0
    offset: int = 0
    length: int = 0


@dataclass(slots=True)
class ResyncProgress:
    """How far it is, in bytes. ``read_bytes`` were compared, ``copied_bytes`` written. What could
    not be read on the members does not block the join. Any thread."""

    done_bytes: int = 0
    total_bytes: int = 0
    read_bytes: int = 0
    copied_bytes: int = 0
    unreadable: int = 0
    spots: list[Spot] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)
    """How many records live at these spots, by partition: the contract that owns them."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, *, done: int = 0, read: int = 0, copied: int = 0) -> None:
        """So many bytes more."""
        with self._lock:
            self.done_bytes = min(self.done_bytes + done, max(self.total_bytes, 0))
            self.read_bytes += read
            self.copied_bytes += copied

    def lose(self, spot: Spot) -> None:
        """The source has no good copy of this."""
        with self._lock:
            self.unreadable += 1
            if len(self.spots) < SPOTS_MAX:
                self.spots.append(spot)


class Transfer:
    """From the members to a drive that is to become one. ``sources``: the one to read from, then
    those to ask for what it cannot give."""

    def __init__(
        self,
        sources: Sequence[Member],
        target: Member,
        progress: ResyncProgress,
        *,
        pace: Pacer = unpaced,
        crew: Crew = in_turn,
    ) -> None:
        self._sources = sources
        self._target = target
        self.progress: Final = progress
        self._chosen = pace
        self._pace, self._crew = pace, crew
        self._touched: set[str] = set()
        self._absent: list[bytes] = []
        """Blobs no source could give, and one has no file of: released meanwhile, or lost."""

    def hurry(self, *, hurried: bool) -> None:
        """Whether somebody waits: then nothing rests."""
        self._pace = unpaced if hurried else self._chosen

    def pace(self, size_bytes: int) -> AbstractContextManager[None]:
        """Wait until so many bytes may be read; see ``Pacer``."""
        return self._pace(size_bytes)

    def work(self, pieces: Iterator[Piece]) -> None:
        """Have the crew do all of these."""
        self._crew(pieces)

    # -- blobs ---------------------------------------------------------------------------------

    def compare_blobs(self, index: IndexReader, trust: Trust) -> None:
        """Copy what the target lacks or has wrong, remove what nobody owns and the source has not.
        All names are durable on return."""
        target = self._target.volume
        for directory in (BLOB_DIRECTORY, STAGING_DIRECTORY):
            target.make_directory(directory)
        target.flush_directory("")
        self._crew(self._comparing(index, trust))
        self.flush_names()

    @property
    def misses_files(self) -> bool:
        """Whether ``count_absent`` has something to look at."""
        return bool(self._absent)

    def count_absent(self, index: IndexReader) -> None:
        """Of the blobs whose files are gone, those that still have an owner are lost."""
        absent, self._absent = self._absent, []
        for blob_id in absent:
            if index.owner(blob_id) is not None:
                self.progress.lose(Spot(blob_id=blob_id))

    def _comparing(self, index: IndexReader, trust: Trust) -> Iterator[Piece]:
        for number, versions in enumerate(_versions(index)):
            directory = blob_directory(bytes([number]))
            there = set(_names(self._target.volume, directory))
            # Before any piece of it is given out: a piece may be making one of the same name anew.
            for name in [name for name in there if not blob_id_of(name)]:
                unlink_quietly(self._target.volume, f"{directory}/{name}")
                there.discard(name)
            for name in self._first_of(partial(_names, directory=directory)):
                blob_id = blob_id_of(name)
                if not blob_id:
                    continue
                there.discard(name)
                size, version = versions.pop(blob_id, (-1, None))
                yield partial(self._compare, blob_id, size, trust.in_blob(version))
            # A file the source has lost: the target may have the last good copy.
            for blob_id, (size, _) in versions.items():
                there.discard(blob_id.hex())
                yield partial(self._compare, blob_id, size, False)
            for name in there:
                unlink_quietly(self._target.volume, f"{directory}/{name}")

    def _compare(self, blob_id: bytes, size_bytes: int, is_trusted: bool) -> None:
        if size_bytes < 0:  # released, or adopted a moment ago: only its file tells
            found = self._first_of(lambda volume: volume.stat(blob_path(blob_id)))
            if found is None:
                return
            size_bytes = blob_bytes(found.size_bytes)
        blob = FileBlob(blob_id, size_bytes)
        if not (is_trusted and is_whole(self._target.volume, blob_path(blob_id), size_bytes)):
            self.copy_blob(blob)

    def copy_losses(self) -> None:
        """What the operator accepted to lose is lost on the target as well."""
        losses = self._first_of(read_losses)
        if losses != read_losses(self._target.volume):
            write_losses(self._target.volume, losses)

    def copy_blob(self, blob: FileBlob) -> None:
        """Make the target's copy of one blob good; its name is durable after ``flush_names``."""
        path, target = blob_path(blob.blob_id), self._target.volume
        length = file_bytes(blob.size_bytes)
        if is_verified(target, path, blob, self._pace):
            self.progress.add(done=length, read=length)
            return
        directory = blob_directory(blob.blob_id)
        if directory not in self._touched:
            target.make_directory(directory)
            self._touched.add(directory)
        self._copy_from_any(blob, path)
        self.progress.add(done=length, read=length)

    def _copy_from_any(self, blob: FileBlob, path: str) -> None:
        target, is_absent = self._target.volume, False
        for source in self._sources:
            try:
                copy_blob(source.volume, path, target, path, blob, self._pace)
            except DataLost:
                continue
            except DriveFault as fault:
                if not _is_passed_over(fault, source):
                    raise
                is_absent = is_absent or fault.errno == errno.ENOENT
                continue
            self.progress.add(copied=file_bytes(blob.size_bytes))
            return
        unlink_quietly(target, path + PARTIAL_SUFFIX)
        if is_absent:
            self._absent.append(blob.blob_id)
        else:
            self.progress.lose(Spot(blob_id=blob.blob_id))

    def _first_of(self, look: Callable[[Volume], T]) -> T:
        """What the first source says that can say anything."""
        for source in self._sources[:-1]:
            try:
                return look(source.volume)
            except DriveFault as fault:
                if not _is_passed_over(fault, source):
                    raise
        return look(self._sources[-1].volume)

    def flush_names(self) -> None:
        """The names of all copied blobs are durable on return."""
        target = self._target.volume
        if self._touched:
            target.flush_directory(BLOB_DIRECTORY)
        for directory in sorted(self._touched):
            target.flush_directory(directory)
        self._touched.clear()

    # -- the log -------------------------------------------------------------------------------

    def copy_whole(self, state: SegmentState, header: SegmentHeader) -> None:
        """A segment the target lacks: under its final name once it is whole and flushed."""
        path, target = segment_path(state.segment), self._target.volume
        partial_path = f"{path}.new"
        unlink_quietly(target, partial_path)
        file = target.open(partial_path, write=True, create=True, direct=True)
        try:
            file.allocate(header.size_bytes)
            for offset in range(0, header.size_bytes, COPY_BYTES):
                length = min(COPY_BYTES, header.size_bytes - offset)
                with self._pace(length):
                    data = bytearray(length)
                    for at, piece in self._read(self._sources[0], state.segment, offset, length):
                        data[at - offset : at - offset + len(piece)] = piece
                    if offset == 0:
                        data[:BLOCK_BYTES] = encode_segment_header(header)
                    file.write_at(offset, data)
            file.flush()
        finally:
            file.close()
        target.rename(partial_path, path)
        target.flush_directory(LOG_DIRECTORY)
        self.progress.add(read=header.size_bytes, copied=header.size_bytes)

    def copy_differences(
        self, segment: int, start: int, end: int, source: Member | None = None
    ) -> None:
        """Make [start, end) of the target's segment equal to a source's, by default the first's, as
        far as that can be read. Whole blocks."""
        for offset in range(start, end, COPY_BYTES):
            length = min(COPY_BYTES, end - offset)
            with self._pace(length):
                for at, data in self._read(source or self._sources[0], segment, offset, length):
                    self.progress.add(read=2 * len(data))
                    if self._read_target(segment, at, len(data)) != data:
                        self._target.log.write_raw(segment, at, data)
                        self.progress.add(copied=len(data))

    def _read(
        self, source: Member, segment: int, offset: int, length: int
    ) -> list[tuple[int, bytes]]:
        """What can be read of [offset, offset + length), block by block if need be."""
        try:
            return [(offset, source.log.read_raw(segment, offset, length))]
        except DriveFault as fault:
            if not fault.is_bad_spot:
                raise
            if length <= BLOCK_BYTES:
                return []
        blocks = range(offset, offset + length, BLOCK_BYTES)
        return [
            found for block in blocks for found in self._read(source, segment, block, BLOCK_BYTES)
        ]

    def _read_target(self, segment: int, offset: int, length: int) -> bytes:
        """What the target has; nothing where it cannot be read, for writing may mend that."""
        try:
            return self._target.log.read_raw(segment, offset, length)
        except Damaged:
            return b""
        except DriveFault as fault:
            if not fault.is_bad_spot:
                raise
            return b""


def count_lost(index: IndexReader, spots: Sequence[Spot]) -> dict[str, int]:
    """How many living records lie at these spots, by partition."""
    found: Counter[str] = Counter()
    for spot in spots:
        if spot.blob_id:
            owner = index.owner(spot.blob_id)
            if owner is not None:
                found[owner[0]] += 1
        else:
            found.update(index.living_in(spot.segment, spot.offset, spot.offset + spot.length))
    return dict(found)


def _is_passed_over(fault: DriveFault, source: Member) -> bool:
    """Whether the next source may be asked instead. A source that hangs ends the transfer."""
    return fault.drive == source.volume.name and not isinstance(fault, DriveTimeout)


def _names(volume: Volume, directory: str) -> list[str]:
    return volume.names(directory) if volume.stat(directory) is not None else []


def _versions(index: IndexReader) -> Iterator[dict[bytes, tuple[int, int | None]]]:
    """For each directory of blobs in turn, size and version of every owned one in it."""
    groups = groupby(_owned(index), lambda row: row[0][0])
    first, rows = next(groups, (BLOB_DIRECTORIES, iter(())))
    for number in range(BLOB_DIRECTORIES):
        if number < first:
            yield {}
            continue
        yield {blob_id: (size, version) for blob_id, size, version in rows}
        first, rows = next(groups, (BLOB_DIRECTORIES, iter(())))


def _owned(index: IndexReader) -> Iterator[tuple[bytes, int, int]]:
    """Id, size and version of every owned blob, by id, read a page at a time."""
    start = b""
    while page := index.blob_versions(start, _AFTER_ALL, PAGE):
        yield from page
        start = page[-1][0] + b"\0"
