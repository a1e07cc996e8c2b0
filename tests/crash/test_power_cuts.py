"""Power cuts at every operation of commits, recovery, leaving and coming back.

Survivable, and so survived: losing any part of what was not flushed, again during the recovery, and
the index with it. One seed and one cut replay a state.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.crash.acts import blob_of, commit, put
from tests.crash.cuts import sweep
from tests.crash.history import History, Oracle
from tests.crash.machine import Machine, PowerCut
from tests.crash.simulated import SimulatedDisk

SHORT_STATES = 120
LONG_STATES = 4_000
COMMITS = 6


def _commits(machine: Machine, history: History, oracle: Oracle) -> None:
    """The usual life: commits, marks, upkeep."""
    store = machine.store or machine.open()
    for number in range(COMMITS):
        history.commit(machine, oracle)
        if number % 3 == 2:
            store.mark()
            store.step()
        if number == 1:
            machine.remember_index()


def _leave_and_return(machine: Machine, history: History, oracle: Oracle) -> None:
    """A drive goes away and comes back while commits go on."""
    store = machine.store or machine.open()
    history.commit(machine, oracle)
    store.lose("drive-b", "pulled")
    history.commit(machine, oracle)
    history.commit(machine, oracle)
    store.add_outsider(machine.disks["drive-b"].mount())
    resync = store.begin_resync("drive-b")
    resync.copy()
    history.commit(machine, oracle)
    while not store.finish_resync(resync):
        resync.copy()
    history.commit(machine, oracle)


Script = Callable[[Machine, History, Oracle], None]


def _count_operations(script: Script, seed: int, directory: Path) -> int:
    machine = Machine(seed, directory / "count")
    machine.open()
    start = machine.power.operations
    script(machine, History(seed), Oracle())
    machine.drop_store()
    return machine.power.operations - start


def _survive(script: Script, seed: int, cut: int, directory: Path) -> None:
    """One state: run until the cut, come back (perhaps after further cuts), judge."""
    machine = Machine(seed, directory)
    machine.open()
    machine.power.cut_at = machine.power.operations + cut
    history, oracle = History(seed), Oracle()
    try:
        script(machine, history, oracle)
    except PowerCut:
        machine.restore_power()
    rng = random.Random(f"{seed} {cut}")
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        machine.drop_store()
        machine.power.cut_at = machine.power.operations + rng.randint(1, 120)
        try:
            machine.open()
        except PowerCut:
            machine.restore_power()
        machine.power.cut_at = 0
    machine.drop_store()
    store = machine.open()
    if len(store.members) == 1:
        outsider = next(iter(store.outsiders()))
        resync = store.begin_resync(outsider)
        resync.copy()
        assert store.finish_resync(resync)
    oracle.check(machine)
    retried(machine, oracle)
    history.commit(machine, oracle)
    oracle.check(machine)
    machine.drop_store()


def retried(machine: Machine, oracle: Oracle) -> None:
    """A commit that was acknowledged is known again by its request id."""
    if oracle.last_order is not None and machine.store is not None:
        (outcome,) = machine.store.commit([oracle.last_order])
        assert isinstance(outcome, int)


def sweep_script(script: Script, states: int, directory: Path) -> None:
    """Power cuts during a script, and again during the starts after it."""
    sweep(
        script.__name__,
        states,
        directory,
        count=partial(_count_operations, script),
        survive=partial(_survive, script),
        cuts_min=30,
    )


@pytest.mark.parametrize("script", [_commits, _leave_and_return])
def test_nothing_acknowledged_is_lost(script: Script, scratch: Path) -> None:
    sweep_script(script, SHORT_STATES, scratch)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("script", [_commits, _leave_and_return])
def test_nothing_acknowledged_is_lost_in_many_states(script: Script, scratch: Path) -> None:
    sweep_script(script, LONG_STATES, scratch)


class _Killed(Exception):
    """The process ends here; what it wrote is in the cache."""


def test_what_a_killed_store_left_in_a_cache_is_durable_before_it_is_served(scratch: Path) -> None:
    """The page cache survives the process, so that a start finds the batch; the next power cut
    would take it, and the other drive may be gone by then."""
    for seed in range(12):
        machine = Machine(seed, scratch / f"{seed}")
        store = machine.open()
        commit(store, put(b"before", 1))
        disk = machine.disks["drive-a"]

        def kill(at: SimulatedDisk, kind: str, path: str, victim: SimulatedDisk = disk) -> None:
            if at is victim and kind == "write" and path.startswith("log/"):
                raise _Killed

        machine.power.observer = kill
        with pytest.raises(_Killed):
            store.commit([put(b"k", 2)])
        machine.power.observer = None
        machine.drop_store()
        commit(machine.open(), put(b"k", 2))
        machine.power.cut()
        machine.restore_power()
        machine.open("drive-a")
        with machine.reader() as reader:
            assert reader.read_blob(blob_of(machine, b"k"), 0, 3000) == b"x" * 3000, f"seed {seed}"
        machine.drop_store()
