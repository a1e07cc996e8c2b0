"""An index whose pages rot: never believed, put aside, and built anew from the log."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from appliance.core.errors import InvalidInput, Unavailable
from appliance.engine.interface import Batch, Partition, Put
from appliance.engine.mirror.connecting import connect_engine
from appliance.engine.mirror.launch import local_engine, open_store
from appliance.engine.mirror.messages import MembersView, decode_commit
from appliance.engine.mirror.state import Stopped
from appliance.engine.mirror.store import Store
from tests.conformance.mirrors import SETTINGS, lay_out
from tests.crash.acts import commit, put
from tests.crash.history import PARTITION
from tests.crash.machine import Machine

RECORDS = 400


def _fill(machine: Machine) -> Store:
    store = machine.open()
    for number in range(1, RECORDS + 1):
        commit(store, put(b"record %04d" % number, number, None))
    store.checkpoint()
    store._state.index.shorten_wal()
    return store


def _rot(path: str, text: bytes) -> None:
    """Flip a bit wherever the file says ``text``."""
    file = Path(path)
    data = bytearray(file.read_bytes())
    at = data.find(text)
    assert at > 4096, "not in the first page, which every open reads"
    while at >= 0:
        data[at] ^= 1
        at = data.find(text, at + 1)
    file.write_bytes(bytes(data))


def _all_there(machine: Machine, count: int) -> None:
    with machine.reader() as reader:
        assert len(reader.scan(PARTITION, b"", b"\xff", 1000, False)) == count


def test_a_page_that_rots_stops_the_store_and_the_next_start_heals(machine: Machine) -> None:
    path = _fill(machine)._state.index.path
    machine.drop_store()
    _rot(path, b"record 0200")
    store = machine.open()
    with pytest.raises(Stopped, match="index"):
        store.commit([put(b"record 0200", 5000, None)])
    machine.drop_store()
    store = machine.open()
    assert store._state.index.path != path
    commit(store, put(b"record 0200", 5000, None))
    _all_there(machine, RECORDS)


def test_a_page_that_rots_before_a_replay_heals_at_once(machine: Machine) -> None:
    store = _fill(machine)
    path = store._state.index.path
    machine.remember_index()
    commit(store, put(b"record 0200", 5000, None))
    older = machine._older_index / Path(path).name
    machine.drop_store()
    Path(path).write_bytes(older.read_bytes())
    for rest in ("-wal", "-shm"):
        Path(path + rest).unlink(missing_ok=True)
    _rot(path, b"record 0200")
    store = machine.open()
    assert store._state.index.path != path
    commit(store, put(b"record 0200", 5001, None))
    _all_there(machine, RECORDS)


def test_a_reader_that_meets_a_bad_page_has_the_index_made_anew(scratch: Path) -> None:
    async def scenario() -> None:
        store = await open_store(scratch / "s", lay_out(scratch), settings=SETTINGS)
        engine = await local_engine(store.service)
        await engine.ready(20)
        puts = [Put(b"record %04d" % number, b"v" * 100) for number in range(RECORDS)]
        await engine.commit(Partition(PARTITION), Batch(puts))
        first = store.service.view().index_path
        opened = store.service._store
        assert opened is not None
        opened.checkpoint()
        await engine.close()
        _rot(first, b"record 0200")
        engine = await connect_engine(scratch / "s", role="gateway")
        await engine.ready(20)
        async with asyncio.timeout(20):
            while store.service._view is None or store.service.view().index_path == first:
                with contextlib.suppress(Unavailable):
                    await engine.scan(Partition(PARTITION), b"", b"\xff", RECORDS)
                await asyncio.sleep(0.02)
            while True:
                with contextlib.suppress(Unavailable):
                    found = await engine.scan(Partition(PARTITION), b"", b"\xff", RECORDS + 1)
                    break
                await asyncio.sleep(0.02)
        assert len(found) == RECORDS
        await engine.close()
        await store.close()

    asyncio.run(scenario())


def test_gateways_learn_of_the_reserve() -> None:
    view = MembersView(b"m" * 16, "index", 10, [], "", 4096)
    assert MembersView.decode(view.encode()) == view
    assert MembersView.decode(view.encode()[:5]).reserve_bytes == 0


@pytest.mark.parametrize("wrong", ["charges", "partition"])
def test_a_commit_nobody_can_read_is_refused_before_the_store_sees_it(wrong: str) -> None:
    charges = b"\xff\xff" if wrong == "charges" else b""
    partition = b"\xff" if wrong == "partition" else b"p"
    order = [b"key", b"value", charges, None, None]
    with pytest.raises(InvalidInput):
        decode_commit([partition, bytes(16), [order], [], []])
