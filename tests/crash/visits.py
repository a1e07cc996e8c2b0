"""Visits: the states of one seed, each recovered, judged and counted once.

Owns what an episode and a barrage have in common: the crashes that a moment may lead to, what is
left of the index, the fault that is put in on top, and the words in which a broken promise is told.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.crash.deeds import DEEDS
from tests.crash.images import Image
from tests.crash.moments import Moment
from tests.crash.rot import spoil_index
from tests.crash.scenes import Past, Scene, draw_scene
from tests.crash.tally import INDEX_ROTS, Tally
from tests.crash.verdict import Trial, Verdict
from tests.crash.world import IndexFiles, Note, World

OUTCOMES_MAX: Final = 5
AGAIN_MOMENTS: Final = 4
AGAIN_SHARE: Final = 0.04
"""Of the states, those that are crashed again in the midst of their recovery."""
GO_ON_SHARE: Final = 0.06


class Broken(AssertionError):
    """A state in which a promise does not hold, and how to come to it again."""


class Visits:
    """All states of one seed."""

    def __init__(self, seed: int, directory: Path, tally: Tally) -> None:
        self.seed: Final = seed
        self.rng: Final = random.Random(f"episode {seed}")
        self.tally: Final = tally
        self._directory = directory
        self._seen: set[int] = set()
        self._number = 0

    def place(self, name: str) -> Path:
        """A directory that is not there yet."""
        place = self._directory / name
        shutil.rmtree(place, ignore_errors=True)
        return place

    def crashes(self, moment: Moment, limit: int) -> Iterator[Mapping[str, Image]]:
        """Images of all drives that a crash at a moment may leave."""
        outcomes = {
            name: frozen.outcomes(self.rng, OUTCOMES_MAX) for name, frozen in moment.drives.items()
        }
        total = 1
        for images in outcomes.values():
            total *= len(images)
        for choice in self.rng.sample(range(total), min(total, limit)):
            chosen, left = {}, choice
            for name, images in outcomes.items():
                left, place = divmod(left, len(images))
                chosen[name] = images[place]
            yield chosen

    def scene(self, world: World, moment: Moment, images: Mapping[str, Image]) -> Scene:
        """A crash at a moment, and what it leaves of the index."""
        note = moment.note
        assert isinstance(note, Note), "that is what a world notes"
        labels = {"power cut"}
        deed = DEEDS.get(note.deed)
        if deed is not None and deed.is_counted:
            labels.add(f"cut in {deed.name}")
        index, fate = self._index(world, note)
        return Scene(
            images,
            note,
            frozenset({*labels, fate}),
            index,
            rotten=note.rotten,
            index_rots=fate == INDEX_ROTS,
        )

    def _index(self, world: World, note: Note) -> tuple[IndexFiles, str]:
        """What is left of the index, which no promise rests on."""
        copies = world.index_copies
        now = note.index_copies
        fate = self.rng.random()
        if now == 0 or fate < 0.12:
            return {}, "index lost"
        if fate < 0.37:
            return copies[self.rng.randrange(now)], "index older"
        if fate < 0.4 and now < len(copies):
            return copies[self.rng.randrange(now, len(copies))], "index of another history"
        if fate < 0.45:
            return spoil_index(copies[self.rng.randrange(now)], self.rng), INDEX_ROTS
        return copies[now - 1], "index kept"

    def visit(self, scene: Scene, past: Past, share: float, depth: int = 0) -> None:
        """Judge a state, perhaps with one more fault in it, and what a crash of its recovery leads
        to. Raises ``Broken``."""
        if self.rng.random() < share:
            scene = draw_scene(scene, past, self.rng)
        checksum = scene.checksum
        if checksum in self._seen:
            return
        self._seen.add(checksum)
        again = depth < 2 and not scene.victims and self.rng.random() < AGAIN_SHARE
        go_on = self.rng.random() < GO_ON_SHARE
        verdict = self._judge(scene, record=again, go_on=go_on)
        self.tally.count(checksum, scene.labels, verdict.work)
        self.tally.refused += not verdict.served
        self.tally.losses_told += verdict.losses_told
        self.tally.copies_compared += verdict.copies_compared
        if again and verdict.moments:
            count = min(len(verdict.moments), AGAIN_MOMENTS)
            for moment in self.rng.sample(verdict.moments, count):
                for images in self.crashes(moment, 2):
                    kept = self.rng.random() < 0.8
                    second = replace(
                        scene,
                        images=images,
                        index=scene.index if kept else {},
                        fails="",
                        labels=scene.labels | {"second fault during recovery"},
                    )
                    self.visit(second, past, 0.0, depth + 1)

    def _judge(self, scene: Scene, *, record: bool, go_on: bool) -> Verdict:
        self._number += 1
        trial = Trial(
            scene, f"trial {self.seed} {self._number}", self._directory / "trial", record=record
        )
        try:
            return trial.run(go_on=go_on)
        except Exception as error:
            note = scene.note
            raise Broken(
                self.tell(
                    error,
                    f"state {self._number} of it, in deed {note.deed!r}",
                    f"faults: {', '.join(sorted(scene.labels))}",
                    f"in sync: {', '.join(sorted(note.in_sync))};"
                    f" present: {', '.join(scene.present)}",
                    *(f"told: {alert}" for alert in trial.machine.alerts),
                )
            ) from error

    def tell(self, error: Exception, *circumstances: str) -> str:
        """A broken promise in words, and the command that comes to it again."""
        lines = [
            f"{type(error).__name__}: {error}",
            f"  seed {self.seed}",
            *(f"  {line}" for line in circumstances),
            f"  again: .venv/bin/python -m tests.crash.explore --seed {self.seed} --episodes 1",
        ]
        return "\n".join(lines)
