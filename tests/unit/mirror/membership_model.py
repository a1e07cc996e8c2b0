"""A model of two drives and W: what lies on them, and one life of the store on it.

The decision and the orders of writes are the ones that run in production. A life keeps what each
crash of it would leave, and asserts what must hold whenever it serves: see ``Run.recover``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from appliance.core.epochs import (
    BEATS_PER_START,
    WITNESS,
    DriveVote,
    History,
    Leave,
    ReadOnly,
    Serve,
    Standing,
    WitnessVote,
    WritePlan,
    join_plan,
    leave_plan,
    renew_plan,
    successor,
)
from appliance.core.membership import decide

MIRROR = "m"
DRIVES = ("A", "B")
KEPT = {Standing.DIVERGED, Standing.CLONE}
BEHIND_MAX = 4
"""Further behind is no other case."""


@dataclass(frozen=True)
class World:
    """What is on stable storage, and what was promised. ``witness`` is empty when W is blank."""

    votes: tuple[tuple[str, History], ...]
    witness: History
    logs: tuple[tuple[str, tuple[int, ...]], ...]
    promised: frozenset[int]
    beats: tuple[tuple[str, int], ...] = ()
    batches: int = 0
    epochs: int = 1
    given_up: frozenset[int] = frozenset()
    """What was promised and an operator went on without."""

    def vote(self, voter: str) -> History:
        return self.witness if voter == WITNESS else dict(self.votes)[voter]

    def with_vote(self, voter: str, history: History) -> World:
        if voter == WITNESS:
            return replace(self, witness=history)
        return replace(self, votes=tuple(sorted({**dict(self.votes), voter: history}.items())))

    def beat(self, voter: str) -> int:
        return dict(self.beats).get(voter, 0)

    def with_beat(self, voter: str, beat: int) -> World:
        return replace(self, beats=tuple(sorted({**dict(self.beats), voter: beat}.items())))

    def with_old(self, voter: str, old: World) -> World:
        """The voter, and all that lies on its device, as it was."""
        put_back = self.with_vote(voter, old.vote(voter)).with_beat(voter, old.beat(voter))
        return put_back if voter == WITNESS else put_back.with_log(voter, old.log(voter))

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
                    epoch.forced,
                    tuple(names.setdefault(void, len(names)) for void in epoch.voids),
                    tuple(names.setdefault(end, len(names)) for end in epoch.rejects),
                )
                for epoch in history
            )
            for history in histories
        ]
        newest = max((beat for _, beat in self.beats), default=0)
        behind = tuple((voter, min(newest - beat, BEHIND_MAX)) for voter, beat in self.beats)
        return (*shapes, self.logs, self.promised, self.given_up, behind)


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
    put_back: tuple[str, ...] = ()
    """Voters that are old copies of themselves."""
    heartbeat: int = 0
    forced: bool = False
    """An operator says to go on with whoever is there."""
    standings: Mapping[str, Standing] = field(default_factory=dict)

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
            self.vote(voter, history)
        return True

    def vote(self, voter: str, history: History) -> None:
        """A voter writes its vote, and the heartbeat with it."""
        self.keep(self.world.with_vote(voter, history).with_beat(voter, self.heartbeat))

    def raise_heartbeat(self, in_sync: tuple[str, ...]) -> None:
        self.level(in_sync)
        self.heartbeat += 1
        for voter in (*([WITNESS] if self.has_witness else []), *in_sync):
            self.keep(self.world.with_beat(voter, self.heartbeat))

    def level(self, in_sync: tuple[str, ...]) -> None:
        for drive in in_sync:
            if self.world.beat(drive) < self.heartbeat:
                self.keep(self.world.with_beat(drive, self.heartbeat))

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
        drives = [DriveVote(d, MIRROR, world.vote(d), world.beat(d)) for d in self.present]
        witness = None
        if self.has_witness and world.witness:
            witness = WitnessVote(MIRROR, world.witness, world.beat(WITNESS))
        decision = decide(drives, witness, waited=True, forced=self.forced)
        # A W that was away while heartbeats were raised counts as an old copy: as if it were lost.
        everybody = (
            self.present == DRIVES
            and witness is not None
            and witness.heartbeat >= max(world.beat(drive) for drive in DRIVES)
        )
        if not isinstance(decision, Serve):
            asks = isinstance(decision, ReadOnly) or getattr(decision, "may_force", False)
            went_on = any(epoch.forced for _, history in world.votes for epoch in history)
            told = asks and (self.put_back or went_on)
            assert not everybody or told, f"{decision} {world}"
            return None
        self.standings = decision.standings
        if decision.force:
            self.give_up(decision.in_sync)
        self.heartbeat = max(world.beat(drive) for drive in decision.in_sync)
        self.recover(decision.in_sync)
        for voter in decision.behind:
            self.vote(voter, decision.history)
        history = decision.history
        if decision.needs_epoch:
            leaves = tuple(Leave(drive, 0) for drive in decision.leaves_needed)
            history = self.new_epoch(
                history,
                decision.in_sync,
                leaves=leaves,
                voids=decision.voids,
                rejects=decision.rejects,
                forced=decision.force,
            )
            plan = leave_plan(decision.epoch, history[-1]) if leaves else renew_plan(history[-1])
            if not self.write_votes(plan, history):
                return None
        assert all(decision.standings[d] is Standing.IN_SYNC for d in decision.in_sync)
        if decision.witness_lost and self.has_witness:
            self.vote(WITNESS, history)
        for _ in range(BEATS_PER_START):
            self.raise_heartbeat(decision.in_sync)
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

    def give_up(self, in_sync: tuple[str, ...]) -> None:
        """The operator accepts to miss what these drives do not have, and nothing more."""
        log = {number for drive in in_sync for number in self.world.log(drive)}
        self.world = replace(
            self.world,
            promised=self.world.promised & log,
            given_up=self.world.given_up | (self.world.promised - log),
        )

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
            if joiner in in_sync or self.standings[joiner] in KEPT:
                return
            wiped = set(self.world.log(joiner)) - set(self.world.log(in_sync[0]))
            assert not wiped & self.world.given_up, f"wiped {wiped} off {joiner}: {self.world}"
            self.keep(self.world.with_log(joiner, self.world.log(in_sync[0])))
            new = self.new_epoch(history, DRIVES)
            if self.write_votes(join_plan(history[-1], new[-1], joiner), new):
                for _ in range(BEATS_PER_START):
                    self.raise_heartbeat(DRIVES)
                self.append(DRIVES)
                self.promise(self.world.log(joiner))
