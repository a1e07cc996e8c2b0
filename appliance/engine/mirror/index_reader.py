"""Reading the index: records, ranges and counters, each call from one snapshot.

Owns the shape of what the index says of a record. Invariant: a call never mixes two applied
batches. Used by the store on its own connection (``Index``) and by every other process on read-only
ones (``IndexReader``).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import apsw

from appliance.core.recordkeys import masked_name
from appliance.engine.mirror.format import BLOB_ID_BYTES, BlobKind, Location
from appliance.engine.mirror.index_file import connect, translated

READER_CACHE_BYTES: Final = 8 * 1024 * 1024
READ_TOGETHER_MAX: Final = 8
"""So many keys are read by one statement."""
_PLACE: Final = struct.Struct("<IIIIIBQ16s")
_SEGMENT: Final = struct.Struct("<II")
"""What ``_PLACE`` begins with."""
KIND_AT: Final = 20
"""Where in a packed place the blob's kind is; in front of it is the encoded location."""
_NO_BLOB_ID: Final = bytes(BLOB_ID_BYTES)

_READ: Final = (
    "SELECT key, value, version, charges, place FROM records WHERE partition = ? AND key = ?"
)
_SCAN: Final = (
    "SELECT key, value, version, charges, place FROM records"
    " WHERE partition = ? AND key >= ? AND key < ? ORDER BY key LIMIT ?"
)
_SCAN_REVERSE: Final = _SCAN.replace("ORDER BY key", "ORDER BY key DESC")
_SCAN_VALUES: Final = _SCAN.replace("version, charges, place", "version, NULL")
_SCAN_VALUES_REVERSE: Final = _SCAN_VALUES.replace("ORDER BY key", "ORDER BY key DESC")


@functools.cache
def _read_together(count: int) -> str:
    return _READ.replace("key = ?", f"key IN ({', '.join('?' * count)})")


class IndexedRecord(NamedTuple):
    """A living record as the index knows it. ``place`` is packed; the properties unpack it, which
    most callers of a long scan never need."""

    key: bytes
    value: bytes
    version: int
    charges: bytes
    place: bytes

    @property
    def location(self) -> Location:
        """Where the record lies in the log."""
        return Location(*_PLACE.unpack(self.place)[:5])

    @property
    def blob_kind(self) -> BlobKind:
        """Whether and where it has a blob."""
        return BlobKind(self.place[KIND_AT])

    @property
    def blob_size(self) -> int:
        """Length of the blob as it was written, 0 without one."""
        return int(_PLACE.unpack(self.place)[6])

    @property
    def blob_id(self) -> bytes:
        """The id of a file blob, else zeros."""
        return self.place[-BLOB_ID_BYTES:]


def pack_place(
    location: Location, blob_kind: BlobKind, blob_size: int, blob_id: bytes = _NO_BLOB_ID
) -> bytes:
    """What ``IndexedRecord.place`` holds."""
    return _PLACE.pack(*location, blob_kind, blob_size, blob_id)


@dataclass(frozen=True, slots=True)
class Position:
    """The last batch the index contains: it lies at [``offset``, ``end``) of the segment."""

    sequence: int
    incarnation: int
    crc: int
    segment: int
    generation: int
    offset: int
    end: int


class Reads:
    """What can be asked of a connection. One thread at a time."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._partitions: dict[str, int] = {}

    def _partition(self, partition: str) -> int:
        """The partition's number; -1 if it never had a record. Numbers never change."""
        number = self._partitions.get(partition)
        if number is None:
            row = self._only("SELECT id FROM partitions WHERE name = ?", (partition.encode(),))
            if row is None:
                return -1
            number = self._partitions[partition] = row[0]
        return number

    def read(self, partition: str, keys: Sequence[bytes]) -> list[IndexedRecord | None]:
        """The records of ``keys`` in order. Raises ``Damaged``, ``DriveFault``."""
        with translated("reading records"):
            number = self._partition(partition)
            if number < 0:
                return [None] * len(keys)
            if len(keys) == 1 or self._connection.in_transaction:
                return [self._one(number, key) for key in keys]
            if len(keys) <= READ_TOGETHER_MAX:
                # One statement sees one snapshot, at half the cost of a transaction around two.
                rows = self._cursor.execute(_read_together(len(keys)), (number, *keys))
                found = {row[0]: IndexedRecord._make(row) for row in rows}
                return [found.get(key) for key in keys]
            self._cursor.execute("BEGIN")
            try:
                return [self._one(number, key) for key in keys]
            finally:
                self._cursor.execute("COMMIT")

    def _one(self, number: int, key: bytes) -> IndexedRecord | None:
        row = self._only(_READ, (number, key))
        return None if row is None else IndexedRecord._make(row)

    def _only(self, query: str, bindings: Sequence[object] = ()) -> Any:
        """The one row, or None. Read to its end: a statement that is not keeps its snapshot, and no
        checkpoint gets past that, nor does the index's log start over."""
        rows = self._cursor.execute(query, bindings).fetchall()
        return rows[0] if rows else None

    def scan(
        self, partition: str, start: bytes, end: bytes, limit: int, reverse: bool = False
    ) -> list[IndexedRecord]:
        """Up to ``limit`` records in [start, end), by key. Raises ``Damaged``, ``DriveFault``."""
        query = _SCAN_REVERSE if reverse else _SCAN
        rows = self._rows(query, partition, start, end, limit)
        return list(map(IndexedRecord._make, rows))

    def scan_values(
        self, partition: str, start: bytes, end: bytes, limit: int, reverse: bool = False
    ) -> list[tuple[bytes, bytes, int, None]]:
        """As ``scan``, only (key, value, version, None) of each: a third of the cost."""
        query = _SCAN_VALUES_REVERSE if reverse else _SCAN_VALUES
        return self._rows(query, partition, start, end, limit)

    def _rows(self, query: str, partition: str, start: bytes, end: bytes, limit: int) -> list[Any]:
        with translated("scanning records"):
            number = self._partition(partition)
            if number < 0:
                return []
            return self._cursor.execute(query, (number, start, end, limit)).fetchall()

    def counters(self, partition: str) -> dict[bytes, int]:
        """All counters of a partition that are not zero."""
        with translated("reading counters"):
            query = "SELECT name, amount FROM counters WHERE partition = ? AND amount <> 0"
            rows: list[Any] = self._cursor.execute(query, (self._partition(partition),)).fetchall()
            return dict(rows)

    def counter(self, partition: str, name: bytes) -> int:
        """One counter, 0 if nothing charges it."""
        with translated("reading a counter"):
            query = "SELECT amount FROM counters WHERE partition = ? AND name = ?"
            row = self._only(query, (self._partition(partition), name))
            return 0 if row is None else int(row[0])

    def partitions(self) -> list[str]:
        """Every partition that ever had a record, sorted."""
        with translated("listing partitions"):
            query = "SELECT name FROM partitions ORDER BY name"
            rows: list[Any] = self._cursor.execute(query).fetchall()
            return [name.decode() for (name,) in rows]

    def in_segment(self, segment: int, generation: int) -> Iterator[tuple[str, IndexedRecord]]:
        """The living records that lie in a segment's generation: (partition, record). Looks at
        all records. Raises ``Damaged``, ``DriveFault``."""
        with translated("listing a segment's records"):
            rows: Iterable[Any] = self._cursor.execute(
                "SELECT name, key, value, version, charges, place FROM records"
                " JOIN partitions ON id = partition WHERE substr(place, 1, 8) = ?",
                (_SEGMENT.pack(segment, generation),),
            )
            for name, *fields in rows:
                yield name.decode(), IndexedRecord._make(fields)

    def position(self) -> Position | None:
        """The last batch applied, as this connection sees it; None in a fresh index."""
        with translated("reading its position"):
            row = self._only(
                "SELECT sequence, incarnation, crc, segment, generation, offset, end FROM position"
            )
            if row is None:
                return None
            return Position(row[0], int.from_bytes(row[1], "little"), *row[2:])

    def owner(self, blob_id: bytes) -> tuple[str, bytes] | None:
        """(partition, key) of the record that owns a file blob, or None."""
        with translated("looking for a blob's owner"):
            owner: tuple[str, bytes] | None = self._only(
                "SELECT CAST(p.name AS TEXT), b.key FROM blobs b JOIN partitions p"
                " ON p.id = b.partition WHERE b.blob_id = ?",
                (blob_id,),
            )
            return owner

    def blob_ids(self, after: bytes, limit: int) -> list[tuple[bytes, int]]:
        """(blob id, size) of owned file blobs with an id above ``after``, by id."""
        with translated("listing blobs"):
            query = "SELECT blob_id, size_bytes FROM blobs WHERE blob_id > ? ORDER BY 1 LIMIT ?"
            rows: list[Any] = self._cursor.execute(query, (after, limit)).fetchall()
            return rows

    def blob_versions(self, start: bytes, end: bytes, limit: int) -> list[tuple[bytes, int, int]]:
        """(blob id, size, version of its record) of owned file blobs with an id in [start, end), by
        id."""
        with translated("listing blobs and their versions"):
            query = (
                "SELECT b.blob_id, b.size_bytes, r.version FROM blobs b JOIN records r"
                " ON r.partition = b.partition AND r.key = b.key"
                " WHERE b.blob_id >= ? AND b.blob_id < ? ORDER BY 1 LIMIT ?"
            )
            rows: list[Any] = self._cursor.execute(query, (start, end, limit)).fetchall()
            return rows

    def living_in(self, segment: int, start: int, end: int) -> dict[str, int]:
        """How many living records touch [start, end) of a log segment, by partition. Reads the
        whole index."""
        found: dict[str, int] = {}
        with translated("looking for a segment's records"):
            query = (
                "SELECT CAST(p.name AS TEXT), r.place FROM records r JOIN partitions p"
                " ON p.id = r.partition WHERE substr(r.place, 1, 4) = ?"
            )
            for name, place in self._cursor.execute(query, (segment.to_bytes(4, "little"),)):
                location = Location(*_PLACE.unpack(place)[:5])
                if location.offset < end and location.offset + location.length > start:
                    found[name] = found.get(name, 0) + 1
        return found

    def words_for(self, partition: str, key: bytes) -> str:
        """A record for people who may not see its key."""
        (record,) = self.read(partition, [key])
        return masked_name(partition, key, 0 if record is None else record.version)

    def is_released(self, blob_id: bytes) -> bool:
        """Whether a blob has no owner any more and only awaits its unlinking."""
        with translated("looking for a released blob"):
            query = "SELECT 1 FROM released WHERE blob_id = ?"
            return self._only(query, (blob_id,)) is not None

    def check(self) -> list[str]:
        """SQLite's own check of the whole file, page checksums included: what is wrong with it."""
        with translated("checking it"):
            rows = self._cursor.execute("PRAGMA integrity_check(20)").fetchall()
            return [str(row[0]) for row in rows if row[0] != "ok"]


class IndexReader(Reads):
    """A read-only connection for another process or thread. One thread at a time. An index that was
    replaced by a rebuild stays readable but no longer changes: the store tells, open anew then."""

    def __init__(self, path: str, *, cache_bytes: int = READER_CACHE_BYTES) -> None:
        """Raises ``Damaged``, ``DriveFault``."""
        super().__init__(connect(path, write=False, cache_bytes=cache_bytes))

    def close(self) -> None:
        """Idempotent."""
        self._connection.close()
