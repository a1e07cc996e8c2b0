"""``kill -9`` of the store and of gateways under S3 load: nothing acknowledged is lost."""

from __future__ import annotations

import os
import random
import signal
import threading
from functools import partial
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.crash.figures import publish_if_asked
from tests.crash.oracle import Writer, verify
from tests.development import Service, development_service

KILLS: Final = int(os.environ.get("KILLS", "200"))
WRITERS: Final = 6
PROGRESS_PER_KILL: Final = 12
PROGRESS_TIMEOUT_S: Final = 60
BUCKET: Final = "kill"
ROLES: Final = ("store", "gateway")


class Turnstile:
    """Counts acknowledgements; lets one thread wait for the next so many."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = threading.Condition()

    def acknowledged(self) -> None:
        """One more; called from the writers."""
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def wait_for(self, more: int) -> None:
        """Return after ``more`` acknowledgements from now; fail if the service does not recover."""
        with self._changed:
            goal = self._count + more
            came = self._changed.wait_for(lambda: self._count >= goal, PROGRESS_TIMEOUT_S)
        assert came, f"the service did not recover within {PROGRESS_TIMEOUT_S} s"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_kill_under_load(tmp_path: Path) -> None:
    seed = int(os.environ.get("KILL_SEED", random.randrange(2**32)))
    print(f"KILL_SEED={seed}")
    chance = random.Random(seed)
    with development_service(tmp_path) as service:
        new_client = partial(service.client, connect_timeout=5, read_timeout=30)
        client = new_client()
        location = {"LocationConstraint": service.region}
        client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=location)
        turnstile = Turnstile()
        writers = [Writer(number, seed, new_client, BUCKET, turnstile) for number in range(WRITERS)]
        for writer in writers:
            writer.start()
        for _ in range(KILLS):
            turnstile.wait_for(chance.randrange(1, PROGRESS_PER_KILL))
            os.kill(_victim(service, chance), signal.SIGKILL)
        turnstile.wait_for(PROGRESS_PER_KILL)
        for writer in writers:
            writer.stopping.set()
        for writer in writers:
            writer.join(PROGRESS_TIMEOUT_S)
            assert not writer.is_alive()
        memory = {key: known for writer in writers for key, known in writer.memory.items()}
        objects = verify(client, BUCKET, memory)
        answered = sum(writer.acknowledgements for writer in writers)
        unanswered = sum(writer.unanswered for writer in writers)
        print(f"{KILLS} kills, {answered} acknowledged, {unanswered} unanswered, {objects} objects")
    with development_service(tmp_path) as service:
        assert verify(service.client(), BUCKET, memory) == objects
    section = {
        "title": "Stores and gateways killed under S3 load",
        "command": f"PUBLISH_FIGURES=1 KILLS={KILLS} .venv/bin/pytest -s tests/crash/test_kill.py",
        "rows": {
            "processes killed": KILLS,
            "changes acknowledged": answered,
            "requests whose answer was lost": unanswered,
            "objects read back": objects,
            "acknowledged objects lost": 0,
        },
    }
    publish_if_asked("3-kills", section)


def _victim(service: Service, chance: random.Random) -> int:
    """The process id of a living store or gateway, the store half of the time if it lives."""
    roles = {chance.choice(ROLES)}
    while True:
        children = psutil.Process(service.process.pid).children(recursive=True)
        processes = [child for child in children if roles & set(_command(child))]
        if processes:
            return int(chance.choice(processes).pid)
        roles = set(ROLES)


def _command(process: psutil.Process) -> list[str]:
    """The command line; empty for one that has just ended or is not one of our roles."""
    try:
        line = process.cmdline()
    except psutil.Error:
        return []
    return line if "appliance.daemon" in line else []
