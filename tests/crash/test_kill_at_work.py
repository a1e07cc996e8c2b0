"""``kill -9`` of the store while it brings a drive in, compacts its log or scrubs, under S3 load.

The whole service in development mode on two XFS file systems of their own. Each kill comes right
after the store itself said how far the work was. Nothing acknowledged is lost, and both drives are
equal at the end."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.crash.figures import publish_if_asked
from tests.crash.oracle import Memory, Writer, verify
from tests.crash.store_at_work import Compaction, Resync, Scrub, StoreAtWork, Work
from tests.crash.test_kill import Turnstile
from tests.system.drives import LoopDrive, attached, sh, until
from tests.system.service import PROGRAMS, Appliance, appliance, digests

pytestmark = [
    pytest.mark.root,
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.needs("mkfs.xfs", "losetup"),
]
KILLS: Final = int(os.environ.get("KILLS_AT_WORK", "24"))
"""Of all three kinds of work together."""
DRIVE_BYTES: Final = 4 * 2**30
WRITERS: Final = 4
KEYS: Final = 70
SIZES_BYTES: Final = (0, 4_096, 60_000, 200_000, 250_000, 700_000)
"""Most of it inline, for it is the log that is compacted; ``KEYS`` of each writer are some segments
of it."""
RESTS: Final = (0, 0, 1, 3, 6, 12)
"""How often the work may go on a little before the kill."""
PACES: Final = "resync_busy_percent = 75\nscrub_busy_percent = 50\ncompaction_limit_mib_s = 2\n"
"""Compaction slow enough to be met by every kill, the others fast enough for a short test."""
WAIT_S: Final = 60.0


@contextmanager
def _drives(folder: Path) -> Iterator[list[Path]]:
    """Two mounted XFS file systems."""
    drives = [LoopDrive(folder, name, size_bytes=DRIVE_BYTES) for name in ("one", "other")]
    places = [folder / f"{drive.image.stem}.mount" for drive in drives]
    with attached(*drives):
        for drive, place in zip(drives, places, strict=True):
            sh("mkfs.xfs", "-q", "-f", "-K", "-m", "reflink=0", drive.node)
            place.mkdir()
            sh("mount", "-t", "xfs", "-o", "noatime,nouuid", drive.node, str(place))
            # Development does not take a file system's root for its own.
            (place / "drive").mkdir()
        yield [place / "drive" for place in places]


class Load:
    """Clients that write all the time, and what they were told."""

    def __init__(self, machine: Appliance, account: dict[str, Any], seed: int) -> None:
        self.bucket: Final = account["bucket"]
        self.memory: Final[dict[str, Memory]] = {}
        self.turnstile: Final = Turnstile()
        self.acknowledged = 0
        self.unanswered = 0
        self._client = partial(machine.client, account, connect_timeout=5, read_timeout=30)
        self._seed = seed
        self._crews = 0

    @contextmanager
    def running(self) -> Iterator[Turnstile]:
        """Inside, they write. What they were told is read back at the end."""
        first = self._crews * WRITERS
        self._crews += 1
        writers = [
            Writer(
                first + number,
                self._seed,
                self._client,
                self.bucket,
                self.turnstile,
                sizes_bytes=SIZES_BYTES,
                keys=KEYS,
            )
            for number in range(WRITERS)
        ]
        for writer in writers:
            writer.start()
        try:
            yield self.turnstile
        finally:
            for writer in writers:
                writer.stopping.set()
            for writer in writers:
                writer.join(WAIT_S)
        for writer in writers:
            assert not writer.is_alive(), "a writer is stuck"
            self.acknowledged += writer.acknowledgements
            self.unanswered += writer.unanswered
            self.memory.update(writer.memory)
        self.check()

    def check(self) -> int:
        """How many objects there are; all of them were read."""
        return verify(self._client(), self.bucket, self.memory)


def test_kill_at_work(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    began_s = time.monotonic()
    with _drives(tmp_path) as roots:
        listed = ", ".join(json.dumps(str(root)) for root in roots)
        development = f"[development]\nenabled = true\ndrives = [{listed}]\n"
        with appliance(tmp_path / "machine", missing_s=5, more=PACES + development) as machine:
            machine.start_all("m0")
            until(machine.serves, "the service to serve", deadline_s=WAIT_S)
            load = Load(machine, machine.json("account", "create", "office"), seed)
            store = StoreAtWork(machine, "m0")
            store.lay_sediment()
            print(f"   {time.monotonic() - began_s:.1f} s")
            works: list[Callable[[], Work]] = [
                lambda: Compaction(store),
                lambda: Resync(store, chance),
                lambda: Scrub(store),
            ]
            done: list[Work] = []
            for make in works:
                with load.running() as turnstile:
                    work = make()
                    for _ in range(KILLS // len(works)):
                        _kill_within(work, store, turnstile, chance)
                    turnstile.wait_for(1)
                done.append(work)
                print(f"{work.name}: {len(work.seen)} kills, at {', '.join(work.seen)}")
                print(f"   {time.monotonic() - began_s:.1f} s")
            objects = _settle(machine, store, load)
            machine.stop_all()
            _compare(roots)
        print(
            f"{store.kills} kills within work, {load.acknowledged} acknowledged, "
            f"{load.unanswered} unanswered, {objects} objects, "
            f"{time.monotonic() - began_s:.1f} s"
        )
        _publish(done, load, objects)


def _kill_within(
    work: Work, store: StoreAtWork, turnstile: Turnstile, chance: random.Random
) -> None:
    """Clients write, the work is under way, and the store is killed right after it said so."""
    turnstile.wait_for(chance.randrange(1, 20))
    deadline_s = time.monotonic() + WAIT_S
    rests = chance.choice(RESTS)
    while True:
        assert time.monotonic() < deadline_s, f"no {work.name} came under way"
        progress = work.look()
        if not progress:
            work.begin(turnstile)
        elif rests:
            rests -= 1
            turnstile.wait_for(chance.randrange(1, 8))
        else:
            break
    store.kill()
    work.seen.append(progress)
    store.start()


def _settle(machine: Appliance, store: StoreAtWork, load: Load) -> int:
    """All work comes to its end; everything is read once more."""
    until(lambda: store.state() == "in sync", "the mirror to be in sync", deadline_s=WAIT_S)
    store.ask("scrub", "start")
    until(
        lambda: store.ask("scrub", "look")["current"] is None,
        "the scrub to end",
        deadline_s=WAIT_S,
    )
    last = store.ask("scrub", "look")["last"]
    assert last["state"] == "finished", last
    assert last["index"] == "proven equal to the log", last
    assert all(drive["unrepairable"] == 0 for drive in last["drives"]), last
    store.check_sediment()
    return load.check()


def _compare(roots: list[Path]) -> None:
    """Both drives hold the same, and all of it is whole."""
    verified = subprocess.run(
        [PROGRAMS / "appliance", "mirror", "verify", *map(str, roots), "--json"],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert json.loads(verified.stdout)["findings"] == [], verified.stdout
    ours, theirs = map(digests, roots)
    assert ours == theirs


def _publish(done: list[Work], load: Load, objects: int) -> None:
    kills = {f"kills within a {work.name}": len(work.seen) for work in done}
    wounds = sum(work.wounds for work in done if isinstance(work, Resync))
    assert wounds, "no drive came back with less than it had"
    section = {
        "title": "The store killed at long work under S3 load",
        "command": "PUBLISH_FIGURES=1 .venv/bin/pytest -s tests/crash/test_kill_at_work.py",
        "rows": {
            **kills,
            "resyncs of a drive whose log had lost its end": wounds,
            "changes acknowledged": load.acknowledged,
            "requests whose answer was lost": load.unanswered,
            "objects read back": objects,
            "acknowledged objects lost": 0,
        },
    }
    publish_if_asked("3-kills-at-work", section)
