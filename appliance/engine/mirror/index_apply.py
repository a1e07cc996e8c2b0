"""One batch's changes to the index: collected record by record, written table by table.

Owns what a log record means for the index. Invariant: a counter is the sum of the charges of the
living records, a segment's sum is the bytes of the living records in it, and a file blob has one
owner or is released.

A log whose segments were freed out of order shows a record that gave its blob away only long after
the one that took it. So a blob goes with a record only if that record owns it, and whoever takes a
blob takes it from the released ones too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import apsw

from appliance.engine.mirror.format import (
    BlobKind,
    DecodedBatch,
    Kind,
    Location,
    LogRecord,
    decode_charges,
    decode_file_blob,
    decode_manifest,
)
from appliance.engine.mirror.index_reader import IndexedRecord, pack_place

_OLD: Final = "SELECT version, charges, place FROM records WHERE partition = ? AND key = ?"
_PUT: Final = (
    "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET value ="
    " excluded.value, version = excluded.version, charges = excluded.charges,"
    " place = excluded.place"
)
_DELETE: Final = "DELETE FROM records WHERE partition = ? AND key = ?"
_COUNT: Final = (
    "INSERT INTO counters VALUES (?, ?, ?)"
    " ON CONFLICT DO UPDATE SET amount = amount + excluded.amount"
)
_COUNTED_OUT: Final = "DELETE FROM counters WHERE partition = ? AND name = ? AND amount = 0"
_SEGMENT: Final = (
    "INSERT INTO segments VALUES (?, ?)"
    " ON CONFLICT DO UPDATE SET live_bytes = live_bytes + excluded.live_bytes"
)
_SEGMENT_EMPTY: Final = "DELETE FROM segments WHERE segment = ? AND live_bytes = 0"
_TOMBSTONES: Final = (
    "INSERT INTO tombstones VALUES (?, ?) ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes"
)
_TOMBSTONES_OF: Final = "SELECT segment FROM tombstones"
_TOMBSTONES_GONE: Final = "DELETE FROM tombstones WHERE segment = ?"
_OWNER: Final = "SELECT partition, key FROM blobs WHERE blob_id = ?"
_OWN: Final = "INSERT OR REPLACE INTO blobs VALUES (?, ?, ?, ?)"
_UNRELEASE: Final = "DELETE FROM released WHERE blob_id = ?"
_DISOWN: Final = "DELETE FROM blobs WHERE blob_id = ?"
_RELEASE: Final = "INSERT OR REPLACE INTO released VALUES (?, ?, ?)"


class _Row(NamedTuple):
    """A record as the batch leaves it."""

    value: bytes
    version: int
    charges: bytes
    place: bytes


class Changes:
    """The changes of one batch. Used once, inside one transaction."""

    def __init__(self, cursor: apsw.Cursor, number_of: Callable[[str], int]) -> None:
        self._cursor = cursor
        self._number_of = number_of
        self._numbers: dict[bytes, int] = {}
        self._rows: dict[tuple[int, bytes], _Row | None] = {}
        self._counts: dict[tuple[int, bytes], int] = {}
        self._segments: dict[int, int] = {}
        self._owned: dict[bytes, tuple[int, int, bytes]] = {}
        self._released: dict[bytes, int] = {}
        self._tombstones: dict[int, int] = {}
        self._entered: tuple[int, frozenset[int]] | None = None
        self.outcomes: list[tuple[bytes, int]] = []
        """(request id, version) of each commit in the batch."""

    def collect(self, batch: DecodedBatch) -> None:
        """Work out what the batch's records change, in their order."""
        for record, location in batch.entries:
            if record.request_id:
                self.outcomes.append((record.request_id, record.version))
            kind = record.kind
            if kind is Kind.PUT or kind is Kind.MOVE:
                self._put(record, location)
            elif kind is Kind.DELETE:
                self._delete(record)
                segment, length = location.segment, location.length
                self._tombstones[segment] = self._tombstones.get(segment, 0) + length
            elif kind is Kind.MANIFEST:
                used = frozenset(entry.segment for entry in decode_manifest(record).entries)
                self._entered = (location.segment, used)
        self._time_ns = batch.header.place.time_ns

    def _number(self, partition: bytes) -> int:
        number = self._numbers.get(partition)
        if number is None:
            number = self._numbers[partition] = self._number_of(partition.decode())
        return number

    def _old(self, at: tuple[int, bytes]) -> tuple[int, bytes, bytes] | None:
        """(version, charges, place) of a record before this one of the batch."""
        if at in self._rows:
            row = self._rows[at]
            return None if row is None else (row.version, row.charges, row.place)
        return self._cursor.execute(_OLD, at).fetchone()

    def _put(self, record: LogRecord, location: Location) -> None:
        at = (self._number(record.partition), record.key)
        old = self._old(at)
        if old is not None:
            if record.kind is Kind.MOVE and old[0] > record.version:
                # A move never brings back what was replaced since.
                return
            self._take_back(at, old)
        if record.blob_kind is BlobKind.FILE:
            blob = decode_file_blob(record.blob)
            place = pack_place(location, BlobKind.FILE, blob.size_bytes, blob.blob_id)
            self._owned[blob.blob_id] = (blob.size_bytes, at[0], record.key)
        else:
            place = pack_place(location, record.blob_kind, len(record.blob))
        if record.charges:
            self._charge(at[0], record.charges, 1)
        self._segments[location.segment] = self._segments.get(location.segment, 0) + location.length
        self._rows[at] = _Row(record.value, record.version, record.charges, place)

    def _delete(self, record: LogRecord) -> None:
        at = (self._number(record.partition), record.key)
        old = self._old(at)
        if old is not None:
            self._take_back(at, old)
        self._rows[at] = None

    def _take_back(self, at: tuple[int, bytes], old: tuple[int, bytes, bytes]) -> None:
        """Undo what a living record adds: its charges, its bytes, its blob."""
        version, charges, place = old
        if charges:
            self._charge(at[0], charges, -1)
        record = IndexedRecord(at[1], b"", version, charges, place)
        location = record.location
        self._segments[location.segment] = self._segments.get(location.segment, 0) - location.length
        if record.blob_kind is BlobKind.FILE and self._owner(record.blob_id) == at:
            self._owned.pop(record.blob_id, None)
            self._released[record.blob_id] = record.blob_size

    def _owner(self, blob_id: bytes) -> tuple[int, bytes] | None:
        """(partition, key) of who owns a blob before this record of the batch."""
        owned = self._owned.get(blob_id)
        if owned is not None:
            return owned[1], owned[2]
        if blob_id in self._released:
            return None
        return self._cursor.execute(_OWNER, (blob_id,)).fetchone()

    def _charge(self, number: int, charges: bytes, sign: int) -> None:
        for counter, amount in decode_charges(charges):
            at = (number, counter)
            self._counts[at] = self._counts.get(at, 0) + sign * amount

    def write(self) -> None:
        """Write the collected changes, inside the caller's transaction."""
        many = self._cursor.executemany
        puts = [(*at, *row) for at, row in self._rows.items() if row is not None]
        if puts:
            many(_PUT, puts)
        deletes = [at for at, row in self._rows.items() if row is None]
        if deletes:
            many(_DELETE, deletes)
        counts = [(*at, amount) for at, amount in self._counts.items() if amount]
        if counts:
            many(_COUNT, counts)
            sunk = [at for at, amount in self._counts.items() if amount < 0]
            if sunk:
                many(_COUNTED_OUT, sunk)
        segments = [(segment, change) for segment, change in self._segments.items() if change]
        if segments:
            many(_SEGMENT, segments)
            many(_SEGMENT_EMPTY, [(segment,) for segment, change in segments if change < 0])
        self._write_tombstones()
        self._write_blobs()

    def _write_tombstones(self) -> None:
        """A segment that is entered holds none of before; one that is not used any more, none."""
        many = self._cursor.executemany
        if self._entered is not None:
            segment, used = self._entered
            known = [row[0] for row in self._cursor.execute(_TOMBSTONES_OF).fetchall()]
            many(_TOMBSTONES_GONE, [(one,) for one in known if one == segment or one not in used])
        if self._tombstones:
            many(_TOMBSTONES, list(self._tombstones.items()))

    def _write_blobs(self) -> None:
        many = self._cursor.executemany
        if self._released:
            many(_DISOWN, [(blob_id,) for blob_id in self._released])
            many(_RELEASE, [(i, size, self._time_ns) for i, size in self._released.items()])
        if self._owned:
            many(_OWN, [(blob_id, *owner) for blob_id, owner in self._owned.items()])
            many(_UNRELEASE, [(blob_id,) for blob_id in self._owned])
