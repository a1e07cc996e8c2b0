"""The index: what the log adds up to, in one SQLite database.

Owns all writing of it. Derived from the log and from nothing else; after losing it, a scan of the
log rebuilds it equal. Invariant: one transaction per batch moves records, counters, blobs, segment
sums, request outcomes and the position together, so whatever a crash leaves is the state after some
batch, and ``position`` says which.

The writer's methods belong to one thread; ``checkpoint`` may run beside them on another.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import apsw

from appliance.core.errors import Damaged
from appliance.engine.mirror.format import RECORD_HEADER_BYTES, REQUEST_ID_BYTES, DecodedBatch
from appliance.engine.mirror.index_apply import Changes
from appliance.engine.mirror.index_file import (
    BUSY_MS,
    building_name,
    connect,
    newest_index,
    publish,
    remove_others,
    translated,
)
from appliance.engine.mirror.index_reader import IndexedRecord, IndexReader, Position, Reads
from appliance.engine.mirror.record import sequence_of

WRITER_CACHE_BYTES: Final = 48 * 1024 * 1024
REQUEST_WINDOW: Final = 131_072
"""How many commits' request ids are remembered at least."""
_WINDOW_SLACK: Final = 8_192
_OUTCOME: Final = struct.Struct("<16sQ")

__all__ = [
    "Index",
    "IndexReader",
    "IndexedRecord",
    "Position",
    "ReleasedBlob",
    "building_name",
    "newest_index",
    "publish",
    "remove_others",
]


@dataclass(frozen=True, slots=True)
class ReleasedBlob:
    """A file blob without an owner. ``time_ns`` is the time of the batch that released it."""

    blob_id: bytes
    size_bytes: int
    time_ns: int


TIME_MAX_NS: Final = 2**63 - 1


class Index(Reads):
    """The index, open for writing: the store's."""

    def __init__(self, path: str, connection: apsw.Connection) -> None:
        super().__init__(connection)
        self._path = path
        self._flusher: apsw.Connection | None = None
        self._wal_pages = 0
        connection.set_wal_hook(self._note_wal)
        self._outcomes: dict[bytes, int] = {}
        self._window: deque[tuple[int, list[bytes]]] = deque()
        self._forgotten = 0
        self._newest_request = 0
        with translated("loading it"):
            self._load_outcomes()
        self._applied = self.position()
        self._flushed = self._applied

    @classmethod
    def create(cls, path: str, mirror_id: bytes) -> Index:
        """A fresh, empty index. Raises ``DriveFault``."""
        connection = connect(path, write=True, create=True, cache_bytes=WRITER_CACHE_BYTES)
        connection.execute("INSERT INTO facts VALUES ('mirror', ?)", (mirror_id,))
        return cls(path, connection)

    @classmethod
    def open(cls, path: str, mirror_id: bytes) -> Index:
        """An existing index. Raises ``Damaged`` if it is not this mirror's or not whole enough to
        open, ``DriveFault``."""
        connection = connect(path, write=True, cache_bytes=WRITER_CACHE_BYTES)
        try:
            with translated("reading whose it is"):
                query = "SELECT value FROM facts WHERE name = 'mirror'"
                row = connection.execute(query).fetchone()
            if row is None or row[0] != mirror_id:
                raise Damaged("the index belongs to another mirror")
            return cls(path, connection)
        except BaseException:
            connection.close()
            raise

    @property
    def path(self) -> str:
        """The database file."""
        return self._path

    @property
    def applied(self) -> Position | None:
        """The last batch applied. Any thread."""
        return self._applied

    @property
    def wal_pages(self) -> int:
        """Pages in the write-ahead log after the last transaction."""
        return self._wal_pages

    def apply(self, batch: DecodedBatch) -> None:
        """Apply one durable batch, in one transaction. Batches come in sequence; one that is
        already contained is passed over. Raises ``Damaged``, ``DriveFault``: then nothing of it was
        applied, and it may be applied again."""
        self.apply_many((batch,))

    def apply_many(self, batches: Iterable[DecodedBatch]) -> None:
        """Apply several batches in one transaction, for recovery and rebuilding."""
        last = self._applied
        outcomes: list[tuple[int, list[tuple[bytes, int]]]] = []
        with translated("applying batches"), self._transaction():
            for batch in batches:
                place = batch.header.place
                if last is not None and place.sequence <= last.sequence:
                    continue
                changes = Changes(self._cursor, self._number_of)
                changes.collect(batch)
                changes.write()
                outcomes.append((place.sequence, changes.outcomes))
                last = Position(
                    place.sequence,
                    place.incarnation,
                    batch.header.crc,
                    place.segment,
                    place.generation,
                    place.offset,
                    place.offset + batch.header.padded_bytes,
                )
            self._write_outcomes(outcomes)
            self._write_position(last)
        self._applied = last
        self._remember(outcomes)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._cursor.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._cursor.execute("COMMIT")
        except BaseException:
            # Numbers given to partitions in a transaction that is undone were never given.
            self._partitions.clear()
            if self._connection.in_transaction:
                self._cursor.execute("ROLLBACK")
            raise

    def _number_of(self, partition: str) -> int:
        """The partition's number, giving it one."""
        number = self._partition(partition)
        if number < 0:
            self._cursor.execute("INSERT INTO partitions (name) VALUES (?)", (partition.encode(),))
            number = self._partitions[partition] = self._connection.last_insert_rowid()
        return number

    def _write_outcomes(self, outcomes: Sequence[tuple[int, list[tuple[bytes, int]]]]) -> None:
        rows = [
            (sequence, b"".join(_OUTCOME.pack(*outcome) for outcome in found))
            for sequence, found in outcomes
            if found
        ]
        if rows:
            self._cursor.executemany("INSERT INTO requests VALUES (?, ?)", rows)
        if self._forgotten:
            self._cursor.execute("DELETE FROM requests WHERE sequence <= ?", (self._forgotten,))

    def _write_position(self, position: Position | None) -> None:
        if position is not None and position is not self._applied:
            self._cursor.execute(
                "INSERT OR REPLACE INTO position VALUES (1, ?, ?, ?, ?, ?, ?, ?)",
                (
                    position.sequence,
                    position.incarnation.to_bytes(8, "little"),
                    position.crc,
                    position.segment,
                    position.generation,
                    position.offset,
                    position.end,
                ),
            )

    def _remember(self, outcomes: Sequence[tuple[int, list[tuple[bytes, int]]]]) -> None:
        for sequence, found in outcomes:
            self._note_outcomes(sequence, found)
        self._forgotten = 0
        if len(self._outcomes) > REQUEST_WINDOW + _WINDOW_SLACK:
            # The slack makes this, and the statement that follows, rare.
            while len(self._outcomes) > REQUEST_WINDOW:
                self._forgotten, ids = self._window.popleft()
                for request_id in ids:
                    self._outcomes.pop(request_id, None)

    def _load_outcomes(self) -> None:
        for sequence, packed in self._cursor.execute("SELECT * FROM requests ORDER BY 1"):
            if len(packed) % _OUTCOME.size:
                raise Damaged("the index is damaged: request outcomes of a wrong length")
            self._note_outcomes(sequence, list(_OUTCOME.iter_unpack(packed)))

    def _note_outcomes(self, sequence: int, found: Sequence[tuple[bytes, int]]) -> None:
        """What compaction logged again keeps its place in the window, or that would grow with every
        move."""
        fresh = [one for one in found if self._outcomes.get(one[0]) != one[1]]
        if fresh:
            self._outcomes.update(fresh)
            self._window.append((sequence, [request_id for request_id, _ in fresh]))
            newest = sequence_of(max(version for _, version in fresh))
            self._newest_request = max(self._newest_request, newest)

    @property
    def newest_request(self) -> int:
        """The sequence of the newest batch with a client's commit that is remembered; 0 if there is
        none. One that compaction logged again is as old as it was."""
        return self._newest_request

    def request_outcome(self, request_id: bytes) -> int | None:
        """The version an earlier commit with this id got, if it is within the window."""
        return self._outcomes.get(request_id)

    def segments(self) -> dict[int, int]:
        """Segment → bytes of living records in it."""
        with translated("reading segment sums"):
            rows: list[Any] = self._cursor.execute("SELECT * FROM segments").fetchall()
            return dict(rows)

    def tombstones(self) -> dict[int, int]:
        """Segment → bytes of deletes in it, whether or not they are needed still. A segment that
        was freed keeps its sum until the next one is entered."""
        with translated("reading the deletes' sums"):
            rows: list[Any] = self._cursor.execute("SELECT * FROM tombstones").fetchall()
            return dict(rows)

    def outcomes(self, first_sequence: int, last_sequence: int) -> list[tuple[bytes, int]]:
        """(request id, version) of each remembered commit in these batches, by sequence."""
        with translated("reading request outcomes"):
            rows: list[Any] = self._cursor.execute(
                "SELECT outcomes FROM requests WHERE sequence BETWEEN ? AND ? ORDER BY sequence",
                (first_sequence, last_sequence),
            ).fetchall()
        found = (outcome for (packed,) in rows for outcome in _OUTCOME.iter_unpack(packed))
        return [(i, version) for i, version in found if self._outcomes.get(i) == version]

    def outcome_bytes(self, first_sequence: int, last_sequence: int) -> int:
        """About what ``outcomes`` of these batches take when they are logged again."""
        with translated("counting request outcomes"):
            rows: list[Any] = self._cursor.execute(
                "SELECT IFNULL(SUM(LENGTH(outcomes)), 0) FROM requests"
                " WHERE sequence BETWEEN ? AND ?",
                (first_sequence, last_sequence),
            ).fetchall()
        return int(rows[0][0]) // _OUTCOME.size * (RECORD_HEADER_BYTES + REQUEST_ID_BYTES)

    def released(
        self, before_ns: int, limit: int, *, after_ns: int = TIME_MAX_NS
    ) -> list[ReleasedBlob]:
        """Blobs released before a time, oldest first, and those released after another one: in the
        future, by a clock that has been put back since."""
        with translated("listing released blobs"):
            rows: list[Any] = self._cursor.execute(
                "SELECT blob_id, size_bytes, time_ns FROM released"
                " WHERE time_ns < ? OR time_ns > ? ORDER BY time_ns LIMIT ?",
                (before_ns, after_ns, limit),
            ).fetchall()
            return [ReleasedBlob(*row) for row in rows]

    def released_bytes(self) -> tuple[int, int]:
        """How many blobs are released, and how many bytes they hold."""
        with translated("adding up released blobs"):
            rows: list[Any] = self._cursor.execute(
                "SELECT count(*), ifnull(sum(size_bytes), 0) FROM released"
            ).fetchall()
            return rows[0][0], rows[0][1]

    def forget_released(self, blob_ids: Iterable[bytes]) -> None:
        """These blobs' files are unlinked on every drive. Not flushed: forgotten again after a
        crash, they are unlinked again, which is harmless."""
        with translated("forgetting released blobs"), self._transaction():
            self._cursor.executemany(
                "DELETE FROM released WHERE blob_id = ?", [(blob_id,) for blob_id in blob_ids]
            )

    def checkpoint(self) -> Position | None:
        """Write applied batches into the database file and flush it. Returns the position that is
        surely on stable storage now (an earlier one if a reader was in the way). May run on another
        thread beside the writer, one call at a time. Raises ``Damaged``, ``DriveFault``."""
        applied = self._applied
        with translated("writing a checkpoint"):
            if self._flusher is None:
                self._flusher = connect(self._path, write=True, cache_bytes=1024 * 1024)
            try:
                mode = apsw.SQLITE_CHECKPOINT_PASSIVE
                logged, written = self._flusher.wal_checkpoint(mode=mode)
            except apsw.BusyError:
                return self._flushed  # ``shorten_wal`` does it now
        if logged == written:
            self._flushed = applied
        return self._flushed

    def shorten_wal(self) -> Position | None:
        """On the writer's thread: checkpoint whatever is left and start the write-ahead log from
        its beginning. Call after ``checkpoint`` when ``wal_pages`` is high, for under steady load
        it never gets to restart by itself. A reader in the way makes it do nothing."""
        with translated("shortening its log"):
            try:
                self._connection.set_busy_timeout(0)
                self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except apsw.BusyError:
                return self._flushed
            finally:
                self._connection.set_busy_timeout(BUSY_MS)
        self._wal_pages = 0
        self._flushed = self._applied
        return self._flushed

    @property
    def flushed(self) -> Position | None:
        """The position known to be on stable storage. Any thread."""
        return self._flushed

    def _note_wal(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def copy_to(self, path: str) -> Position | None:
        """A consistent copy in a new file, from one snapshot: the state after some batch. For
        snapshots on the drives. Raises ``Damaged``, ``DriveFault``."""
        target = connect(path, write=True, create=True, cache_bytes=1024 * 1024)
        with translated("copying it"):
            try:
                applied = self._applied
                with target.backup("main", self._connection, "main") as backup:
                    backup.step()
                target.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            finally:
                target.close()
        return applied

    def close(self) -> None:
        """Flushes what is applied into the file. Idempotent; raises nothing, since whatever is lost
        is derived again."""
        try:
            if self._flusher is not None:
                self._flusher.close()
                self._flusher = None
            self._connection.close()
        except apsw.Error:
            # The log still has it all; the next open finds an earlier position.
            pass
