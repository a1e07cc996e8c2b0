"""What commits that share a batch see of each other."""

from __future__ import annotations

from appliance.core.errors import Conflict
from appliance.engine.interface import Batch, Delete, ExpectEmpty
from appliance.engine.mirror.messages import CommitOrder, decode_commit, encode_commit
from tests.crash.acts import commit, delete, put
from tests.crash.history import PARTITION
from tests.crash.machine import Machine


def _remove_empty(number: int) -> CommitOrder:
    """Remove the bucket that must hold nothing."""
    batch = Batch([Delete(b"bucket")], [ExpectEmpty(b"bucket/", b"bucket0")])
    return decode_commit(encode_commit(PARTITION, batch, number.to_bytes(16, "big")))


def test_a_range_is_not_empty_after_a_put_of_the_same_batch(machine: Machine) -> None:
    store = machine.open()
    commit(store, put(b"bucket", 1, None))
    written, refused = store.commit([put(b"bucket/object", 2), _remove_empty(3)])
    assert isinstance(written, int)
    assert isinstance(refused, Conflict)
    with machine.reader() as reader:
        found = reader.scan(PARTITION, b"", b"\xff", 10, False)
    assert [record.key for record in found] == [b"bucket", b"bucket/object"]


def test_a_range_is_empty_after_a_delete_of_the_same_batch(machine: Machine) -> None:
    store = machine.open()
    commit(store, put(b"bucket", 1, None))
    commit(store, put(b"bucket/object", 2))
    outcomes = store.commit([delete(b"bucket/object", 3), _remove_empty(4)])
    assert all(isinstance(outcome, int) for outcome in outcomes), outcomes
    with machine.reader() as reader:
        assert reader.scan(PARTITION, b"", b"\xff", 10, False) == []
