"""What a gateway says is not believed: the store refuses what no honest one can have sent."""

from __future__ import annotations

from typing import Any, Final

import pytest

from appliance.core.errors import InvalidInput
from appliance.engine.interface import (
    BATCH_OPERATIONS_MAX,
    KEY_BYTES_MAX,
    VALUE_BYTES_MAX,
    Batch,
    Put,
)
from appliance.engine.mirror.messages import INLINE_BYTES_MAX, decode_commit, encode_commit

ID: Final = bytes(16)
STAGED: Final[list[Any]] = [ID, 70_000, "gateway-1", {"drive-a": [3, 3]}]


def put(key: bytes = b"key", value: bytes = b"v", blob: object = None, keep: object = None) -> Any:
    return [key, value, b"", blob, keep]


def message(*operations: Any, partition: bytes = b"acme", request_id: bytes = ID) -> list[Any]:
    return [partition, request_id, list(operations), [], []]


def staged(**changes: object) -> list[Any]:
    names = ("blob_id", "size_bytes", "directory", "stamps")
    return [changes.get(name, STAGED[at]) for at, name in enumerate(names)]


GOOD: Final[dict[str, list[Any]]] = {
    "nothing to do": message(),
    "a put": message(put()),
    "the longest": message(put(b"k" * KEY_BYTES_MAX, b"v" * VALUE_BYTES_MAX)),
    "the longest name": message(put(), partition=b"p" * 255),
    "an inline blob": message(put(blob=b"x" * INLINE_BYTES_MAX)),
    "a staged blob": message(put(blob=STAGED)),
    "a put that keeps its blob": message(put(keep=b"key")),
    "a rename": message(put(b"new", keep=b"old"), [b"old"]),
    "many operations": message(*(put(b"%d" % one) for one in range(BATCH_OPERATIONS_MAX))),
}
BAD: Final[dict[str, tuple[object, str]]] = {
    "no partition": (message(put(), partition=b""), "partition"),
    "a long partition": (message(put(), partition=b"p" * 256), "partition"),
    "a short request id": (message(put(), request_id=b"short"), "request id"),
    "too many operations": (
        message(*(put(b"%d" % one) for one in range(BATCH_OPERATIONS_MAX + 1))),
        "too many",
    ),
    "a key twice": (message(put(), put()), "more than one"),
    "a put and a delete of one key": (message(put(), [b"key"]), "more than one"),
    "an empty key": (message(put(b"")), "key is empty"),
    "a long key": (message(put(b"k" * (KEY_BYTES_MAX + 1))), "too long"),
    "a long value": (message(put(value=b"v" * (VALUE_BYTES_MAX + 1))), "too long"),
    "a blob and a kept one": (message(put(blob=b"x", keep=b"key")), "keeps one"),
    "one blob kept twice": (
        message(put(b"a", keep=b"old"), put(b"b", keep=b"old"), [b"old"]),
        "same blob",
    ),
    "a blob kept of what stays": (message(put(b"new", keep=b"old")), "not deleted"),
    "a large inline blob": (message(put(blob=b"x" * (INLINE_BYTES_MAX + 1))), "too large"),
    "a short blob id": (message(put(blob=staged(blob_id=b"short"))), "id or size"),
    "an empty staged blob": (message(put(blob=staged(size_bytes=0))), "id or size"),
    "no directory": (message(put(blob=staged(directory=""))), "directory"),
    "a directory elsewhere": (message(put(blob=staged(directory="a/b"))), "directory"),
    "a hidden directory": (message(put(blob=staged(directory=".."))), "directory"),
    "half a stamp": (message(put(blob=staged(stamps={"drive-a": [3]}))), "stamps"),
    "no commit at all": ([b"acme", ID], "cannot read"),
}


@pytest.mark.parametrize("name", sorted(GOOD))
def test_what_an_honest_gateway_sends_is_read(name: str) -> None:
    order = decode_commit(GOOD[name])
    assert (order.partition, order.request_id) == tuple(GOOD[name][:2])
    assert [one.key for one in order.orders] == [fields[0] for fields in GOOD[name][2]]


@pytest.mark.parametrize("name", sorted(BAD))
def test_what_no_honest_gateway_sends_is_refused(name: str) -> None:
    sent, why = BAD[name]
    with pytest.raises(InvalidInput, match=why):
        decode_commit(sent)


def test_a_blob_of_another_engine_is_not_sent() -> None:
    class Foreign:
        size_bytes = 1

    with pytest.raises(InvalidInput, match="another engine"):
        encode_commit("acme", Batch(operations=[Put(b"key", b"v", blob=Foreign())]), ID)
