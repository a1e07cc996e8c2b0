"""A whole index as it is at one moment, row by row: for whoever holds it against something else.

Owns the list of what an index adds up out of its records. Refuses nothing. Invariant: one snapshot,
every table in the order of its keys, partitions by name, for their numbers are those of the order
they came in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple, TypeAlias

from appliance.engine.mirror.index_file import connect, translated
from appliance.engine.mirror.index_reader import Position, Reads

CACHE_BYTES: Final = 8 * 1024 * 1024

Row: TypeAlias = tuple[Any, ...]


class Sums(NamedTuple):
    """Something an index adds up. The first ``key_width`` columns are the key."""

    name: str
    key_width: int
    query: str

    def words(self, key: Row) -> str:
        """How an operator is told of one."""
        parts = (one.hex() if self is OWNERS else _text(one) for one in key)
        return f"{self.name} {' '.join(parts)}"


COUNTERS: Final = Sums(
    "counter",
    2,
    "SELECT p.name, c.name, c.amount FROM counters c JOIN partitions p"
    " ON p.id = c.partition WHERE c.amount <> 0 ORDER BY 1, 2",
)
SEGMENTS: Final = Sums(
    "segment sum",
    1,
    "SELECT segment, live_bytes FROM segments WHERE live_bytes <> 0 ORDER BY 1",
)
OWNERS: Final = Sums(
    "owner of blob",
    1,
    "SELECT b.blob_id, b.size_bytes, p.name, b.key FROM blobs b"
    " JOIN partitions p ON p.id = b.partition ORDER BY 1",
)
SUMS: Final = (COUNTERS, SEGMENTS, OWNERS)
_RECORDS: Final = (
    "SELECT key, value, version, charges, place FROM records"
    " WHERE partition = (SELECT id FROM partitions WHERE name = ?) ORDER BY key"
)


class IndexView(Reads):
    """An index as it is at one moment: one snapshot from the making to ``close``. One thread."""

    def __init__(self, path: str) -> None:
        super().__init__(connect(path, write=False, cache_bytes=CACHE_BYTES))
        try:
            with translated("beginning a comparison"):
                self._connection.execute("BEGIN")
            self.ends_with: Final[Position | None] = self.position()
        except BaseException:
            self._connection.close()
            raise

    def rows(self, query: str, bindings: Row = ()) -> Iterator[Row]:
        """A query's rows, one after the other. Raises ``Damaged``, ``DriveFault``."""
        with translated("comparing it"):
            yield from self._connection.cursor().execute(query, bindings)

    def sums(self, table: Sums) -> Iterator[Row]:
        """What the index adds up in one of ``SUMS``, by key: the key's columns, then the rest."""
        return self.rows(table.query)

    def records(self, partition: str) -> Iterator[Row]:
        """All records of a partition, by key."""
        return self.rows(_RECORDS, (partition.encode(),))

    def close(self) -> None:
        """Idempotent."""
        self._connection.close()


def _text(part: object) -> str:
    return part.decode(errors="backslashreplace") if isinstance(part, bytes) else str(part)
