"""A drive that hangs while the mirror is opened: at each of its calls, for ever and for a while.

The mirror opens with the other drive and serves everything acknowledged; what the call still does
when it comes back at last harms nothing. While no drive answers nobody is ejected.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from appliance.engine.mirror.assembled import NobodyAnswers
from appliance.engine.mirror.segment import segment_path
from appliance.engine.mirror.store import Store
from tests.crash.acts import bring_back
from tests.crash.history import Contents, History, Oracle
from tests.crash.images import Image
from tests.crash.machine import DRIVES, WITNESS, Machine
from tests.crash.simulated import SimulatedDisk
from tests.crash.stalls import ReleasingClock, Stall, StalledLanes, Watch

COMMITS = 12
CALLS_MIN = 30
SAMPLE = 3
"""Of the calls of a start, so many are tried in the short run."""

pytestmark = pytest.mark.timeout(600)


@dataclass(slots=True)
class Scene:
    """What a start finds."""

    images: dict[str, Image]
    index: Path
    acked: Contents
    pending: list[Contents] = field(default_factory=list)
    starts: int = 0

    def start(self, directory: Path) -> tuple[Machine, Oracle]:
        """A machine that holds it, not opened yet."""
        self.starts += 1
        place = directory / f"start-{self.starts}"
        shutil.copytree(self.index, place / "index")
        machine = Machine.holding(self.starts, place, self.images, ReleasingClock())
        return machine, Oracle(dict(self.acked), list(self.pending), request_id=1000)


class _Past:
    """A mirror with some history, up to its last batch and with it."""

    def __init__(self, directory: Path) -> None:
        machine, history, oracle = Machine(11, directory), History(11), Oracle()
        store = machine.open()
        for _ in range(COMMITS):
            history.commit(machine, oracle)
        self.before, self.acked_before = _images(machine), dict(oracle.acked)
        self.tail = store._state.planner.tail
        history.commit(machine, oracle)
        assert store._state.planner.tail.segment == self.tail.segment
        self.after, self.acked_after = _images(machine), dict(oracle.acked)
        store.checkpoint()
        machine.drop_store()
        self.index = machine.index_directory

    def torn(self, drive: str) -> Image:
        """A drive that has the last batch's first sector alone."""
        images, path = dict(self.after[drive]), segment_path(self.tail.segment)
        whole, older = images[path], self.before[drive][path]
        assert whole is not None and older is not None
        cut = self.tail.offset + 512
        images[path] = whole.patched(cut, older.data[cut:])
        return images


def _images(machine: Machine) -> dict[str, Image]:
    return {
        **{name: machine.disks[name].image() for name in DRIVES},
        WITNESS: machine.witness.image(),
    }


def _as_it_was(past: _Past) -> Scene:
    return Scene(past.after, past.index, past.acked_after)


def _last_batch_on_one(past: _Past) -> Scene:
    images = {**past.before, "drive-a": past.after["drive-a"]}
    return Scene(images, past.index, past.acked_before, [past.acked_after])


def _torn_on_one(past: _Past) -> Scene:
    images = {**past.after, "drive-a": past.torn("drive-a")}
    return Scene(images, past.index, past.acked_before, [past.acked_after])


def _torn_on_both(past: _Past) -> Scene:
    images = {**past.after, **{name: past.torn(name) for name in DRIVES}}
    return Scene(images, past.index, past.acked_before)


def _index_lost(past: _Past) -> Scene:
    empty = past.index.parent / "empty"
    empty.mkdir()
    return Scene(past.after, empty, past.acked_after)


SCENES: dict[str, Callable[[_Past], Scene]] = {
    "as it was left": _as_it_was,
    "last batch on one drive": _last_batch_on_one,
    "torn on one drive": _torn_on_one,
    "torn on both": _torn_on_both,
    "index lost": _index_lost,
}


@pytest.fixture(params=SCENES)
def scene(request: pytest.FixtureRequest, scratch: Path) -> Scene:
    return SCENES[request.param](_Past(scratch / "past"))


def _calls(scene: Scene, scratch: Path, drive: str) -> int:
    """How many the drive gets in a start in which nothing hangs."""
    machine, oracle = scene.start(scratch)
    watch = Watch(_disk(machine, drive))
    store = machine.open(lanes=StalledLanes())
    calls = watch.calls
    watch.end()
    assert len(store.members) == 2
    oracle.check(machine)
    machine.drop_store()
    return calls


def _disk(machine: Machine, drive: str) -> SimulatedDisk:
    return machine.witness if drive == WITNESS else machine.disks[drive]


def _has_witness(store: Store) -> bool:
    return store._state.votes.witness_present


def _hang_at(scene: Scene, scratch: Path, drive: str, number: int) -> None:
    """The drive's ``number``-th call of a start hangs, and all that follow; every second one comes
    back at last, and its drive with it."""
    machine, oracle = scene.start(scratch)
    history, lanes = History(number), StalledLanes()
    (other,) = {*DRIVES} - {drive}
    stall = Stall(lanes, machine.disks[drive], number)
    store = machine.open(lanes=lanes)
    assert stall.has_struck
    if len(store.members) == 2:
        store.mark()  # it hung in the sweep, which asks nothing of it: the next batch does
    assert list(store.members) == [other]
    oracle.check(machine)
    history.commit(machine, oracle)
    stall.release()
    lanes.settle()
    if number % 2:
        machine.drop_store()
        return
    # What it was to do is done. Only now is the drive mounted afresh.
    history.commit(machine, oracle)
    if number % 4:
        machine.drop_store()
        store = machine.open()
        assert list(store.members) == [other]
        oracle.check(machine)
    bring_back(machine, drive)
    assert len(store.members) == 2
    oracle.check(machine)
    history.commit(machine, oracle)
    machine.drop_store()
    store = machine.open()
    assert len(store.members) == 2
    oracle.check(machine)
    machine.drop_store()


def _stand_still_at(scene: Scene, scratch: Path, drive: str, number: int) -> None:
    """From the drive's ``number``-th call of a start on nobody answers any more."""
    machine, oracle = scene.start(scratch)
    lanes, clock = StalledLanes(), machine.clock
    stalls: list[Stall] = []

    def stop(what: str) -> None:
        if not stalls:
            stalls.extend(Stall(lanes, machine.disks[name], 1) for name in DRIVES)
            stalls[0].hang(what)

    def go_on() -> None:
        for stall in stalls:
            stall.release()
        lanes.settle()

    assert isinstance(clock, ReleasingClock)
    clock.release = go_on
    watch = Watch(machine.disks[drive], number, stop)
    try:
        store = machine.open(lanes=lanes)
    except NobodyAnswers:
        machine.drop_store()
        with pytest.raises(NobodyAnswers):
            machine.open(lanes=lanes)
        machine.drop_store()
        go_on()
        store = machine.open(lanes=lanes)
    go_on()
    assert watch.has_struck
    assert len(store.members) == 2
    oracle.check(machine)
    machine.drop_store()


def _witness_hangs_at(scene: Scene, scratch: Path, number: int) -> None:
    machine, oracle = scene.start(scratch)
    lanes = StalledLanes()
    stall = Stall(lanes, machine.witness, number)
    store = machine.open(lanes=lanes)
    assert stall.has_struck
    assert len(store.members) == 2
    assert any("witness" in alert for alert in machine.alerts)
    assert not _has_witness(store)
    oracle.check(machine)
    stall.release()
    lanes.settle()
    machine.clock.sleep_s(100)
    store.step()
    assert _has_witness(store)
    machine.drop_store()
    machine.disks["drive-b"].pull()
    store = machine.open("drive-a")
    oracle.check(machine)
    machine.drop_store()


def _all(calls: int) -> list[int]:
    return list(range(1, calls + 1))


def _some(calls: int) -> list[int]:
    return sorted(random.Random(calls).sample(_all(calls), min(calls, SAMPLE)))


Chosen = Callable[[int], list[int]]
SHORT_AND_LONG = [
    pytest.param(_some, id="some"),
    pytest.param(_all, id="all", marks=pytest.mark.long),
]


@pytest.mark.parametrize("chosen", SHORT_AND_LONG)
@pytest.mark.parametrize("drive", DRIVES)
def test_a_drive_that_hangs_at_any_call_keeps_no_mirror_from_opening(
    scene: Scene, scratch: Path, drive: str, chosen: Chosen
) -> None:
    calls = _calls(scene, scratch, drive)
    assert calls > CALLS_MIN, "or they are not counted"
    for number in chosen(calls):
        _hang_at(scene, scratch, drive, number)


@pytest.mark.parametrize("chosen", SHORT_AND_LONG)
def test_no_drive_is_ejected_while_none_answers(
    scene: Scene, scratch: Path, chosen: Chosen
) -> None:
    """A host that stands still, at any call: nothing is decided, and it opens by itself later."""
    for number in chosen(_calls(scene, scratch, "drive-a"))[::2]:
        _stand_still_at(scene, scratch, "drive-a", number)


@pytest.mark.parametrize("chosen", SHORT_AND_LONG)
def test_a_witness_that_hangs_at_any_call_is_done_without(
    scene: Scene, scratch: Path, chosen: Chosen
) -> None:
    calls = _calls(scene, scratch, WITNESS)
    assert calls >= SAMPLE, "or they are not counted"
    for number in chosen(calls):
        _witness_hangs_at(scene, scratch, number)
