"""A scrub of a mirror that lives meanwhile: commits, recycling, a second fault, power cuts."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from appliance.core.scrubs import DriveScrub, ScrubState
from appliance.engine.mirror.scrub import PROVEN
from appliance.engine.mirror.scrub_tally import Tally
from appliance.engine.mirror.store import Store
from tests.crash.acts import commit, delete, put
from tests.crash.cuts import sweep
from tests.crash.history import History, Oracle
from tests.crash.machine import DRIVES, Machine, PowerCut
from tests.crash.scrubbing import (
    everything,
    fill,
    in_file,
    in_inline,
    repaired_to,
    scrub,
    stable,
)

SHORT_STATES = 24
LONG_STATES = 300


def test_commits_releases_and_recycling_go_on_meanwhile(machine: Machine) -> None:
    store = fill(machine)
    recycled = store.counts()["recycled_segments"]

    kept: dict[int, int] = {}

    def live(piece: int) -> None:
        _unread_are_kept(store, kept)
        if piece > 120:
            return
        for number in range(piece * 3 % 20, piece * 3 % 20 + 3):
            order = put(b"inline %d" % (number % 20), piece * 100 + number + 10_000, b"n" * 25_000)
            commit(store, order)
        if piece % 3 == 0:
            store.checkpoint()
            store.step()
            for _ in range(8):
                machine.clock.sleep_s(1)
                store.work()
        if piece == 4:
            for number in range(5, 31, 5):
                commit(store, delete(b"large %d" % number, 9000 + number))

    done = scrub(machine, live)
    assert done.finished
    assert done.tally.index == PROVEN
    assert [done.found(drive) for drive in DRIVES] == [DriveScrub(), DriveScrub()]
    assert store.counts()["recycled_segments"] > recycled


def _unread_are_kept(store: Store, kept: dict[int, int]) -> None:
    """What the scrub had not read at the last look, and has not now, is of its generation still."""
    table, after = store._state.planner.table, store._state.unread_after
    for segment, generation in kept.items():
        found = table.get(segment)
        assert found is not None
        assert found.generation == generation
    kept.clear()
    if after is not None:
        kept.update({s.segment: s.generation for s in table.used() if s.last_sequence > after})


def test_segments_freed_under_pressure_before_they_were_read_are_looked_for_again(
    machine: Machine,
) -> None:
    store = fill(machine)
    seen: list[int] = []

    def press(piece: int) -> None:
        log = done_tally.phase == "log"
        if not log or len(seen) > 1:
            return
        seen.append(piece)
        store._state.unread_after = None  # what a full mirror does not heed
        for number in range(30):
            commit(store, put(b"inline %d" % (number % 20), piece * 1000 + number, b"f" * 25_000))
        store.checkpoint()
        store.step()

    done_tally = Tally()
    done = scrub(machine, press, done_tally)
    assert seen
    assert done.tally.index == PROVEN
    assert [done.found(drive) for drive in DRIVES] == [DriveScrub(), DriveScrub()]


@pytest.mark.parametrize("seed", range(6))
def test_a_second_fault_during_the_scrub_is_mended_too(scratch: Path, seed: int) -> None:
    """A bit flips on the other drive while the first one's is being mended."""
    machine = Machine(seed, scratch / f"{seed}")
    fill(machine)
    before = stable(machine)
    rng = random.Random(f"second fault {seed}")
    first, second = rng.sample(DRIVES, 2)
    machine.disks[first].flip(*in_inline(machine, b"inline 7"))
    machine.disks[first].flip(*in_file(machine, b"large 10"))
    at = rng.randint(1, 20)
    places = [in_inline(machine, b"inline 9"), in_file(machine, b"large 15")]

    def flip(piece: int) -> None:
        if piece == at:
            machine.disks[second].flip(*rng.choice(places))

    scrub(machine, flip)
    done = scrub(machine)  # what was flipped behind the cursor is the next one's
    repaired_to(machine, before, done)
    machine.drop_store()


# -- crashes ---------------------------------------------------------------------------------------


def _rot(machine: Machine, rng: random.Random) -> None:
    """Different things on both drives, so that every one of them has a good copy."""
    fill(machine, 12)
    places = [
        in_inline(machine, b"inline 7"),
        in_inline(machine, b"inline 11"),
        in_file(machine, b"large 5"),
        in_file(machine, b"large 10"),
    ]
    for path, offset in places:
        machine.disks[rng.choice(DRIVES)].flip(path, offset)


def _survive(seed: int, cut: int, directory: Path) -> int:
    """Cut the power in the scrub's ``cut``-th operation; how many operations there were."""
    machine = Machine(seed, directory)
    history, oracle = History(seed), Oracle()
    machine.open()
    history.commit(machine, oracle)
    _rot(machine, random.Random(f"rot {seed}"))
    contents = everything(machine)
    start = machine.power.operations
    machine.power.cut_at = start + cut if cut else 0
    tally = Tally()
    try:
        scrub(machine, tally=tally)
    except PowerCut:
        machine.restore_power()
        machine.open()
    operations = machine.power.operations - start
    saved = tally.report(ScrubState.RUNNING)
    done = scrub(machine, tally=Tally.resumed(saved, tally.cursor))
    assert done.finished
    assert done.tally.index == PROVEN
    scrub(machine)  # drops a copy that the cut kept from taking its place
    done = scrub(machine)
    assert [done.found(drive) for drive in DRIVES] == [DriveScrub(), DriveScrub()]
    assert everything(machine) == contents
    machine.drop_store()
    return operations


def _sweep(states: int, directory: Path) -> None:
    sweep(
        "scrub",
        states,
        directory,
        count=lambda seed, place: _survive(seed, 0, place),
        survive=_survive,
        cuts_min=12,
    )


def test_a_power_cut_anywhere_in_a_scrub_loses_nothing(scratch: Path) -> None:
    _sweep(SHORT_STATES, scratch)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_power_cut_anywhere_in_many_scrubs_loses_nothing(scratch: Path) -> None:
    _sweep(LONG_STATES, scratch)
