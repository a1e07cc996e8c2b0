"""Whether a commit may happen, and the log records it then becomes.

Owns what lies between the index and the batch that is being made: the records and counters as the
commits accepted so far will leave them. Refuses with ``Conflict``, ``LimitExceeded``. Invariant: a
commit is judged against everything accepted before it, and a refused one leaves no trace.

``judge`` changes nothing; ``accept`` makes its result part of what later commits see. The whole
object lives for one batch: when the batch fails, it is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from appliance.core.errors import Conflict, LimitExceeded
from appliance.engine.mirror.format import (
    BlobKind,
    FileBlob,
    Kind,
    Location,
    LogRecord,
    decode_charges,
    encode_file_blob,
    version_of,
)
from appliance.engine.mirror.index import IndexedRecord
from appliance.engine.mirror.messages import CommitOrder, Demand, Order, Staged

_SCAN_PAGE = 1000


class Ground(Protocol):
    """What the index tells the judge."""

    def read(self, partition: str, keys: Sequence[bytes]) -> list[IndexedRecord | None]: ...

    def scan(self, partition: str, start: bytes, end: bytes, limit: int) -> list[IndexedRecord]: ...

    def counter(self, partition: str, name: bytes) -> int: ...


class Held(NamedTuple):
    """A record as the next commit finds it. Its blob is either still to be read at ``location``
    or in ``blob`` as a log record holds it."""

    version: int
    charges: bytes
    blob_kind: BlobKind
    blob: bytes
    location: Location | None


@dataclass(slots=True)
class Judged:
    """An accepted commit: its records, and what it leaves behind."""

    version: int
    partition: bytes
    records: list[LogRecord] = field(default_factory=list)
    held: dict[bytes, Held | None] = field(default_factory=dict)
    counters: dict[bytes, int] = field(default_factory=dict)
    staged: list[Staged] = field(default_factory=list)


class Judge:
    """Judges the commits of one batch, in order."""

    def __init__(
        self, ground: Ground, sequence: int, read_inline: Callable[[Location], bytes]
    ) -> None:
        self._ground = ground
        self._sequence = sequence
        self._read_inline = read_inline
        self._held: dict[bytes, dict[bytes, Held | None]] = {}
        self._counters: dict[tuple[bytes, bytes], int] = {}
        self._number = 0

    def judge(self, commit: CommitOrder) -> Judged:
        """What ``commit`` would do now. Raises ``Conflict`` or ``LimitExceeded``; ``DataLost`` when
        an inline blob that is to be kept cannot be read."""
        before = self._look_up(commit)
        for demand in commit.demands:
            if demand.is_empty_range:
                self._check_empty(commit, demand)
                continue
            found = before[demand.key]
            if not demand.holds(None if found is None else found.version):
                raise Conflict(demand.key)
        judged = Judged(version_of(self._sequence, self._number), commit.partition)
        changes: dict[bytes, int] = {}
        for order in commit.orders:
            if (old := before[order.key]) is not None and old.charges:
                for counter, amount in decode_charges(old.charges):
                    changes[counter] = changes.get(counter, 0) - amount
            if order.charges:
                for counter, amount in decode_charges(order.charges):
                    changes[counter] = changes.get(counter, 0) + amount
        for counter, change in changes.items():
            if change:
                judged.counters[counter] = self._counter(commit.partition, counter) + change
        for counter, maximum in commit.limits:
            if changes.get(counter, 0) > 0 and judged.counters[counter] > maximum:
                raise LimitExceeded(counter, maximum)
        self._make_records(commit, before, judged)
        return judged

    def accept(self, judged: Judged) -> None:
        """Later commits of the batch see it."""
        self._held.setdefault(judged.partition, {}).update(judged.held)
        for counter, total in judged.counters.items():
            self._counters[judged.partition, counter] = total
        self._number += 1

    def _look_up(self, commit: CommitOrder) -> dict[bytes, Held | None]:
        keys = {order.key for order in commit.orders}
        keys.update(order.keep for order in commit.orders if order.keep is not None)
        keys.update(demand.key for demand in commit.demands if not demand.is_empty_range)
        overlay = self._held.get(commit.partition)
        found: dict[bytes, Held | None] = {}
        wanted: list[bytes] = []
        for key in keys:
            if overlay is not None and key in overlay:
                found[key] = overlay[key]
            else:
                wanted.append(key)
        rows = self._ground.read(commit.partition.decode(), wanted)
        for key, row in zip(wanted, rows, strict=True):
            found[key] = None if row is None else _held(row)
        return found

    def _check_empty(self, commit: CommitOrder, demand: Demand) -> None:
        start, end = demand.key, demand.other
        deleted = {order.key for order in commit.orders if order.value is None}
        overlay = self._held.get(commit.partition, {})
        for key, held in overlay.items():
            if held is not None and start <= key < end and key not in deleted:
                raise Conflict(demand.key)
        at = start
        while True:
            rows = self._ground.scan(commit.partition.decode(), at, end, _SCAN_PAGE)
            for row in rows:
                if row.key not in deleted and row.key not in overlay:
                    raise Conflict(demand.key)
            if len(rows) < _SCAN_PAGE:
                return
            at = rows[-1].key + b"\0"

    def _counter(self, partition: bytes, counter: bytes) -> int:
        known = self._counters.get((partition, counter))
        return self._ground.counter(partition.decode(), counter) if known is None else known

    def _make_records(
        self, commit: CommitOrder, before: dict[bytes, Held | None], judged: Judged
    ) -> None:
        """Deletes come first, so that a blob that moves is released before it is taken again."""
        request_id, version = commit.request_id, judged.version
        for order in commit.orders:
            if order.value is None and before[order.key] is not None:
                record = LogRecord(
                    Kind.DELETE, commit.partition, order.key, version=version, request_id=request_id
                )
                judged.records.append(record)
                judged.held[order.key] = None
                request_id = b""
        for order in commit.orders:
            if order.value is None:
                continue
            blob_kind, blob = self._blob(order, before, judged)
            record = LogRecord(
                Kind.PUT,
                commit.partition,
                order.key,
                order.value,
                version,
                order.charges,
                blob_kind,
                blob,
                request_id,
            )
            judged.records.append(record)
            judged.held[order.key] = Held(version, order.charges, blob_kind, blob, None)
            request_id = b""
        if request_id:
            judged.records.append(
                LogRecord(
                    Kind.COMMIT, commit.partition, b"", version=version, request_id=request_id
                )
            )

    def _blob(
        self, order: Order, before: dict[bytes, Held | None], judged: Judged
    ) -> tuple[BlobKind, bytes]:
        blob = order.blob
        if isinstance(blob, Staged):
            judged.staged.append(blob)
            return BlobKind.FILE, encode_file_blob(FileBlob(blob.blob_id, blob.size_bytes))
        if blob is not None:
            return BlobKind.INLINE, blob
        if order.keep is None:
            return BlobKind.NONE, b""
        source = before[order.keep]
        if source is None:
            raise Conflict(order.keep)
        if source.blob_kind is BlobKind.INLINE and source.location is not None:
            return BlobKind.INLINE, self._read_inline(source.location)
        return source.blob_kind, source.blob


def _held(row: IndexedRecord) -> Held:
    blob = b""
    if row.blob_kind is BlobKind.FILE:
        blob = encode_file_blob(FileBlob(row.blob_id, row.blob_size))
    return Held(row.version, row.charges, row.blob_kind, blob, row.location)
