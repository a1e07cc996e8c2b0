"""Child processes forked from one that has everything imported: a trial each, watched by the clock.

Owns the children: each is in a process group of its own with a temporary directory of its own, and
nothing of either outlives it. A child tells what it does, one JSON line per step; one that is over
the time it asked for its step is killed.
"""

from __future__ import annotations

import gc
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

START_LIMIT_S: Final = 60.0
"""For whatever a child does before its first step."""

Tell = Callable[..., None]
"""``tell(step=name, limit_s=seconds)`` before a step; anything else is kept in ``told``."""


@dataclass(slots=True)
class Outcome:
    """What became of a child: ``lost_in`` names the step in which it hung or its process ended,
    ``raised`` is the end of a traceback of its work."""

    told: list[dict[str, Any]] = field(default_factory=list)
    lost_in: str = ""
    raised: str = ""

    def first(self, key: str) -> str:
        """The first value told under this key, or nothing."""
        return next((str(each[key]) for each in self.told if key in each), "")


def watched(work: Callable[[Tell], None]) -> Outcome:
    """Run ``work`` in a child until it ends or is over its time."""
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(source)
        _be_child(work, sink)
    os.close(sink)
    made: list[str] = []
    try:
        return _listen(source, made)
    finally:
        os.close(source)
        _kill(child)
        for directory in made:
            shutil.rmtree(directory, ignore_errors=True)


def _be_child(work: Callable[[Tell], None], sink: int) -> None:
    """Never returns."""
    try:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)

        def tell(**what: object) -> None:
            os.write(sink, json.dumps(what).encode() + b"\n")

        _confess_directories(tell)
        tempfile.tempdir = tempfile.mkdtemp(prefix="mutant-")
        os.chmod(tempfile.tempdir, 0o755)  # some tests look at it as another user
        try:
            work(tell)
        except BaseException:  # noqa: BLE001 - outermost in this process
            tell(end=False, raised=traceback.format_exc(limit=-6)[-1500:])
        else:
            tell(end=True)
    finally:
        os._exit(0)


def _confess_directories(tell: Tell) -> None:
    """The parent removes what a killed child could not."""
    make = tempfile.mkdtemp

    def mkdtemp(*arguments: Any, **named: Any) -> str:
        directory = cast(str, make(*arguments, **named))
        tell(made=directory)
        return directory

    vars(tempfile)["mkdtemp"] = mkdtemp


def _listen(source: int, made: list[str]) -> Outcome:
    outcome = Outcome()
    step, deadline, waiting = "its beginning", time.monotonic() + START_LIMIT_S, b""
    while True:
        ready, _, _ = select.select([source], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            outcome.lost_in = step
            return outcome
        data = os.read(source, 65536)
        if not data:
            outcome.lost_in = step
            return outcome
        *lines, waiting = (waiting + data).split(b"\n")
        for line in lines:
            told = json.loads(line)
            if "step" in told:
                step, deadline = told["step"], time.monotonic() + told["limit_s"]
            elif "made" in told:
                made.append(told["made"])
            elif "end" in told:
                outcome.raised = told.get("raised", "")
                return outcome
            else:
                outcome.told.append(told)


def _kill(child: int) -> None:
    """Whatever the child started goes too."""
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(child, signal.SIGKILL)  # it had no time to lead a group
    os.waitpid(child, 0)


def spread(
    tasks: Sequence[Callable[[], dict[str, Any]]], jobs: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Do the tasks in ``jobs`` processes; yields (number of the task, what it returned) as they are
    done. Raises ``AssertionError`` if a process ended before its task."""
    gc.freeze()  # children share what is there instead of each looking it over
    queue, fill = os.pipe()
    os.write(fill, b"".join(number.to_bytes(4, "big") for number in range(len(tasks))))
    os.close(fill)
    source, sink = os.pipe()
    workers = []
    for _ in range(jobs):
        worker = os.fork()
        if worker == 0:
            os.close(source)
            _be_worker(tasks, queue, sink)
        workers.append(worker)
    os.close(sink)
    os.close(queue)
    done = 0
    try:
        with os.fdopen(source) as lines:
            for line in lines:
                number, returned = json.loads(line)
                done += 1
                yield number, returned
    finally:
        for worker in workers:
            if done < len(tasks):
                os.kill(worker, signal.SIGTERM)
            os.waitpid(worker, 0)
    assert done == len(tasks), f"{len(tasks) - done} tasks were not done: a process failed"


def _be_worker(tasks: Sequence[Callable[[], dict[str, Any]]], queue: int, sink: int) -> None:
    """Never returns. Told to end, it first ends its child."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        while number := os.read(queue, 4):
            at = int.from_bytes(number, "big")
            line = json.dumps([at, tasks[at]()]).encode() + b"\n"
            while line:
                line = line[os.write(sink, line) :]
    except (SystemExit, KeyboardInterrupt):
        pass
    except BaseException:  # noqa: BLE001 - outermost in this process
        traceback.print_exc()
    finally:
        os._exit(0)
