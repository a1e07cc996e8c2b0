"""Reading a mirror: a snapshot of the index, and verified bytes from either drive.

Owns the open index connections (one per thread) and blob files of one process. Refuses with
``DataLost`` only when no drive has a valid copy. Invariant: no byte leaves that did not verify by
checksum and identity.

A copy that does not verify is looked up again (it may have moved), read past the page cache, asked
of the other drive, and reported as suspect: the store repairs it. Blocking; any thread.
"""

from __future__ import annotations

import errno
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from awscrt.checksums import crc32c

from appliance.core.errors import Damaged, DataLost, DriveFault, Unavailable
from appliance.core.ports import File, Volume
from appliance.engine.interface import BlobRef, Record
from appliance.engine.mirror.blob import blob_path, read_range
from appliance.engine.mirror.format import BlobKind, LogRecord
from appliance.engine.mirror.index import IndexReader
from appliance.engine.mirror.log import LogReader
from appliance.engine.mirror.place import (
    FilePlace,
    InlinePlace,
    decode_place,
    encode_inline,
    to_record,
)

T = TypeVar("T")
BLOB_FILES_MAX: Final = 128
INDEX: Final = "index"
"""What reports call the index, as they call a drive by its id."""


class DriveReader:
    """One drive as a source of bytes."""

    def __init__(self, drive: str, volume: Volume, mirror_id: bytes) -> None:
        self.drive: Final = drive
        self.log: Final = LogReader(volume, mirror_id)
        self._volume = volume
        self._files: OrderedDict[bytes, File] = OrderedDict()
        self._lock = threading.Lock()
        self._closed = False

    def read_file(self, blob_id: bytes, size: int, start: int, end: int) -> bytes:
        """A verified range of a blob file. Raises ``Damaged``, ``DriveFault``."""
        file = self._take(blob_id)
        data = None
        try:
            data = read_range(file, blob_id, size, start, end)
        finally:
            if data is None:
                file.close()
            else:
                self._give_back(blob_id, file)
        if data is None:
            data = self._read_afresh(blob_id, size, start, end)
        if data is None:
            raise Damaged(f"blob {blob_id.hex()} does not verify on drive {self.drive}")
        return data

    def _read_afresh(self, blob_id: bytes, size: int, start: int, end: int) -> bytes | None:
        """Past the cache, from a freshly opened file: the store may have replaced a bad one."""
        with self._lock:
            stale = self._files.pop(blob_id, None)
        if stale is not None:
            stale.close()
        file = self._volume.open(blob_path(blob_id))
        try:
            return read_range(file, blob_id, size, start, end, past_cache=True)
        finally:
            file.close()

    def _take(self, blob_id: bytes) -> File:
        """An open file nobody else is using: it leaves the shelf while it is read."""
        with self._lock:
            file = self._files.pop(blob_id, None)
        return file or self._volume.open(blob_path(blob_id))

    def _give_back(self, blob_id: bytes, file: File) -> None:
        spare: File | None = file
        with self._lock:
            if blob_id not in self._files and not self._closed:
                self._files[blob_id] = file
                spare = self._files.popitem(last=False)[1] if self._is_full() else None
        if spare is not None:
            spare.close()

    def _is_full(self) -> bool:
        return len(self._files) > BLOB_FILES_MAX

    def close(self) -> None:
        """Close what no read is using; a read under way closes its own."""
        self.log.close()
        with self._lock:
            self._closed = True
            files, self._files = self._files, OrderedDict()
        for file in files.values():
            file.close()


Suspect = Callable[[str, bytes, str], None]
"""Told a drive, the place that did not verify there, and why."""


class _Sources:
    """The drives, and both orders they are asked in."""

    __slots__ = ("drives", "turns")

    def __init__(self, drives: Mapping[str, DriveReader]) -> None:
        self.drives = drives
        straight = list(drives.values())
        self.turns = (straight, straight[::-1])


class MirrorReader:
    """Reads one mirror in one process."""

    def __init__(self, open_index: Callable[[], IndexReader], suspect: Suspect) -> None:
        self._open_index = open_index
        self._suspect = suspect
        self._local = threading.local()
        self._indexes: list[IndexReader] = []
        self._lock = threading.Lock()
        self._sources = _Sources({})
        self._index_number = 0

    def use(self, drives: Mapping[str, DriveReader]) -> None:
        """Read from these drives from now on."""
        self._sources = _Sources(drives)

    def reopen_index(self) -> None:
        """The store made a new index: every thread opens it at its next read."""
        with self._lock:
            self._index_number += 1

    def index(self) -> IndexReader:
        """This thread's connection. Raises ``Unavailable`` while there is no index."""
        current: IndexReader | None = getattr(self._local, "index", None)
        if current is not None and self._local.number == self._index_number:
            return current
        opened = self._open_index()
        with self._lock:
            self._local.number = self._index_number
            self._indexes.append(opened)
            if current is not None:
                self._indexes.remove(current)
        if current is not None:
            current.close()
        self._local.index = opened
        return opened

    def read(self, partition: str, keys: Sequence[bytes]) -> list[Record | None]:
        """From one snapshot."""
        name = partition.encode()
        try:
            rows = self.index().read(partition, keys)
        except Damaged as damage:
            raise self._bad_index(damage) from damage
        return [None if row is None else to_record(row, name) for row in rows]

    def scan(
        self,
        partition: str,
        start: bytes,
        end: bytes,
        limit: int,
        reverse: bool,
        *,
        blobs: bool = True,
    ) -> list[Record]:
        """From one snapshot; without ``blobs`` the records do not tell theirs."""
        name = partition.encode()
        try:
            if not blobs:
                values = self.index().scan_values(partition, start, end, limit, reverse=reverse)
                return list(map(Record._make, values))
            rows = self.index().scan(partition, start, end, limit, reverse=reverse)
        except Damaged as damage:
            raise self._bad_index(damage) from damage
        return [to_record(row, name) for row in rows]

    def _bad_index(self, damage: Damaged) -> Unavailable:
        """Nobody is answered from a bad index; the store proves it and builds a new one."""
        self._suspect(INDEX, b"", str(damage))
        return Unavailable("the index is damaged and is built anew")

    def counters(self, partition: str) -> Mapping[bytes, int]:
        """All counters that are not zero."""
        return self.index().counters(partition)

    def read_blob(
        self,
        blob: BlobRef,
        start: int,
        end: int,
        *,
        avoid: frozenset[str] = frozenset(),
        asking: list[str] | None = None,
    ) -> bytes:
        """The verified range [start, end) of a blob; drives to ``avoid`` are asked last. Each drive
        is added to ``asking`` before it is touched. Raises ``DataLost``, ``Unavailable``."""
        place = decode_place(blob.place)
        if isinstance(place, FilePlace):
            return self._from_any(
                blob.place,
                avoid,
                lambda drive: drive.read_file(place.blob_id, blob.size_bytes, start, end),
                asking=asking,
            )
        return self._read_inline(blob, place, avoid, asking)[start:end]

    def order(self, place: bytes, avoid: frozenset[str] = frozenset()) -> list[DriveReader]:
        """The drives in the order they are asked for a place: always the same one first, so that
        its bytes are cached once, and half the places on each drive; those to ``avoid`` last."""
        drives = self._sources.turns[crc32c(place) & 1]
        return sorted(drives, key=lambda drive: drive.drive in avoid) if avoid else drives

    def read_cached(self, blob: BlobRef, start: int, end: int) -> bytes | None:
        """The verified range of an inline blob if it is in memory; None, at once, if a drive would
        have to be asked: then ``read_blob`` is for a thread."""
        place = decode_place(blob.place)
        drives = self.order(blob.place)
        if isinstance(place, FilePlace) or not drives:
            return None
        record = drives[0].log.read_cached(place.location)
        if record is None:
            return None
        try:
            return _inline_blob(record, place, blob.size_bytes)[start:end]
        except Damaged:
            return None

    def _read_inline(
        self, blob: BlobRef, place: InlinePlace, avoid: frozenset[str], asking: list[str] | None
    ) -> bytes:
        def read(drive: DriveReader) -> bytes:
            return _inline_blob(drive.log.read(place.location), place, blob.size_bytes)

        try:
            return self._from_any(blob.place, avoid, read, report=False, asking=asking)
        except DataLost:
            (row,) = self.index().read(place.partition, [place.key])
            if row is None or row.version != place.version or row.location == place.location:
                # Released and over its grace, or really bad: ask again, and let it be known.
                return self._from_any(blob.place, avoid, read, asking=asking)
        moved = InlinePlace(row.location, row.version, place.partition, place.key)
        new = BlobRef(blob.size_bytes, encode_inline(row, place.partition.encode()))
        return self._read_inline(new, moved, avoid, asking)

    def _from_any(
        self,
        place: bytes,
        avoid: frozenset[str],
        read: Callable[[DriveReader], bytes],
        *,
        report: bool = True,
        asking: list[str] | None = None,
    ) -> bytes:
        """From the first drive that has it; the drives that have not are reported once it is known
        that the bytes exist, or that they do not."""
        drives = self.order(place, avoid)
        if not drives:
            raise Unavailable("no drive of the mirror can be read now")
        failed: list[tuple[str, str]] = []
        for drive in drives:
            if asking is not None:
                asking.append(drive.drive)
            try:
                data = read(drive)
            except (Damaged, DriveFault) as fault:
                if isinstance(fault, DriveFault) and fault.errno == errno.EBADF:
                    raise Unavailable("the mirror's drives are being exchanged") from fault
                failed.append((drive.drive, str(fault)))
                continue
            for name, reason in failed:
                self._suspect(name, place, reason)
            return data
        if report:
            for name, reason in failed:
                self._suspect(name, place, reason)
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failed)
        raise DataLost(f"no drive holds a valid copy ({reasons})")

    def close(self) -> None:
        """Close every connection and file. No read may be under way."""
        with self._lock:
            indexes, self._indexes = self._indexes, []
        for index in indexes:
            index.close()
        for drive in self._sources.drives.values():
            drive.close()


def _inline_blob(record: LogRecord, place: InlinePlace, size_bytes: int) -> bytes:
    if record.key != place.key or record.version != place.version:
        raise Damaged("cannot read a blob: another record lies at its place")
    if record.blob_kind is not BlobKind.INLINE or len(record.blob) != size_bytes:
        raise Damaged("cannot read a blob: its record does not carry it")
    return record.blob
