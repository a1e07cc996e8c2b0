"""One drive's log: appending batches, and reading them and their records back.

Owns the files under ``log/`` of one drive. Appending is for the drive's lane alone; ``prepare`` may
run beside it. Refuses bytes that do not verify (``Damaged``). Invariant: when ``append`` returns,
the batch is on stable storage of this drive; after a ``DriveFault`` the log must be closed, and
opened anew on a fresh mount, before anything else is written.

Crash points of ``append``: any subset of the batch's blocks may be there; the checksums of its
header and payload tell whether all are. See ``scan`` for what follows from that.
"""

from __future__ import annotations

import copy
import errno
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from appliance.core.errors import Damaged, DriveFault
from appliance.core.ports import Buffer, File, Volume
from appliance.engine.mirror.format import (
    BATCH_HEADER_BYTES,
    BLOCK_BYTES,
    DecodedBatch,
    Location,
    LogRecord,
    decode_batch,
    decode_header,
    decode_record,
)
from appliance.engine.mirror.planner import BatchPlanner, NeedSegment, Tail, batch_bytes_max
from appliance.engine.mirror.scan import Damage, LogScan
from appliance.engine.mirror.segment import (
    FIRST_OFFSET,
    LOG_DIRECTORY,
    SegmentHeader,
    SegmentState,
    SegmentTable,
    encode_segment_header,
    prepare_segment,
    remove_unfinished,
    segment_path,
)

READERS_FILES_MAX: Final = 64
READ_AROUND_BYTES: Final = 64 * 1024
"""What one read takes from a drive: it costs hardly more than a record alone, and what was written
together is often read together."""

__all__ = [
    "BatchPlanner",
    "Damage",
    "Log",
    "LogReader",
    "LogScan",
    "NeedSegment",
    "SegmentState",
    "SegmentTable",
    "Tail",
    "batch_bytes_max",
]


class Log:
    """One drive's log, open for writing."""

    def __init__(self, volume: Volume, mirror_id: bytes, segment_size_bytes: int) -> None:
        """Raises ``DriveFault``. Makes the directory if there is none and drops what a cut-short
        preparation left."""
        assert segment_size_bytes % BLOCK_BYTES == 0
        self._volume = volume
        self._mirror_id = mirror_id
        self._size_bytes = segment_size_bytes
        self._current: tuple[int, File] | None = None
        if volume.stat(LOG_DIRECTORY) is None:
            volume.make_directory(LOG_DIRECTORY)
            volume.flush_directory("")
        remove_unfinished(volume)

    @property
    def volume(self) -> Volume:
        """The drive."""
        return self._volume

    def through(self, volume: Volume) -> Log:
        """The same log by another way to the same drive; nothing is touched."""
        log = copy.copy(self)
        log._volume, log._current = volume, None
        return log

    def append(self, batch: DecodedBatch) -> None:
        """Write a batch at its place: one write, durable on return. Raises ``DriveFault``."""
        place = batch.header.place
        assert place.mirror_id == self._mirror_id and place.offset >= FIRST_OFFSET
        assert place.offset + len(batch.data) <= self._size_bytes
        self._durable(place.segment).write_at(place.offset, batch.data)

    rewrite = append
    """For recovery: writes the last batch again, so that it is durable whoever left it behind."""

    def prepare(self, state: SegmentState) -> None:
        """Make a free segment. Any thread. Durable on return. Raises ``DriveFault``."""
        prepare_segment(self._volume, self._header(state))

    def recycle(self, state: SegmentState) -> None:
        """Overwrite a segment's header with ``state.generation`` (the next one): all it held is
        void. Durable on return, idempotent. Only after every record in it is dead and an index
        checkpoint past their relocation is flushed. Raises ``DriveFault``."""
        header = encode_segment_header(self._header(state))
        file = self._volume.open(segment_path(state.segment), write=True, durable=True)
        try:
            file.write_at(0, header)
        finally:
            file.close()

    def settle(self, free: Sequence[SegmentState]) -> None:
        """For recovery: the names and the headers of these free segments are durable on return. One
        that is seen may be in the drive's cache alone, if writing it failed or its writer died, and
        a batch behind it would be void without it. Raises ``DriveFault``."""
        for state in free:
            file = self._volume.open(segment_path(state.segment), write=True)
            try:
                file.flush()
            finally:
                file.close()
        self._volume.flush_directory(LOG_DIRECTORY)

    def remove(self, segment: int) -> None:
        """Unlink a segment of ``SegmentTable.removable``. Durable on return; a missing file is no
        error. Raises ``DriveFault``."""
        if self._volume.stat(segment_path(segment)) is not None:
            self._volume.unlink(segment_path(segment))
        self._volume.flush_directory(LOG_DIRECTORY)

    def _header(self, state: SegmentState) -> SegmentHeader:
        return SegmentHeader(self._mirror_id, state.segment, state.generation, self._size_bytes)

    def scan(self, after: Tail | None = None, *, records: bool = True) -> LogScan:
        """Every batch behind ``after`` (None: all), verified, in order; see ``LogScan``."""
        return LogScan(self._volume, self._mirror_id, self._size_bytes, after, records=records)

    def read_batch(self, segment: int, generation: int, offset: int) -> DecodedBatch:
        """The batch that begins at this place, read past the page cache. Raises ``Damaged``,
        ``DriveFault``."""
        file = _open_segment(self._volume, segment)
        try:
            head = decode_header(file.read_at(offset, BATCH_HEADER_BYTES, past_cache=True))
            place = head.place
            own = (place.mirror_id, place.segment, place.generation, place.offset)
            if own != (self._mirror_id, segment, generation, offset):
                raise Damaged("cannot read a batch: another one lies at its place")
            return decode_batch(file.read_at(offset, head.padded_bytes, past_cache=True))
        finally:
            file.close()

    def read_raw(self, segment: int, offset: int, length: int) -> bytes:
        """Bytes of a segment as they lie, past the page cache, for comparing and copying drives.
        Zeros where the file was cut short: whole blocks can only be written as such."""
        file = _open_segment(self._volume, segment, direct=True)
        try:
            return file.read_at(offset, length, past_cache=True).ljust(length, b"\0")
        finally:
            file.close()

    def write_raw(self, segment: int, offset: int, data: Buffer) -> None:
        """Repair: put the peer's verified bytes back. Whole blocks; durable on return."""
        file = self._volume.open(segment_path(segment), write=True, durable=True)
        try:
            file.write_at(offset, data)
        finally:
            file.close()

    def _durable(self, segment: int) -> File:
        if self._current is not None:
            if self._current[0] == segment:
                return self._current[1]
            self._current[1].close()
            self._current = None
        file = self._volume.open(segment_path(segment), write=True, durable=True)
        self._current = (segment, file)
        return file

    def close(self) -> None:
        """Idempotent. The volume stays open."""
        if self._current is not None:
            self._current[1].close()
            self._current = None


def _open_segment(volume: Volume, segment: int, *, direct: bool = False) -> File:
    """A segment for reading. Raises ``Damaged`` if there is none."""
    try:
        return volume.open(segment_path(segment), direct=direct)
    except DriveFault as fault:
        if fault.errno == errno.ENOENT:
            raise Damaged(f"drive {volume.name} has no log segment {segment:08x}") from fault
        raise


class _Handle:
    """An open segment and how many reads are in it."""

    __slots__ = ("dropped", "file", "users")

    def __init__(self, file: File) -> None:
        self.file = file
        self.users = 0
        self.dropped = False


class LogReader:
    """Reads single records of one drive's log, in any process, without write permission.

    Any thread. Keeps up to ``READERS_FILES_MAX`` segments open. A segment is recycled in place, so
    an open one stays right; a removed one is noticed because its records do not verify.
    """

    def __init__(self, volume: Volume, mirror_id: bytes) -> None:
        self._volume = volume
        self._mirror_id = mirror_id
        self._handles: OrderedDict[int, _Handle] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, location: Location, *, past_cache: bool = False) -> LogRecord:
        """The verified record at ``location``. Bytes that do not verify are read once more from a
        freshly opened file past the page cache. Raises ``Damaged``, ``DriveFault``."""
        if not past_cache:
            try:
                return self._read_once(location, past_cache=False)
            except Damaged:
                self._drop(location.segment)
        return self._read_once(location, past_cache=True)

    def read_cached(self, location: Location) -> LogRecord | None:
        """The verified record if its bytes are in memory; None, at once, otherwise and for bytes
        that do not verify: ``read`` says why."""
        with self._lock:
            handle = self._handles.get(location.segment)
            if handle is None:
                return None
            handle.users += 1
        try:
            data = handle.file.read_cached(location.offset, location.length)
        finally:
            self._give_back(handle)
        if data is None:
            return None
        try:
            return decode_record(data, location, self._mirror_id)
        except Damaged:
            return None

    def _read_once(self, location: Location, *, past_cache: bool) -> LogRecord:
        start, end = location.offset, location.offset + location.length
        if not past_cache:
            # Its neighbours come into memory with it.
            start -= start % READ_AROUND_BYTES
            end += -end % READ_AROUND_BYTES
        handle = self._take(location.segment)
        try:
            data = handle.file.read_at(start, end - start, past_cache=past_cache)
        finally:
            self._give_back(handle)
        at = location.offset - start
        return decode_record(data[at : at + location.length], location, self._mirror_id)

    def _take(self, segment: int) -> _Handle:
        with self._lock:
            handle = self._handles.get(segment)
            if handle is not None:
                self._handles.move_to_end(segment)
                handle.users += 1
                return handle
        # Opened outside the lock: a hung drive must stall only this read.
        fresh = _Handle(_open_segment(self._volume, segment))
        fresh.users = 1
        with self._lock:
            if segment in self._handles:
                fresh.dropped = True
                return fresh
            self._handles[segment] = fresh
            if len(self._handles) > READERS_FILES_MAX:
                self._retire(next(iter(self._handles)))
        return fresh

    def _give_back(self, handle: _Handle) -> None:
        with self._lock:
            handle.users -= 1
            if handle.dropped and handle.users == 0:
                handle.file.close()

    def _drop(self, segment: int) -> None:
        with self._lock:
            if segment in self._handles:
                self._retire(segment)

    def _retire(self, segment: int) -> None:
        """Under the lock: forget a segment; its file closes with its last read."""
        handle = self._handles.pop(segment)
        handle.dropped = True
        if handle.users == 0:
            handle.file.close()

    def close(self) -> None:
        """Idempotent."""
        with self._lock:
            for segment in list(self._handles):
                self._retire(segment)
