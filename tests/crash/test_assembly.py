"""Drives as control hands them to a store: unreadable, hung, exchanged on the same path."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.engine.interface import Batch, Engine, MirrorState, Partition, Put
from appliance.engine.mirror.assembly import AssemblyMessage
from appliance.engine.mirror.launch import RunningStore, local_engine, open_store
from appliance.engine.mirror.store import Store
from appliance.runtime.clock import SystemClock
from appliance.runtime.lanes import ThreadLanes
from tests.conformance.deeds import keys
from tests.conformance.mirrors import SETTINGS, lay_out

PARTITION = Partition("assembly")
POLL_S = 0.02


async def _until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 20) -> None:
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110 - another thread, which tells nobody here
            await asyncio.sleep(POLL_S)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_drive_that_cannot_be_read_leaves_nothing_open(scratch: Path) -> None:
    """Opening is tried again and again, for as long as it takes."""
    message = lay_out(scratch)
    superblock = scratch / "drive-b" / "superblock"
    superblock.unlink()
    superblock.mkdir()
    lanes = ThreadLanes(SystemClock())
    before = 0
    for attempt in range(3):
        assembly, troubles = AssemblyMessage.decode(message).open(lanes, deadline_s=10)
        assert [volume.name for volume in assembly.volumes] == ["drive-a"]
        assert len(troubles) == 1
        assembly.close()
        if attempt:
            assert _descriptors() == before
        before = _descriptors()
    lanes.close()


def test_a_drive_that_hangs_at_the_start_is_left_out(scratch: Path) -> None:
    """A pipe nobody writes to is the plainest thing that never answers."""

    async def scenario() -> None:
        message = lay_out(scratch)
        superblock = scratch / "drive-b" / "superblock"
        superblock.unlink()
        os.mkfifo(superblock)
        settings = replace(SETTINGS, deadline_s=0.2, missing_members_wait_s=0.0)
        store = await open_store(scratch / "s", message, settings=settings)
        engine = await local_engine(store.service)
        try:
            await engine.ready(20)
            assert (await engine.health()).state is MirrorState.DEGRADED
            await engine.commit(PARTITION, Batch([Put(b"k", b"")]))
            opened = store.service._store
            assert opened is not None
            assert opened._state.has_failed("drive-b"), "nothing on it is believed unread"
        finally:
            os.close(os.open(superblock, os.O_WRONLY))  # lets whoever waits for it go
            await engine.close()
            await store.close()

    asyncio.run(scenario())


class _Pipe:
    """A superblock that never answers, until it does."""

    def __init__(self, scratch: Path, drive: str) -> None:
        self._path = scratch / drive / "superblock"
        self._kept = self._path.with_name("kept")
        self._pipe = self._path.with_name("pipe")
        self._path.rename(self._kept)
        os.mkfifo(self._pipe)
        os.link(self._pipe, self._path)

    def mend(self) -> None:
        """Whoever asks from now on is answered; who asked before still hangs."""
        self._kept.rename(self._path)

    def let_go(self) -> None:
        """Who asked before comes back."""
        os.close(os.open(self._pipe, os.O_WRONLY))


def test_drives_that_all_hang_at_the_start_are_waited_for_and_none_is_ejected(
    scratch: Path,
) -> None:
    """However long that took, and although one of them comes back before the other."""

    async def scenario() -> None:
        message = lay_out(scratch)
        pipes = [_Pipe(scratch, drive) for drive in ("drive-a", "drive-b")]
        settings = replace(SETTINGS, deadline_s=0.2, missing_members_wait_s=15.0)
        store = await open_store(scratch / "s", message, settings=settings)
        engine = await local_engine(store.service)

        async def said(words: str) -> None:
            async def heard() -> bool:
                return words in (await engine.health()).reason

            await _until(heard)

        await said("no drive of mirror")
        pipes[0].mend()
        pipes[0].let_go()
        await said("waiting for drive drive-b")
        assert not store.service.serving.is_set()
        pipes[1].mend()
        pipes[1].let_go()
        await engine.ready(20)
        assert (await engine.health()).state is MirrorState.IN_SYNC
        await engine.close()
        await store.close()

    asyncio.run(scenario())


def test_a_drive_with_a_call_of_an_earlier_life_still_out_is_not_used(scratch: Path) -> None:
    """What that call writes when it comes back would meet what was written since."""

    async def scenario() -> None:
        message = lay_out(scratch)
        pipe = _Pipe(scratch, "drive-b")
        settings = replace(SETTINGS, deadline_s=0.2, missing_members_wait_s=0.0)
        store = await open_store(scratch / "s", message, settings=settings)
        engine = await local_engine(store.service)
        await engine.ready(20)
        pipe.mend()
        for _ in range(2):
            opened = store.service._store
            assert opened is not None and list(opened.members) == ["drive-a"]
            opened._state.stop("a reason of its own")

            async def opened_anew(before: Store = opened) -> bool:
                store.service._thread.try_open()
                return store.service._store not in {None, before}

            await _until(opened_anew)
            assert (await engine.health()).state is MirrorState.DEGRADED
        pipe.let_go()
        opened = store.service._store
        assert opened is not None
        opened._state.stop("a reason of its own")
        store.service._thread.try_open()
        await _state_is(engine, MirrorState.IN_SYNC)
        await engine.close()
        await store.close()

    asyncio.run(scenario())


def _on_mount(message: dict[str, Any], drive: str, mount: int) -> dict[str, Any]:
    members = [{**m, "mount": mount} if m["drive"] == drive else m for m in message["members"]]
    return {**message, "members": members}


async def _state_is(engine: Engine, state: MirrorState) -> None:
    async def reached() -> bool:
        return (await engine.health()).state is state

    await _until(reached)


def _fail(store: RunningStore, drive: str) -> None:
    """The drive's open files give errors from now on, as those of a dead mount do."""
    opened = store.service._store
    assert opened is not None
    opened._state.members[drive].volume.close()
    opened._state.members[drive].log.close()


@pytest.mark.parametrize("exchanged", ["drive-a", "drive-b"])
def test_only_a_fresh_mount_brings_a_failed_drive_back(scratch: Path, exchanged: str) -> None:
    """It has the same path and another number; no message without the drive came in between."""

    async def scenario() -> None:
        message = lay_out(scratch)
        store = await open_store(scratch / "s", message, settings=SETTINGS)
        engine = await local_engine(store.service)
        await engine.ready(20)
        await engine.commit(PARTITION, Batch([Put(b"before", b"")]))
        _fail(store, exchanged)
        await engine.commit(PARTITION, Batch([Put(b"after", b"")]))
        await _state_is(engine, MirrorState.DEGRADED)
        store.service.assembly_changed({**message, "absent": []})
        await engine.commit(PARTITION, Batch([Put(b"later", b"")]))
        assert (await engine.health()).state is MirrorState.DEGRADED
        store.service.assembly_changed(_on_mount(message, exchanged, 2))
        await _state_is(engine, MirrorState.IN_SYNC)
        assert await keys(engine, PARTITION) == [b"after", b"before", b"later"]
        await engine.close()
        await store.close()

    asyncio.run(scenario())


def test_a_mount_that_was_exchanged_unseen_is_not_used_any_more(scratch: Path) -> None:
    async def scenario() -> None:
        message = lay_out(scratch)
        store = await open_store(scratch / "s", message, settings=SETTINGS)
        engine = await local_engine(store.service)
        await engine.ready(20)
        await engine.commit(PARTITION, Batch([Put(b"k", b"")]))
        opened = store.service._store
        assert opened is not None
        old = opened.members["drive-b"]
        store.service.assembly_changed(_on_mount(message, "drive-b", 2))

        async def exchanged() -> bool:
            members = opened.members
            return "drive-b" in members and members["drive-b"] is not old

        await _until(exchanged)
        await engine.close()
        await store.close()

    asyncio.run(scenario())
