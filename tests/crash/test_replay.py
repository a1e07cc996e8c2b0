"""Power cuts on real XFS: two recorded drives, their states rebuilt and recovered for real, and the
proof that every acknowledged byte was on stable storage of both before its answer."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.crash.durable import DurableState
from tests.crash.figures import publish_if_asked
from tests.crash.machine import scratch_directory
from tests.crash.recording import Recording, Run, record
from tests.crash.replay import Machine, ReplayedDrive, choose_cuts

pytestmark = [
    pytest.mark.root,
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.needs("qemu-storage-daemon", "mkfs.xfs", "losetup"),
]
STATES: Final = int(os.environ.get("REPLAY_STATES", "520"))
"""All tests together; more for a long run."""
OPERATIONS: Final = 500
FILE: Final = "tests/crash/test_replay.py"
STALLS: Final = 24
STALL_S: Final = 0.04


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory: the recordings are rebuilt hundreds of times."""
    made = scratch_directory()
    yield made
    shutil.rmtree(made)


def replay(recording: Recording, folder: Path, seed: int, states: int) -> dict[str, object]:
    """Recover ``states`` power cuts; fails at the first wrong one with what repeats it. Its
    figures."""
    drives = [ReplayedDrive(drive, folder) for drive in recording.drives]
    cuts = choose_cuts(recording, [drive.log for drive in drives], states, seed)
    assert len(cuts) == states, f"the recording has only {len(cuts)} moments"
    began_s = time.monotonic()
    risky = uncertain = 0
    with ThreadPoolExecutor(2) as executor:
        machine = Machine(drives, recording, folder / "machine", executor)
        for cut in cuts:
            try:
                lost, _ = machine.try_cut(cut, random.Random(f"{seed}-{cut.counts}"))
            except BaseException:
                print(f"at {cut} of seed {seed}")
                raise
            risky += lost > 0
            uncertain += lost
    took_s = time.monotonic() - began_s
    print(
        f"{len(cuts)} power cuts recovered, {risky} with {uncertain} uncertain writes, "
        f"{recording.oracle.acknowledged} acknowledged changes, {machine.converged} times "
        f"the blobs of both compared, {took_s / len(cuts):.3f} s each"
    )
    assert risky >= states // 4, "too few moments had anything to lose"
    return {
        "power cuts recovered": len(cuts),
        "of them with writes that were not flushed": risky,
        "such writes, lost, kept, torn or kept out of order": uncertain,
        "changes acknowledged while recording": recording.oracle.acknowledged,
        "seconds for each": f"{took_s / len(cuts):.2f}",
        "acknowledged objects lost": 0,
    }


def _publish(name: str, title: str, rows: dict[str, object]) -> None:
    command = f"PUBLISH_FIGURES=1 REPLAY_STATES={STATES} .venv/bin/pytest -s {FILE}"
    publish_if_asked(name, {"title": title, "command": command, "rows": rows})


def test_power_cuts_under_load(folder: Path, seed: int) -> None:
    async def script(run: Run) -> None:
        await run.traffic.run(OPERATIONS)

    rows = replay(record(folder, seed, script), folder, seed, STATES * 6 // 10)
    _publish("2-replays", "Power cuts on real XFS under load", rows)


def test_power_cuts_while_a_drive_leaves_and_returns(folder: Path, seed: int) -> None:
    gone = seed % 2

    async def script(run: Run) -> None:
        async with asyncio.TaskGroup() as group:
            load = group.create_task(run.traffic.run(OPERATIONS * 2))
            for both in (False, True):
                await asyncio.sleep(0.3)
                await run.take_away(gone)
                await asyncio.sleep(0.3)
                await run.give_back(gone, both=both)
            await asyncio.sleep(0.3)
            run.traffic.stopping = True
            await load

    rows = replay(record(folder, seed, script), folder, seed, STATES * 4 // 10)
    _publish("2-replays-leave", "Power cuts on real XFS while a drive leaves and returns", rows)


def test_every_acknowledged_byte_was_flushed_on_both_drives_before_its_answer(
    folder: Path, seed: int
) -> None:
    chance = random.Random(seed)

    async def script(run: Run) -> None:
        async with asyncio.TaskGroup() as group:
            load = group.create_task(run.traffic.run(OPERATIONS * 2))
            for number in range(STALLS):
                await asyncio.sleep(chance.uniform(0.01, 0.08))
                await run.stall(number % 2, STALL_S)
            run.traffic.stopping = True
            await load

    recording = record(folder, seed, script)
    proven_bytes = sum(_prove(recording, side, folder) for side in (0, 1))
    # Nothing that was asked for while a drive did nothing was answered before it went on.
    during = 0
    for stall in recording.stalls:
        answered = [p for p in recording.promises if stall.first <= p.answered <= stall.last]
        early = [promise for promise in answered if promise.began >= stall.first]
        assert not early, f"answered while a drive hung: {early}"
        during += len(answered)
    print(
        f"{len(recording.promises)} answered commits and {proven_bytes} bytes in blobs: flushed on "
        f"both drives before the answer. Of {len(recording.stalls)} times a drive hung for a "
        f"moment, {during} commits were answered meanwhile, none that was asked for meanwhile"
    )
    rows: dict[str, object] = {
        "commits flushed on both drives before their answer": len(recording.promises),
        "bytes in blobs flushed likewise, both drives together": proven_bytes,
        "times a drive hung for a moment": len(recording.stalls),
        "commits asked for and answered meanwhile": 0,
    }
    _publish("2-replays-proof", "What was flushed before an answer, by the recordings", rows)


def _prove(recording: Recording, side: int, folder: Path) -> int:
    """What every answer rests on was flushed on this drive before it; bytes in blobs."""
    drive = recording.drives[side]
    blobs = [extent for promise in recording.promises for extent in promise.blobs[side]]
    durable = DurableState(drive, blobs, folder)
    for promise in recording.promises:
        answered = recording.looks[promise.answered].positions[side]
        sizes = [sum(each.size_bytes for each in blob) for blob in promise.blobs]
        assert sizes[0] == sizes[1], f"{promise}: not on both drives"
        batch = durable.batches.get(promise.sequence)
        assert batch is not None, f"batch {promise.sequence} was never durable on {drive.image}"
        assert batch <= answered, f"{promise}: its batch was flushed after the answer"
        for extent in promise.blobs[side]:
            flushed = durable.extents.get(extent)
            assert flushed is not None, f"{promise}: {extent} was never durable"
            assert flushed <= answered, f"{promise}: {extent} was flushed after the answer"
    return sum(each.size_bytes for each in blobs)
