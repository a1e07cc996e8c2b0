"""An engine in memory, for tests of the layers above and as the plainest reading of the interface.

Owns dictionaries and a sorted list of keys per partition. Refuses what every engine refuses; it
forgets everything when the process ends. Invariant: a commit happens between two awaits, so that
no task ever sees half of one, and every awaitable method yields to the loop at least once, so that
races of the layers above show.

Knobs for tests: ``refusal`` (raised by every write while set), ``capacity_bytes`` (``NoSpace``),
``lost`` (what ``missing`` says).
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from appliance.core.errors import Conflict, EngineError, InvalidInput, LimitExceeded, NoSpace
from appliance.core.ports import Buffer
from appliance.engine.interface import (
    Batch,
    BlobRef,
    Committed,
    Expect,
    FinishedBlob,
    Health,
    MirrorState,
    Partition,
    Presence,
    Put,
    Record,
)
from appliance.engine.rules import blob_span, check_batch

CHUNK_BYTES: Final = 64 * 1024
REQUEST_WINDOW: Final = 65_536
RELEASED_KEPT: Final = 1024


@dataclass(frozen=True, slots=True)
class _Held:
    record: Record
    charges: tuple[tuple[bytes, int], ...]


@dataclass(slots=True)
class _Space:
    """One partition."""

    held: dict[bytes, _Held] = field(default_factory=dict)
    order: list[bytes] = field(default_factory=list)
    counters: dict[bytes, int] = field(default_factory=dict)

    def between(self, start: bytes, end: bytes) -> list[bytes]:
        return self.order[bisect_left(self.order, start) : bisect_left(self.order, end)]


class SimulatedBlob:
    """A finished blob: its bytes, and whether a commit adopted it."""

    def __init__(self, data: bytes) -> None:
        self.data: Final = data
        self.adopted = False

    @property
    def size_bytes(self) -> int:
        """Length of what was written."""
        return len(self.data)


class SimulatedBlobWriter:
    """Collects the bytes of one blob in memory."""

    def __init__(self, engine: SimulatedEngine) -> None:
        self._engine = engine
        self._pieces: list[bytes] = []
        self._ended = False

    async def write(self, data: Buffer) -> None:
        """Append a copy of ``data``."""
        if self._ended:
            raise InvalidInput("the blob is finished or aborted")
        piece = bytes(data)
        await asyncio.sleep(0)
        self._engine.admit(sum(map(len, self._pieces)) + len(piece))
        self._pieces.append(piece)

    async def finish(self) -> FinishedBlob:
        """End the blob; it is not owned until a commit adopts it."""
        if self._ended:
            raise InvalidInput("the blob is finished or aborted")
        await asyncio.sleep(0)
        self._ended = True
        return SimulatedBlob(b"".join(self._pieces))

    async def abort(self) -> None:
        """Forget the bytes."""
        self._ended = True
        self._pieces.clear()


class SimulatedEngine:
    """``Engine`` over dictionaries."""

    def __init__(self, *, capacity_bytes: int | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        self.refusal: EngineError | None = None
        self.lost = ""
        self._spaces: defaultdict[Partition, _Space] = defaultdict(_Space)
        self._blobs: dict[bytes, bytes] = {}
        self._released: OrderedDict[bytes, bytes] = OrderedDict()
        self._requests: OrderedDict[bytes, Committed] = OrderedDict()
        self._sequence = 0
        self._blob_number = 0
        self._used_bytes = 0

    def admit(self, size_bytes: int) -> None:
        """Raises what a write of so many bytes would meet now."""
        if self.refusal is not None:
            raise self.refusal
        if self.capacity_bytes is not None and self._used_bytes + size_bytes > self.capacity_bytes:
            raise NoSpace("cannot store: the simulated drives are full")

    async def read(self, partition: Partition, keys: Sequence[bytes]) -> list[Record | None]:
        """The records of ``keys``, from one snapshot."""
        await asyncio.sleep(0)
        held = self._spaces[partition].held
        return [found.record if (found := held.get(key)) else None for key in keys]

    async def scan(
        self,
        partition: Partition,
        start: bytes,
        end: bytes,
        limit: int,
        *,
        reverse: bool = False,
        blobs: bool = True,
    ) -> list[Record]:
        """Up to ``limit`` records in [start, end), by key."""
        await asyncio.sleep(0)
        space = self._spaces[partition]
        keys = space.between(start, end)
        if reverse:
            keys.reverse()
        found = [space.held[key].record for key in keys[: max(limit, 0)]]
        return found if blobs else [record._replace(blob=None) for record in found]

    async def commit(self, partition: Partition, batch: Batch) -> Committed:
        """Judge and apply at once, then yield: a cancellation comes too late, as in a real one."""
        check_batch(batch)
        outcome = self._commit(partition, batch)
        await asyncio.sleep(0)
        return outcome

    def _commit(self, partition: Partition, batch: Batch) -> Committed:
        if (known := self._requests.get(batch.request_id)) is not None:
            return known
        space = self._spaces[partition]
        incoming = _incoming_bytes(batch)
        self.admit(incoming if any(isinstance(o, Put) for o in batch.operations) else -1)
        _check_expectations(space, batch)
        changes = _counter_changes(space, batch)
        for limit in batch.limits:
            change = changes.get(limit.counter, 0)
            if change > 0 and space.counters.get(limit.counter, 0) + change > limit.maximum:
                raise LimitExceeded(limit.counter, limit.maximum)
        self._sequence += 1
        outcome = Committed(self._sequence)
        self._apply(space, batch)
        for counter, change in changes.items():
            if total := space.counters.pop(counter, 0) + change:
                space.counters[counter] = total
        if batch.request_id:
            self._requests[batch.request_id] = outcome
            if len(self._requests) > REQUEST_WINDOW:
                self._requests.popitem(last=False)
        return outcome

    def _apply(self, space: _Space, batch: Batch) -> None:
        before = {o.key: space.held.get(o.key) for o in batch.operations}
        moved: set[bytes] = set()
        for operation in batch.operations:
            if not isinstance(operation, Put):
                if space.held.pop(operation.key, None) is not None:
                    del space.order[bisect_left(space.order, operation.key)]
                continue
            if operation.keep_blob_of is not None:
                source = before[operation.keep_blob_of]
                assert source is not None, "judged before"
                blob = source.record.blob
                moved.add(operation.keep_blob_of)
            else:
                blob = self._adopt(operation.blob)
            if operation.key not in space.held:
                insort(space.order, operation.key)
            record = Record(operation.key, bytes(operation.value), self._sequence, blob)
            charges = tuple((charge.counter, charge.amount) for charge in operation.charges)
            space.held[operation.key] = _Held(record, charges)
        for key, old in before.items():
            if old is not None and old.record.blob is not None and key not in moved:
                self._release(old.record.blob)

    def _adopt(self, blob: FinishedBlob | None) -> BlobRef | None:
        if blob is None:
            return None
        assert isinstance(blob, SimulatedBlob), "checked before"
        blob.adopted = True
        self._blob_number += 1
        place = self._blob_number.to_bytes(8, "big")
        self._blobs[place] = blob.data
        self._used_bytes += len(blob.data)
        return BlobRef(len(blob.data), place)

    def _release(self, blob: BlobRef) -> None:
        data = self._blobs.pop(blob.place)
        self._used_bytes -= len(data)
        self._released[blob.place] = data
        if len(self._released) > RELEASED_KEPT:
            self._released.popitem(last=False)

    def blob_writer(self, size_bytes: int | None = None) -> SimulatedBlobWriter:
        """A writer for one blob. Raises ``NoSpace`` when the known length has no room."""
        self.admit(size_bytes or 0)
        return SimulatedBlobWriter(self)

    async def blob_read(
        self, blob: BlobRef, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """Chunks of the range; a released blob stays readable for a while."""
        start, end = blob_span(blob, offset, length)
        data = self._blobs.get(blob.place)
        if data is None:
            data = self._released.get(blob.place)
        if data is None:
            raise InvalidInput("the blob was released and its grace period is over")
        for position in range(start, end, CHUNK_BYTES):
            await asyncio.sleep(0)
            yield data[position : min(position + CHUNK_BYTES, end)]

    async def counters(self, partition: Partition) -> Mapping[bytes, int]:
        """All counters that are not zero."""
        await asyncio.sleep(0)
        return dict(self._spaces[partition].counters)

    def missing(self) -> str:
        """What ``lost`` says."""
        return self.lost

    async def health(self) -> Health:
        """Always in sync; total and free follow ``capacity_bytes``."""
        await asyncio.sleep(0)
        total = self.capacity_bytes or 0
        return Health(
            MirrorState.IN_SYNC,
            sequence=self._sequence,
            total_bytes=total,
            free_bytes=max(total - self._used_bytes, 0),
        )

    async def close(self) -> None:
        """Nothing to give back."""


def _incoming_bytes(batch: Batch) -> int:
    total = 0
    for operation in batch.operations:
        if isinstance(operation, Put) and operation.blob is not None:
            if not isinstance(operation.blob, SimulatedBlob):
                raise InvalidInput("the blob was written by another engine")
            if operation.blob.adopted:
                raise InvalidInput("the blob belongs to another record already")
            total += operation.blob.size_bytes
    return total


def _check_expectations(space: _Space, batch: Batch) -> None:
    deleted = {o.key for o in batch.operations if not isinstance(o, Put)}
    for expectation in batch.expectations:
        if isinstance(expectation, Expect):
            found = space.held.get(expectation.key)
            state = expectation.state
            if isinstance(state, Presence):
                holds = (found is not None) == (state is Presence.PRESENT)
            else:
                holds = found is not None and found.record.version == state
            if not holds:
                raise Conflict(expectation.key)
        elif any(k not in deleted for k in space.between(expectation.start, expectation.end)):
            raise Conflict(expectation.start)
    for operation in batch.operations:
        kept = operation.keep_blob_of if isinstance(operation, Put) else None
        if kept is not None and kept not in space.held:
            raise Conflict(kept)


def _counter_changes(space: _Space, batch: Batch) -> dict[bytes, int]:
    changes: defaultdict[bytes, int] = defaultdict(int)
    for operation in batch.operations:
        if (old := space.held.get(operation.key)) is not None:
            for counter, amount in old.charges:
                changes[counter] -= amount
        if isinstance(operation, Put):
            for charge in operation.charges:
                changes[charge.counter] += charge.amount
    return changes
