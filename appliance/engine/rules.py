"""What makes a batch well formed, the same for every engine.

Owns the bounds of keys, values, batches and ranges. Refuses with ``InvalidInput`` before anything
is looked up, so that an engine's store only ever judges batches that can be stored. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from appliance.core.errors import InvalidInput
from appliance.engine.interface import (
    BATCH_OPERATIONS_MAX,
    KEY_BYTES_MAX,
    VALUE_BYTES_MAX,
    Batch,
    BlobRef,
    Expect,
    Put,
)

REQUEST_ID_BYTES: Final = 16
COUNTER_BYTES_MAX: Final = 256
CHARGE_MAX: Final = 2**62


def check_key(key: bytes) -> None:
    """Raises ``InvalidInput`` unless ``key`` can name a record."""
    if not 1 <= len(key) <= KEY_BYTES_MAX:
        raise InvalidInput(f"a key has 1 to {KEY_BYTES_MAX} bytes, this one has {len(key)}")


def check_batch(batch: Batch) -> None:
    """Raises ``InvalidInput`` unless the batch is well formed."""
    if len(batch.operations) > BATCH_OPERATIONS_MAX:
        raise InvalidInput(
            f"a batch has at most {BATCH_OPERATIONS_MAX} operations, "
            f"this one has {len(batch.operations)}"
        )
    if len(batch.request_id) not in (0, REQUEST_ID_BYTES):
        raise InvalidInput(f"a request id has {REQUEST_ID_BYTES} bytes")
    puts: list[Put] = []
    deleted: set[bytes] = set()
    for operation in batch.operations:
        check_key(operation.key)
        if isinstance(operation, Put):
            _check_put(operation)
            puts.append(operation)
        else:
            deleted.add(operation.key)
    if len(deleted.union(put.key for put in puts)) != len(batch.operations):
        raise InvalidInput("a key appears in more than one operation of the batch")
    _check_blobs(puts, deleted)
    for expectation in batch.expectations:
        if isinstance(expectation, Expect):
            check_key(expectation.key)


def _check_put(put: Put) -> None:
    if len(put.value) > VALUE_BYTES_MAX:
        raise InvalidInput(
            f"a value has at most {VALUE_BYTES_MAX} bytes, this one has {len(put.value)}"
        )
    for charge in put.charges:
        if len(charge.counter) > COUNTER_BYTES_MAX or abs(charge.amount) > CHARGE_MAX:
            raise InvalidInput("a charge names a counter too long or an amount too large")


def _check_blobs(puts: Sequence[Put], deleted: set[bytes]) -> None:
    kept: set[bytes] = set()
    blobs: set[int] = set()
    for put in puts:
        if put.keep_blob_of is not None:
            if put.blob is not None:
                raise InvalidInput("a put names both a blob and keep_blob_of")
            if put.keep_blob_of != put.key and put.keep_blob_of not in deleted:
                raise InvalidInput("keep_blob_of names a record the batch does not delete")
            if put.keep_blob_of in kept:
                raise InvalidInput("two puts keep the same blob")
            kept.add(put.keep_blob_of)
        elif put.blob is not None:
            if id(put.blob) in blobs:
                raise InvalidInput("two puts name the same blob")
            blobs.add(id(put.blob))


def blob_span(blob: BlobRef, offset: int, length: int | None) -> tuple[int, int]:
    """The range asked for as (start, end) within the blob, or ``InvalidInput``."""
    end = blob.size_bytes if length is None else offset + length
    if offset < 0 or end < offset or end > blob.size_bytes:
        raise InvalidInput(
            f"the range {offset}+{length} is outside the blob's {blob.size_bytes} bytes"
        )
    return offset, end
