"""The membership protocol around ``decide``, explored exhaustively in small cases.

A model of two drives and W: each start decides, brings votes up to date, makes the epoch that is
needed, and then does one thing (writes a batch, lets a drive go, brings one back, or nothing), with
a crash possible after every single write. Every reachable combination of what is left is started
again with every set of voters present. The oracle: what was acknowledged or served once is in the
log of every drive that serves; drives that are in sync never hold logs that contradict each other;
with everybody present the mirror always serves.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from appliance.core.membership import (
    WITNESS,
    DriveVote,
    Epoch,
    History,
    Leave,
    Serve,
    Standing,
    WitnessVote,
    WritePlan,
    decide,
    join_plan,
    leave_plan,
    renew_plan,
    successor,
)

MIRROR = "m"
DRIVES = ("A", "B")
WRITES_MAX = 3
EPOCHS_MAX = 8


@dataclass(frozen=True)
class World:
    """What is on stable storage, and what was promised. ``witness`` is empty when W is blank."""

    votes: tuple[tuple[str, History], ...]
    witness: History
    logs: tuple[tuple[str, tuple[int, ...]], ...]
    promised: frozenset[int]
    batches: int = 0
    epochs: int = 1

    def vote(self, voter: str) -> History:
        return self.witness if voter == WITNESS else dict(self.votes)[voter]

    def with_vote(self, voter: str, history: History) -> World:
        if voter == WITNESS:
            return replace(self, witness=history)
        return replace(self, votes=tuple(sorted({**dict(self.votes), voter: history}.items())))

    def log(self, drive: str) -> tuple[int, ...]:
        return dict(self.logs)[drive]

    def with_log(self, drive: str, log: tuple[int, ...]) -> World:
        return replace(self, logs=tuple(sorted({**dict(self.logs), drive: log}.items())))

    def key(self) -> object:
        """Equal for worlds that differ only in the epochs' random names."""
        names: dict[str, int] = {"": 0}
        histories = [history for _, history in self.votes] + [self.witness]
        shapes = [
            tuple(
                (
                    epoch.number,
                    names.setdefault(epoch.id, len(names)),
                    epoch.in_sync,
                    tuple(names.setdefault(void, len(names)) for void in epoch.voids),
                )
                for epoch in history
            )
            for history in histories
        ]
        return (*shapes, self.logs, self.promised)


def first_world() -> World:
    history = successor((), number=1, epoch_id="e1", in_sync=DRIVES)
    return World(
        votes=tuple((drive, history) for drive in DRIVES),
        witness=history,
        logs=tuple((drive, ()) for drive in DRIVES),
        promised=frozenset(),
    )


@dataclass
class Run:
    """One life of the store, from its start to its crash; ``states`` collects what each crash
    would leave."""

    world: World
    present: tuple[str, ...]
    has_witness: bool
    states: list[World]

    def keep(self, world: World) -> None:
        self.world = world
        self.states.append(world)

    def write_votes(self, plan: WritePlan, history: History) -> bool:
        """Whether the epoch became valid."""
        for done, voter in enumerate(plan.steps):
            can = self.has_witness if voter == WITNESS else voter in self.present
            if not can:
                if done < plan.valid_after:
                    return False
                continue
            self.keep(self.world.with_vote(voter, history))
        return True

    def new_epoch(self, history: History, in_sync: tuple[str, ...], **fields: object) -> History:
        number = max(
            epoch.number
            for known in (*(h for _, h in self.world.votes), self.world.witness, history)
            for epoch in known
        )
        self.world = replace(self.world, epochs=self.world.epochs + 1)
        return successor(
            history,
            number=number + 1,
            epoch_id=f"e{self.world.epochs}",
            in_sync=in_sync,
            **fields,  # type: ignore[arg-type]
        )

    def start(self) -> tuple[History, tuple[str, ...]] | None:
        """The history and the drives it serves from, or None if it does not."""
        world = self.world
        drives = [DriveVote(d, MIRROR, world.vote(d), 1) for d in self.present]
        witness = None
        if self.has_witness and world.witness:
            witness = WitnessVote(MIRROR, world.witness, 1)
        decision = decide(drives, witness, waited=True)
        everybody = self.present == DRIVES and witness is not None
        assert isinstance(decision, Serve) or not everybody, decision
        if not isinstance(decision, Serve):
            return None
        self.recover(decision.in_sync)
        for voter in decision.behind:
            self.keep(self.world.with_vote(voter, decision.history))
        if self.has_witness and not self.world.witness:
            self.keep(self.world.with_vote(WITNESS, decision.history))
        history = decision.history
        if decision.needs_epoch:
            leaves = tuple(Leave(drive, 0) for drive in decision.leaves_needed)
            history = self.new_epoch(history, decision.in_sync, leaves=leaves, voids=decision.voids)
            plan = leave_plan(decision.epoch, history[-1]) if leaves else renew_plan(history[-1])
            if not self.write_votes(plan, history):
                return None
        assert all(decision.standings[d] is Standing.IN_SYNC for d in decision.in_sync)
        self.promise(self.world.log(decision.in_sync[0]))
        return history, decision.in_sync

    def recover(self, in_sync: tuple[str, ...]) -> None:
        """Copy the longest log to the others."""
        logs = [self.world.log(drive) for drive in in_sync]
        longest = max(logs, key=len)
        for log in logs:
            assert longest[: len(log)] == log, f"{in_sync} contradict each other: {logs}"
        assert self.world.promised <= set(longest), (
            f"lost {self.world.promised - set(longest)} serving from {in_sync}: {self.world}"
        )
        for drive in in_sync:
            if self.world.log(drive) != longest:
                self.keep(self.world.with_log(drive, longest))

    def promise(self, log: tuple[int, ...]) -> None:
        """What is served once must never be missed."""
        self.keep(replace(self.world, promised=self.world.promised | set(log)))

    def append(self, drives: tuple[str, ...]) -> int:
        """A batch under way on some drives, not acknowledged."""
        number = self.world.batches + 1
        self.world = replace(self.world, batches=number)
        for drive in drives:
            self.keep(self.world.with_log(drive, (*self.world.log(drive), number)))
        return number

    def act(self, action: str, history: History, in_sync: tuple[str, ...]) -> None:
        if action == "write":
            self.append(in_sync)
            self.promise(self.world.log(in_sync[0]))
        elif action.startswith("lose") and action[-1] in in_sync and len(in_sync) == 2:
            lost = action[-1]
            survivor = tuple(d for d in in_sync if d != lost)
            self.append(survivor)
            new = self.new_epoch(history, survivor, leaves=(Leave(lost, 0),))
            if self.write_votes(leave_plan(history[-1], new[-1]), new):
                self.promise(self.world.log(survivor[0]))
                self.append(survivor)
                self.promise(self.world.log(survivor[0]))
        elif action.startswith("return") and action[-1] in self.present and len(in_sync) == 1:
            joiner = action[-1]
            if joiner in in_sync:
                return
            self.keep(self.world.with_log(joiner, self.world.log(in_sync[0])))
            new = self.new_epoch(history, DRIVES)
            if self.write_votes(join_plan(history[-1], new[-1], joiner), new):
                self.append(DRIVES)
                self.promise(self.world.log(joiner))


ACTIONS = ("none", "write", "lose A", "lose B", "return A", "return B")
PRESENCES = (("A", "B"), ("A",), ("B",))
WITNESSES = ("present", "absent", "blank")


def lives(world: World) -> Iterator[World]:
    """Every world one life of the store may leave behind."""
    for present, witness, action in itertools.product(PRESENCES, WITNESSES, ACTIONS):
        before = world.with_vote(WITNESS, ()) if witness == "blank" else world
        run = Run(before, present, witness != "absent", [])
        started = run.start()
        if started is not None:
            run.act(action, *started)
        yield from run.states


def explore(first: World, starts: int) -> int:
    seen = {first.key()}
    layer = [first]
    for _ in range(starts):
        fresh = []
        for world in layer:
            for left in lives(world):
                if left.batches > WRITES_MAX or left.epochs > EPOCHS_MAX:
                    continue
                key = left.key()
                if key not in seen:
                    seen.add(key)
                    fresh.append(left)
        layer = fresh
    return len(seen)


def test_no_interleaving_of_crashes_loses_a_promise() -> None:
    count = explore(first_world(), 3)
    print(f"{count} worlds")
    assert count > 1_000


@pytest.mark.long
def test_no_longer_interleaving_loses_a_promise() -> None:
    count = explore(first_world(), 5)
    print(f"{count} worlds")
    assert count > 10_000


_LEAVE_PLAN = leave_plan


def _hasty(old: Epoch, new: Epoch) -> WritePlan:
    """A leave that counts before W knows of it."""
    plan = _LEAVE_PLAN(old, new)
    return replace(plan, valid_after=1)


def _reversed(old: Epoch, new: Epoch) -> WritePlan:
    """A leave that W hears of before the survivor."""
    plan = _LEAVE_PLAN(old, new)
    return replace(plan, steps=plan.steps[::-1])


@pytest.mark.parametrize("broken", [_hasty, _reversed])
def test_the_exploration_notices_a_broken_order(
    broken: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "leave_plan", broken)
    with pytest.raises(AssertionError):
        explore(first_world(), 3)
