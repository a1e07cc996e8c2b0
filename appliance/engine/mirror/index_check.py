"""Whether an index agrees with itself.

Owns the recount of what an index adds up: counters, bytes per segment, owners of blobs. Used on an
index that was made from a log: one that does not agree shows a fault of the program, or of the
machine it was made on. Changes nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import apsw

from appliance.core.ports import Progress
from appliance.engine.mirror.format import BlobKind, decode_charges
from appliance.engine.mirror.index_file import connect, translated
from appliance.engine.mirror.index_reader import IndexedRecord

CACHE_BYTES: Final = 16 * 1024 * 1024
_NAMED_MAX: Final = 5
_TELL_EVERY: Final = 4096


@dataclass(slots=True)
class IndexCheck:
    """How many living records were counted, and what does not agree."""

    records: int = 0
    troubles: list[str] = field(default_factory=list)


def check_index(path: str, progress: Progress) -> IndexCheck:
    """Recount everything. Progress is in records. Raises ``Damaged``, ``DriveFault``."""
    connection = connect(path, write=False, cache_bytes=CACHE_BYTES)
    try:
        with translated("recounting it"):
            return _recount(connection, progress)
    finally:
        connection.close()


def _recount(connection: apsw.Connection, progress: Progress) -> IndexCheck:
    check = IndexCheck()
    counters: Counter[tuple[int, bytes]] = Counter()
    segments: Counter[int] = Counter()
    blobs: dict[bytes, tuple[int, int, bytes]] = {}
    (total,) = next(iter(connection.execute("SELECT count(*) FROM records")))
    query = "SELECT partition, key, value, version, charges, place FROM records"
    for partition, *fields in connection.execute(query):
        record = IndexedRecord._make(fields)
        check.records += 1
        if check.records % _TELL_EVERY == 0:
            progress(check.records, total)
        for counter, amount in decode_charges(record.charges):
            counters[partition, counter] += amount
        location = record.location
        segments[location.segment] += location.length
        if record.blob_kind is BlobKind.FILE:
            blobs[record.blob_id] = (record.blob_size, partition, record.key)
    progress(total, total)
    _compare(check, "counter", {key: n for key, n in counters.items() if n}, _counters(connection))
    kept = dict(_rows(connection, "SELECT segment, live_bytes FROM segments"))
    _compare(check, "bytes of segment", dict(segments), kept)
    owned = {row[0]: row[1:] for row in _rows(connection, "SELECT * FROM blobs")}
    _compare(check, "blob", blobs, owned)
    check.troubles += [
        str(row[0]) for row in _rows(connection, "PRAGMA integrity_check(5)") if row[0] != "ok"
    ]
    return check


def _counters(connection: apsw.Connection) -> dict[Any, Any]:
    query = "SELECT partition, name, amount FROM counters WHERE amount <> 0"
    return {(partition, name): amount for partition, name, amount in _rows(connection, query)}


def _rows(connection: apsw.Connection, query: str) -> list[Any]:
    return connection.execute(query).fetchall()


def _compare(check: IndexCheck, what: str, counted: dict[Any, Any], kept: dict[Any, Any]) -> None:
    wrong = [key for key in counted.keys() | kept.keys() if counted.get(key) != kept.get(key)]
    check.troubles += [
        f"{what} {key!r}: counted {counted.get(key)}, kept {kept.get(key)}"
        for key in wrong[:_NAMED_MAX]
    ]
