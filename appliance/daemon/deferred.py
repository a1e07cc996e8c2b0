"""An engine that is connected later: until then every call is refused as retryable.

Owns nothing but the reference. Processes can therefore listen, and answer 503 with a reason, before
a mirror exists. Invariant: once set, the engine behind it stays.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any

from appliance.core.errors import Unavailable
from appliance.engine.interface import (
    Batch,
    BlobRef,
    BlobWriter,
    Committed,
    Engine,
    Health,
    Partition,
    Record,
)


class DeferredEngine:
    """An ``Engine``. Its methods hand out the inner engine's own coroutines: no layer on top."""

    def __init__(self) -> None:
        self._engine: Engine | None = None

    def set(self, engine: Engine) -> None:
        """The engine is there."""
        assert self._engine is None, "an engine is connected once"
        self._engine = engine

    @property
    def inner(self) -> Engine:
        """Raises ``Unavailable`` while there is none."""
        if self._engine is None:
            raise Unavailable("no mirror serves yet; see `appliance mirror status`", 2)
        return self._engine

    def read(
        self, partition: Partition, keys: Sequence[bytes]
    ) -> Coroutine[Any, Any, list[Record | None]]:
        """See ``Engine``."""
        return self.inner.read(partition, keys)

    def scan(
        self,
        partition: Partition,
        start: bytes,
        end: bytes,
        limit: int,
        *,
        reverse: bool = False,
        blobs: bool = True,
    ) -> Coroutine[Any, Any, list[Record]]:
        """See ``Engine``."""
        return self.inner.scan(partition, start, end, limit, reverse=reverse, blobs=blobs)

    def commit(self, partition: Partition, batch: Batch) -> Coroutine[Any, Any, Committed]:
        """See ``Engine``."""
        return self.inner.commit(partition, batch)

    def blob_writer(self, size_bytes: int | None = None) -> BlobWriter:
        """See ``Engine``."""
        return self.inner.blob_writer(size_bytes)

    def blob_read(
        self, blob: BlobRef, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """See ``Engine``."""
        return self.inner.blob_read(blob, offset, length)

    def counters(self, partition: Partition) -> Coroutine[Any, Any, Mapping[bytes, int]]:
        """See ``Engine``."""
        return self.inner.counters(partition)

    def health(self) -> Coroutine[Any, Any, Health]:
        """See ``Engine``."""
        return self.inner.health()

    def missing(self) -> str:
        """See ``Engine``."""
        return "" if self._engine is None else self._engine.missing()

    async def close(self) -> None:
        """See ``Engine``."""
        if self._engine is not None:
            await self._engine.close()
