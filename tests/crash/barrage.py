"""Barrages: one fault at the first, second, ... last operation of a phase of a machine's life.

Owns the phases. The stage of a phase is set once, without a fault; then the phase runs from there
as often as it has operations, each time with the fault at the next of them, and crash states are
built from what follows it. A phase of every kind of work in which a fault strikes while something
else is going on: a start after a crash, a resync, a replacement, a compaction, a scrub.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from appliance.core.errors import ApplianceError, Unavailable
from tests.crash.deeds import DEEDS, lawful, spoil_a_drive
from tests.crash.injections import ATTACKS, Attack, Injection, SwitchedOff, Where
from tests.crash.machine import DRIVES
from tests.crash.scenes import Past
from tests.crash.visits import Broken, Visits
from tests.crash.world import Note, Stand, World

DEEDS_DRAWN: Final = 5
STRUCK_MOMENTS: Final = 7
"""Of one run, how many of those behind the fault are crashed at least."""
STATES_WANTED: Final = 300
"""Of a barrage: where a phase has few operations, more crashes of each run are tried."""

Stage: TypeAlias = Callable[[World, Visits, Attack], Stand]


@dataclass(frozen=True, slots=True)
class Phase:
    """``stage``: brings a fresh machine to where the phase begins, and switches it off. ``deeds``:
    what is done under fire; none: some are drawn. ``starts``: the start is under fire too."""

    name: str
    stage: Stage
    deeds: tuple[str, ...]
    starts: bool = False

    @property
    def label(self) -> str:
        """The fault class of the states it leads to."""
        return f"fault in {self.name}"


def _do(world: World, *names: str) -> None:
    for name in names:
        world.deed = name
        DEEDS[name].act(world)


def _fresh(world: World, _visits: Visits, _attack: Attack) -> Stand:
    return world.stand()


def _crashed(world: World, visits: Visits, attack: Attack) -> Stand:
    """The power went in the midst of something."""
    world.recorder.start()
    world.open()
    for _ in range(4):
        choices = lawful(world, plain=attack.kind.lies)
        _do(world, visits.rng.choices(choices, [each.weight for each in choices])[0].name)
    moments = world.recorder.moments
    moment = visits.rng.choice(moments[len(moments) // 3 :])
    scene = visits.scene(world, moment, next(visits.crashes(moment, 1)))
    return world.stand_at(scene.note, scene.images, scene.index)


def _half_away(world: World, visits: Visits, _attack: Attack) -> Stand:
    """A drive is away, and missed something."""
    world.open()
    _do(world, "commit", visits.rng.choice(("commit", "roll over")), "leave", "commit")
    if visits.rng.random() < 0.4:
        _do(world, "roll over")
    return world.stand()


def _half_dead(world: World, visits: Visits, _attack: Attack) -> Stand:
    """Something to compact."""
    world.open()
    _do(world, "commit", "commit", visits.rng.choice(("commit", "roll over", "delete all")))
    return world.stand()


def _rotten(world: World, _visits: Visits, _attack: Attack) -> Stand:
    """Some of one drive rotted, and a scrub is due."""
    world.open()
    _do(world, "commit", "commit", "roll over", "commit")
    spoil_a_drive(world)
    return world.stand()


PHASES: Final = (
    Phase("work", _fresh, (), starts=True),
    Phase("resync", _half_away, ("resync", "commit", "upkeep")),
    Phase("recovery", _crashed, ("commit", "upkeep"), starts=True),
    Phase("compaction", _half_dead, ("compaction", "commit")),
    Phase("scrub", _rotten, ("scrub", "commit")),
    Phase("replacement", _half_away, ("replacement", "commit", "upkeep")),
)


def drawn(turn: int) -> tuple[Attack, Phase]:
    """The attack and the phase of a turn: every pair of them in so many turns in a row."""
    return ATTACKS[turn % len(ATTACKS)], PHASES[(turn + turn // len(ATTACKS)) % len(PHASES)]


class Barrage:
    """The runs of one seed."""

    def __init__(self, visits: Visits, turn: int) -> None:
        self._visits = visits
        self._attack, self._phase = drawn(turn)
        self._deeds = list(self._phase.deeds)
        self._moments = STRUCK_MOMENTS

    def run(self) -> None:
        """Raises ``Broken``."""
        visits, attack = self._visits, self._attack
        staged = World(f"stage {visits.seed}", visits.place("stage"))
        stand = self._phase.stage(staged, visits, attack)
        staged.machine.drop_store()
        drive = self._target(stand, visits.rng)
        counting = Injection(attack, drive, 0)
        self._fire(World(visits.seed, visits.place("run"), stand), stand, counting)
        self._moments = max(STRUCK_MOMENTS, STATES_WANTED // max(counting.seen, 1))
        for number in range(1, counting.seen + 1):
            self._run(stand, Injection(attack, drive, number))

    def _target(self, stand: Stand, rng: random.Random) -> str:
        """Who may fail, or lie, without anything being lost: a drive that rots already, and of a
        drive that comes back and the only one that is whole, the one that comes back may lie."""
        if stand.rotten:
            return min(stand.rotten)
        if stand.away and self._attack.kind.lies:
            return stand.away
        return rng.choice(DRIVES)

    def _run(self, stand: Stand, injection: Injection) -> None:
        visits = self._visits
        world = World(visits.seed, visits.place("run"), stand)
        world.under_fire = True
        try:
            self._fire(world, stand, injection)
        except SwitchedOff:
            pass
        except Exception as error:
            raise Broken(self._told(error, world, injection)) from error
        finally:
            world.machine.drop_store()
        visits.tally.injected_runs += world.injected
        struck = [m for m in world.recorder.moments if isinstance(m.note, Note) and m.note.injected]
        chosen = visits.rng.sample(struck, min(len(struck), self._moments))
        for moment in chosen:
            for images in visits.crashes(moment, max(1, self._moments // len(chosen))):
                scene = visits.scene(world, moment, images)
                labels = {injection.attack.label, self._phase.label}
                scene = replace(scene, labels=scene.labels | labels, must_serve=world.is_survivable)
                if injection.attack.kind.lies and injection.drive in DRIVES:
                    scene = replace(scene, rotten=scene.rotten | {injection.drive})
                visits.visit(scene, Past([]), 0.0)

    def _told(self, error: Exception, world: World, injection: Injection) -> str:
        attack = injection.attack
        return self._visits.tell(
            error,
            f"{attack.label}, {self._phase.label}, on {injection.drive} at operation"
            f" {injection.number}, in deed {world.deed!r}",
            *(f"told: {alert}" for alert in world.machine.alerts),
        )

    def _fire(self, world: World, stand: Stand, injection: Injection) -> None:
        """Start and do the deeds, as far as they can be done."""
        survives = injection.attack.where is not Where.BOTH
        if self._phase.starts:
            injection.install(world)
        try:
            world.open()
            world.settle()
        except ApplianceError as error:
            assert not (stand.must_start and survives), f"it must serve, but refuses: {error}"
            return
        if not self._phase.starts:
            injection.install(world)
        if not self._deeds:
            self._deeds = self._draw(world)
            return
        for name in self._deeds:
            if not self._try(world, name):
                return
            injection.relent(world)

    def _draw(self, world: World) -> list[str]:
        """Deeds that can be done one after the other, done for the first time."""
        plain = self._attack.kind.lies and self._attack.where is not Where.WITNESS
        names = []
        for _ in range(DEEDS_DRAWN):
            choices = lawful(world, plain=plain)
            weights = [each.weight for each in choices]
            names.append(self._visits.rng.choices(choices, weights)[0].name)
            self._try(world, names[-1])
        return names

    def _try(self, world: World, name: str) -> bool:
        """One deed under fire. False: the machine cannot be started for now."""
        if name not in {each.name for each in lawful(world, plain=False)}:
            return True
        world.deed = name
        world.in_sync()  # of now: in the midst of a deed it may be closed
        try:
            DEEDS[name].act(world)
        except Unavailable:
            return self._reopens(world)
        except ApplianceError:
            pass
        store = world.machine.store
        if store is None or store.stopped:
            return self._reopens(world)
        missing = [drive for drive in DRIVES if drive not in store.members]
        world.away = missing[0] if missing else ""
        world.is_quiet = True
        return True

    def _reopens(self, world: World) -> bool:
        """Whether it serves again; with one whole drive, the other one failing and W, it must."""
        reopens = world.reopen()
        is_one = self._attack.where is Where.DRIVE and world.injected
        assert reopens or not (is_one and world.is_survivable), "it must serve, but refuses"
        return reopens
