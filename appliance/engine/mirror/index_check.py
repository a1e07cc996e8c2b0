"""Whether an index agrees with itself.

Owns the recount of what an index adds up: counters, bytes per segment, owners of blobs. Used on an
index that was made from a log: one that does not agree shows a fault of the program, or of the
machine it was made on. Changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from appliance.core.ports import Progress
from appliance.engine.mirror.format import BlobKind, decode_charges
from appliance.engine.mirror.index_reader import IndexedRecord
from appliance.engine.mirror.index_view import COUNTERS, OWNERS, SEGMENTS, IndexView, Sums

_NAMED_MAX: Final = 5
_TELL_EVERY: Final = 4096


@dataclass(slots=True)
class IndexCheck:
    """How many living records were counted, and what does not agree."""

    records: int = 0
    troubles: list[str] = field(default_factory=list)


def check_index(path: str, progress: Progress) -> IndexCheck:
    """Recount everything. Progress is in records. Raises ``Damaged``, ``DriveFault``."""
    view = IndexView(path)
    try:
        return _recount(view, progress)
    finally:
        view.close()


def _recount(view: IndexView, progress: Progress) -> IndexCheck:
    check = IndexCheck()
    counters: Counter[tuple[bytes, bytes]] = Counter()
    segments: Counter[tuple[int]] = Counter()
    owners: dict[tuple[bytes], tuple[int, bytes, bytes]] = {}
    ((total,),) = view.rows("SELECT count(*) FROM records")
    for partition in view.partitions():
        name = partition.encode()
        for row in view.records(partition):
            record = IndexedRecord._make(row)
            check.records += 1
            if check.records % _TELL_EVERY == 0:
                progress(check.records, total)
            for counter, amount in decode_charges(record.charges):
                counters[name, counter] += amount
            location = record.location
            segments[location.segment,] += location.length
            if record.blob_kind is BlobKind.FILE:
                owners[record.blob_id,] = (record.blob_size, name, record.key)
    progress(total, total)
    _compare(check, view, COUNTERS, {key: (n,) for key, n in counters.items() if n})
    _compare(check, view, SEGMENTS, {key: (n,) for key, n in segments.items() if n})
    _compare(check, view, OWNERS, owners)
    check.troubles += view.check()[:_NAMED_MAX]
    return check


def _compare(
    check: IndexCheck, view: IndexView, table: Sums, counted: Mapping[Any, tuple[Any, ...]]
) -> None:
    width = table.key_width
    kept = {row[:width]: row[width:] for row in view.sums(table)}
    wrong = [key for key in counted.keys() | kept.keys() if counted.get(key) != kept.get(key)]
    named = map(table.words, sorted(wrong)[:_NAMED_MAX])
    check.troubles += [f"{words} is not what its records add up to" for words in named]
