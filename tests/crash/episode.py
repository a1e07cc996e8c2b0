"""Episodes: all states that one seed leads to, each recovered to serving and judged.

Owns the exploring. Survivable, and so survived with nothing lost: any crash, any one drive failing,
hanging, filling up, rotting, lying, lost, replaced or put back in time, W lost or put back, any of
these during a recovery, a resync or a replacement. Detected only: the same record rotten on both
drives, a drive put back in time together with W while its peer is away, a drive present twice. See
``scenes`` for what each demands.

An episode records one run of random deeds, then builds crash states from its moments; or it runs
the same deeds again and again with one fault at the drive's first, second, ... last operation, and
builds crash states from what follows the fault. Everything derives from the seed.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from appliance.core.errors import ApplianceError, Unavailable
from tests.crash.deeds import DEEDS, lawful
from tests.crash.images import Image
from tests.crash.injections import KINDS, Injection, SwitchedOff, count_operations
from tests.crash.machine import DRIVES, WITNESS
from tests.crash.moments import Moment
from tests.crash.scenes import Past, Scene, draw_scene
from tests.crash.tally import Tally
from tests.crash.verdict import Trial, Verdict
from tests.crash.world import IndexFiles, Note, World

DEEDS_EACH: Final = 12
DEEDS_INJECTED: Final = 5
OUTCOMES_MAX: Final = 5
VARIANTS: Final = 3
"""States of one moment."""
PAST_EACH: Final = 12
"""Every so many moments one is remembered as a past to go back to."""
INJECTED_MOMENTS: Final = 4
AGAIN_MOMENTS: Final = 4


class Broken(AssertionError):
    """A state in which a promise does not hold, and how to come to it again."""


class Episode:
    """All states of one seed."""

    def __init__(self, seed: int, directory: Path, tally: Tally) -> None:
        self._seed = seed
        self._directory = directory
        self._tally = tally
        self._rng = random.Random(f"episode {seed}")
        self._seen: set[int] = set()
        self._number = 0

    def run(self) -> None:
        """Raises ``Broken``."""
        self._tally.episodes += 1
        turn, injects = divmod(self._seed, 2)
        if injects:
            self._run_injections(turn)
        else:
            self._run_cuts()

    def _place(self, name: str) -> Path:
        """A directory that is not there yet."""
        place = self._directory / name
        shutil.rmtree(place, ignore_errors=True)
        return place

    # -- crashes of a sound machine --------------------------------------------------------------

    def _run_cuts(self) -> None:
        world = World(self._seed, self._place("run"))
        world.recorder.start()
        world.open()
        for _ in range(DEEDS_EACH):
            choices = lawful(world, plain=False)
            deed = self._rng.choices(choices, [each.weight for each in choices])[0]
            world.deed = deed.name
            deed.act(world)
        world.machine.drop_store()
        past = self._remember(world.recorder.moments)
        for place, moment in enumerate(world.recorder.moments):
            known = Past(past.images[: place // PAST_EACH])
            for images in self._crashes(moment, VARIANTS):
                self._visit(self._scene(world, moment, images), known, 0.5)

    def _remember(self, moments: list[Moment]) -> Past:
        """Sound ones: what was rotten then would be rotten again, and no scene says so."""
        images: list[Mapping[str, Image]] = []
        for moment in moments[::PAST_EACH]:
            assert isinstance(moment.note, Note), "that is what a world notes"
            is_sound = not images or not moment.note.rotten
            images.append(next(self._crashes(moment, 1)) if is_sound else images[-1])
        return Past(images)

    def _crashes(self, moment: Moment, limit: int) -> Iterator[Mapping[str, Image]]:
        """Images of all drives that a crash at a moment may leave."""
        outcomes = {
            name: frozen.outcomes(self._rng, OUTCOMES_MAX) for name, frozen in moment.drives.items()
        }
        total = 1
        for images in outcomes.values():
            total *= len(images)
        for choice in self._rng.sample(range(total), min(total, limit)):
            chosen, left = {}, choice
            for name, images in outcomes.items():
                left, place = divmod(left, len(images))
                chosen[name] = images[place]
            yield chosen

    def _scene(self, world: World, moment: Moment, images: Mapping[str, Image]) -> Scene:
        note = moment.note
        assert isinstance(note, Note), "that is what a world notes"
        labels = {"power cut"}
        deed = DEEDS.get(note.deed)
        if deed is not None and deed.is_counted:
            labels.add(f"cut in {deed.name}")
        index, fate = self._index(world, note)
        return Scene(images, note, frozenset({*labels, fate}), index, rotten=note.rotten)

    def _index(self, world: World, note: Note) -> tuple[IndexFiles, str]:
        """What is left of the index, which no promise rests on."""
        copies = world.index_copies
        now = note.index_copies
        fate = self._rng.random()
        if now == 0 or fate < 0.12:
            return {}, "index lost"
        if fate < 0.37:
            return copies[self._rng.randrange(now)], "index older"
        if fate < 0.4 and now < len(copies):
            return copies[self._rng.randrange(now, len(copies))], "index of another history"
        return copies[now - 1], "index kept"

    def _visit(self, scene: Scene, past: Past, share: float, depth: int = 0) -> None:
        """Judge a state, perhaps with one more fault in it, and what a crash of its recovery leads
        to."""
        if self._rng.random() < share:
            scene = draw_scene(scene, past, self._rng) or scene
        checksum = scene.checksum
        if checksum in self._seen:
            return
        self._seen.add(checksum)
        again = depth < 2 and not scene.victims and self._rng.random() < 0.06
        go_on = self._rng.random() < 0.06
        verdict = self._judge(scene, record=again, go_on=go_on)
        if self._tally.count(checksum, scene.labels, verdict.work):
            self._tally.refused += not verdict.served
            self._tally.losses_told += verdict.losses_told
            self._tally.copies_compared += verdict.copies_compared
        if again and verdict.moments:
            count = min(len(verdict.moments), AGAIN_MOMENTS)
            for moment in self._rng.sample(verdict.moments, count):
                for images in self._crashes(moment, 2):
                    index = scene.index if self._rng.random() < 0.8 else {}
                    second = replace(
                        scene,
                        images=images,
                        index=index,
                        fails="",
                        labels=scene.labels | {"second fault during recovery"},
                    )
                    self._visit(second, past, 0.0, depth + 1)

    def _judge(self, scene: Scene, *, record: bool, go_on: bool) -> Verdict:
        self._number += 1
        seed = f"trial {self._seed} {self._number}"
        trial = Trial(scene, seed, self._directory / "trial", record=record)
        try:
            return trial.run(go_on=go_on)
        except Exception as error:
            raise Broken(self._tell(scene, trial, error)) from error

    def _tell(self, scene: Scene, trial: Trial, error: Exception) -> str:
        note = scene.note
        lines = [
            f"{type(error).__name__}: {error}",
            f"  seed {self._seed}, state {self._number} of it, in deed {note.deed!r}",
            f"  faults: {', '.join(sorted(scene.labels))}",
            f"  in sync: {', '.join(sorted(note.in_sync))}; present: {', '.join(scene.present)}",
            *(f"  told: {alert}" for alert in trial.machine.alerts),
            f"  again: .venv/bin/python -m tests.crash.explore --seed {self._seed} --episodes 1",
        ]
        return "\n".join(lines)

    # -- faults at every operation ---------------------------------------------------------------

    def _run_injections(self, turn: int) -> None:
        """One kind of fault on one drive, at every one of its operations in the same run."""
        turn, kind = divmod(turn, len(KINDS))
        turn, drive = divmod(turn, 5)
        chosen = KINDS[kind]
        where = WITNESS if drive == 4 and not chosen.lies else DRIVES[drive % 2]
        persistent = chosen.may_persist and turn % 2 == 0
        world = World(self._seed, self._place("run"))
        count = count_operations(world, where, writes_only=chosen.writes_only)
        deeds = self._inject(world, None, plain=chosen.lies)
        world.machine.drop_store()
        for number in range(1, count() + 1):
            injection = Injection(chosen, where, number, persistent)
            self._run_injected(injection, deeds)

    def _run_injected(self, injection: Injection, deeds: list[str]) -> None:
        self._tally.injected_runs += 1
        world = World(self._seed, self._place("run"))
        world.under_fire = True
        world.recorder.start()
        injection.install(world)
        try:
            self._inject(world, injection, deeds=deeds)
        except SwitchedOff:
            pass
        world.machine.drop_store()
        struck = [m for m in world.recorder.moments if isinstance(m.note, Note) and m.note.injected]
        past = Past([])
        for moment in self._rng.sample(struck, min(len(struck), INJECTED_MOMENTS)):
            for images in self._crashes(moment, 1):
                scene = self._scene(world, moment, images)
                scene = replace(scene, labels=scene.labels | {injection.label})
                if injection.kind.lies:
                    scene = replace(scene, rotten=scene.rotten | {injection.drive})
                self._visit(scene, past, 0.0)

    def _inject(
        self,
        world: World,
        injection: Injection | None,
        *,
        plain: bool = False,
        deeds: list[str] | None = None,
    ) -> list[str]:
        """Open and do the deeds (drawn if not given), as far as they can be done."""
        done: list[str] = []
        try:
            world.open()
        except ApplianceError:
            return done
        for number in range(DEEDS_INJECTED):
            if deeds is None:
                choices = lawful(world, plain=plain)
                name = self._rng.choices(choices, [each.weight for each in choices])[0].name
            elif number < len(deeds):
                name = deeds[number]
            else:
                break
            done.append(name)
            if not self._do(world, name):
                break
            if injection is not None:
                injection.relent(world)
        return done

    def _do(self, world: World, name: str) -> bool:
        """One deed under fire. False: the machine cannot be started for now."""
        if name not in {each.name for each in lawful(world, plain=False)}:
            return True
        world.deed = name
        try:
            DEEDS[name].act(world)
        except Unavailable:
            return world.reopen()
        except ApplianceError:
            pass
        store = world.machine.store
        if store is None:
            return False
        if store.stopped:
            return world.reopen()
        missing = [drive for drive in DRIVES if drive not in store.members]
        world.away = missing[0] if missing else ""
        world.is_quiet = True
        return True
