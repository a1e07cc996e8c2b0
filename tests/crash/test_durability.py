"""Every acknowledged byte is on stable storage of both drives before the answer.

The simulated drives know what would survive if all power went now: nothing that waits in a cache.
After each answer the medium alone, with every cache forgotten, must hold the commit twice.
"""

from __future__ import annotations

import pytest

from appliance.core.errors import Damaged
from appliance.engine.mirror.blob import blob_path, decode_chunks
from appliance.engine.mirror.format import BlobKind, Kind, LogRecord, decode_batch
from appliance.engine.mirror.messages import CommitOrder, Staged
from tests.crash.history import History, Oracle
from tests.crash.machine import MIRROR_ID, SEGMENT_BYTES, Machine
from tests.crash.simulated import Operation


def _records_on_medium(contents: dict[str, bytes]) -> dict[bytes, list[LogRecord]]:
    """Request id → the records of its commit, from the log segments alone."""
    found: dict[bytes, list[LogRecord]] = {}
    for path, content in contents.items():
        if not path.startswith("log/") or path.endswith(".new"):
            continue
        offset = 4096
        while offset < SEGMENT_BYTES:
            try:
                batch = decode_batch(content[offset:])
            except Damaged:
                break
            assert batch.header.place.mirror_id == bytes.fromhex(MIRROR_ID)
            commit = b""
            for entry in batch.entries:
                commit = entry.record.request_id or commit
                found.setdefault(commit, []).append(entry.record)
            offset += batch.header.padded_bytes
    return found


def _prove(machine: Machine, commits: list[CommitOrder]) -> None:
    for disk in machine.disks.values():
        contents = disk.contents()
        on_medium = _records_on_medium(contents)
        for commit in commits:
            records = {r.key: r for r in on_medium.get(commit.request_id, []) if r.key}
            for order in commit.orders:
                if order.value is None:
                    continue
                record = records.get(order.key)
                assert record is not None, f"{disk.name}: {order.key!r} was only in a cache"
                assert record.kind is Kind.PUT
                assert record.value == order.value
                if isinstance(order.blob, bytes):
                    assert record.blob == order.blob
                elif isinstance(order.blob, Staged):
                    assert record.blob_kind is BlobKind.FILE
                    _prove_file(contents, order.blob)


def _prove_file(contents: dict[str, bytes], blob: Staged) -> None:
    raw = contents.get(blob_path(blob.blob_id))
    assert raw is not None, "a blob's name was only in a cache"
    chunks = -(-blob.size_bytes // 65_536)
    assert decode_chunks(blob.blob_id, blob.size_bytes, 0, chunks, raw) is not None


def test_every_acknowledged_byte_is_on_both_media(machine: Machine) -> None:
    store = machine.open()
    history, oracle = History(2), Oracle()
    sent: list[CommitOrder] = []
    commit = store.commit

    def proving(commits: list[CommitOrder]) -> object:
        outcomes = commit(commits)
        _prove(machine, commits)
        sent.extend(commits)
        return outcomes

    store.commit = proving  # type: ignore[assignment,method-assign]
    for _ in range(25):
        history.commit(machine, oracle)
    assert len(sent) > 30
    assert any(isinstance(order.blob, Staged) for c in sent for order in c.orders)


def test_the_proof_notices_a_drive_that_lies(machine: Machine) -> None:
    store = machine.open()
    machine.disks["drive-a"].lies_about_flushes = True
    history, oracle = History(2), Oracle()
    history.commit(machine, oracle)
    order = oracle.last_order
    assert order is not None
    assert store.stopped == ""
    with pytest.raises(AssertionError, match="only in a cache"):
        _prove(machine, [order])


def test_one_durable_write_per_drive_and_batch(machine: Machine) -> None:
    """The price of an acknowledgement: a batch of many small commits costs each drive one write."""
    store = machine.open()
    seen: list[str] = []

    def count(operation: Operation) -> None:
        if operation.kind in {"write", "flush", "flush_directory", "rename", "create"}:
            seen.append(operation.kind)

    for disk in machine.disks.values():
        disk.hook = count
    history, oracle = History(2), Oracle()
    orders = []
    for _ in range(32):
        order, contents = history._order(machine, dict(oracle.acked), oracle)
        if not any(isinstance(one.blob, Staged) or one.keep for one in order.orders):
            orders.append(order)
            oracle.acked = contents
    small = [o._replace(orders=[x._replace(blob=None) for x in o.orders]) for o in orders]
    seen.clear()
    outcomes = store.commit(small)
    assert len(outcomes) > 10
    assert seen == ["write", "write"]
