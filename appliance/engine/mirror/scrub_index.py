"""The proof of the index: another one is built from the log beside it, and every row compared.

Owns the index that is built (``building-<n>.db``) and the comparison. Refuses to compare two that
do not end with the same batch. Invariant: the live index is only read, from one snapshot; memory is
bounded, for both are walked in the order of their keys.

What is compared: every record with its value, version, charges and place, every counter, segment
sum and owned blob, and the request outcomes both remember. Partitions are numbered in the order of
their first record, so they are compared by name. Of released blobs the log may have forgotten some
and the index has dropped some: none may have an owner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from appliance.core.errors import Damaged
from appliance.core.ports import Volume
from appliance.core.recordkeys import masked_name
from appliance.engine.mirror.format import DecodedBatch, Location
from appliance.engine.mirror.index import Index, building_name
from appliance.engine.mirror.index_reader import IndexedRecord
from appliance.engine.mirror.index_view import SUMS, IndexView, Row
from appliance.engine.mirror.rebuild import CHECKPOINT_PAGES, create_index
from appliance.engine.mirror.scrub_kit import LostRange

BATCHES_AT_ONCE: Final = 16
BATCH_BYTES_AT_ONCE: Final = 8 * 1024 * 1024
DIFFERENCES_MAX: Final = 20
"""Beyond this many the index is wrong enough."""
LOOK_UP_EVERY: Final = 2000
NEEDLESS: Final = "a needless"


class Building:
    """The index that is built beside the live one. The scrub's thread only."""

    def __init__(self, directory: Volume, path: str, mirror_id: bytes) -> None:
        """Removes what an earlier attempt left. Raises ``DriveFault``."""
        remove_building(directory)
        self.name: Final = create_index(directory, path, mirror_id)
        self.path: Final = f"{path}/{self.name}"
        self._directory = directory
        self._index = Index.open(self.path, mirror_id)
        self._waiting: list[DecodedBatch] = []
        self._waiting_bytes = 0

    def add(self, batch: DecodedBatch) -> None:
        """The next batch of the log."""
        self._waiting.append(batch)
        self._waiting_bytes += len(batch.data)

    @property
    def is_full(self) -> bool:
        """Whether enough was added for ``flush`` to be worth it."""
        return len(self._waiting) >= BATCHES_AT_ONCE or self._waiting_bytes >= BATCH_BYTES_AT_ONCE

    def flush(self) -> None:
        """Apply what was added."""
        self._index.apply_many(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        if self._index.wal_pages > CHECKPOINT_PAGES:
            self._index.shorten_wal()

    def finish(self) -> None:
        """Everything is in the database file, flushed; only ``discard`` may follow."""
        self.flush()
        self._index.shorten_wal()
        self._index.close()

    def discard(self) -> None:
        """Forget it. Idempotent."""
        self._index.close()
        remove_building(self._directory)


def remove_building(directory: Volume) -> None:
    """Unlink an index that was being built. Raises ``DriveFault``."""
    prefix = building_name(directory).partition("-")[0]
    for name in directory.names(""):
        if name.startswith(f"{prefix}-"):
            directory.unlink(name)


def differences(live: IndexView, built: IndexView, look_up: Callable[[], None]) -> list[str]:
    """What the live index says otherwise than the log does; at most ``DIFFERENCES_MAX``.
    ``look_up`` is called now and then. Raises ``Damaged``, ``DriveFault``."""
    found: list[str] = []
    if live.ends_with != built.ends_with:
        return ["another last batch"]
    for difference in _differences(live, built, look_up):
        found.append(difference)
        if len(found) >= DIFFERENCES_MAX:
            break
    return found


def _differences(live: IndexView, built: IndexView, look_up: Callable[[], None]) -> Iterator[str]:
    for partition in sorted({*live.partitions(), *built.partitions()}):
        rows = _looking_up(live.records(partition), look_up)
        for what, key in _unequal(rows, built.records(partition), 1):
            yield f"{what} record: {live.words_for(partition, key[0])}"
    for table in SUMS:
        for what, key in _unequal(live.sums(table), built.sums(table), table.key_width):
            yield f"{what} {table.words(key)}"
    yield from _released(live, built)
    yield from _requests(live, built)


def _looking_up(rows: Iterator[Row], look_up: Callable[[], None]) -> Iterator[Row]:
    for number, row in enumerate(rows):
        if number % LOOK_UP_EVERY == 0:
            look_up()
        yield row


def _unequal(live: Iterator[Row], built: Iterator[Row], width: int) -> Iterator[tuple[str, Row]]:
    """Walk both in the order of their keys, the first ``width`` columns."""
    one, other = next(live, None), next(built, None)
    while one is not None or other is not None:
        if one == other:
            one, other = next(live, None), next(built, None)
        elif other is None or (one is not None and one[:width] < other[:width]):
            assert one is not None
            yield NEEDLESS, one[:width]
            one = next(live, None)
        elif one is None or other[:width] < one[:width]:
            yield "a missing", other[:width]
            other = next(built, None)
        else:
            yield "a wrong", one[:width]
            one, other = next(live, None), next(built, None)


def _released(live: IndexView, built: IndexView) -> Iterator[str]:
    """A released blob is unlinked: none may have an owner."""
    for (blob_id,) in live.rows("SELECT blob_id FROM released ORDER BY 1"):
        if built.owner(blob_id) is not None:
            yield f"a released blob that has an owner: {blob_id.hex()}"


def _requests(live: IndexView, built: IndexView) -> Iterator[str]:
    """Each forgets the oldest at a time of its own, and the log those of freed segments: what both
    may remember must be the same."""
    (first,) = next(live.rows("SELECT MIN(sequence) FROM requests"))
    if first is None:
        return
    query = "SELECT sequence, outcomes FROM requests WHERE sequence >= ? ORDER BY 1"
    for what, key in _unequal(live.rows(query, (first,)), built.rows(query, (first,)), 1):
        if what != NEEDLESS:
            yield f"{what} outcome of batch {key[0]}"


def names_in(view: IndexView, lost: list[LostRange]) -> Iterator[str]:
    """The living records that lie in lost parts of the log."""
    for partition in view.partitions():
        for row in view.records(partition):
            location = IndexedRecord._make(row).location
            if any(_lies_in(location, part) for part in lost):
                yield masked_name(partition, row[0], row[2])


def _lies_in(location: Location, part: LostRange) -> bool:
    if (location.segment, location.generation) != (part.segment, part.generation):
        return False
    return part.start < location.offset + location.length and location.offset < part.end


def damage_of(found: list[str]) -> Damaged:
    """What a wrong index is condemned for."""
    return Damaged(f"the index does not say what the log does: {'; '.join(found[:3])}")
