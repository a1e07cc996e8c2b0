"""Episodes: all states that one seed leads to, each recovered to serving and judged.

Owns the exploring. Survivable, and so survived with nothing lost: any crash, any one drive failing,
hanging, filling up, rotting, lying, lost, replaced or put back in time, both drives hanging or full
at once, W lost, full, lying or put back, an index that rots, any of these during a recovery, a
resync, a replacement, a compaction or a scrub. Detected only: the same record rotten on both
drives, a drive put back in time together with W while its peer is away, a drive present twice. See
``scenes`` for what each demands.

An episode of an even seed records one run of random deeds, then builds crash states from its
moments; one of an odd seed is a ``barrage``: the same deeds again and again with one fault at the
drive's first, second, ... last operation, and crash states from what follows the fault. Everything
derives from the seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.crash.barrage import Barrage
from tests.crash.deeds import DEEDS, lawful
from tests.crash.images import Image
from tests.crash.moments import Moment
from tests.crash.scenes import Past
from tests.crash.tally import Tally
from tests.crash.visits import Visits
from tests.crash.world import Note, World

DEEDS_EACH: Final = 12
VARIANTS: Final = 2
"""States of one moment, if its deed does not say."""
PAST_EACH: Final = 12
"""Every so many moments one is remembered as a past to go back to."""
SCENE_SHARE: Final = 0.6
"""Of the crashes, those with one more fault."""


class Episode:
    """All states of one seed."""

    def __init__(self, seed: int, directory: Path, tally: Tally) -> None:
        self._seed = seed
        self._tally = tally
        self._visits = Visits(seed, directory, tally)

    def run(self) -> None:
        """Raises ``Broken``."""
        self._tally.episodes += 1
        turn, injects = divmod(self._seed, 2)
        if injects:
            Barrage(self._visits, turn).run()
        else:
            self._run_cuts()

    def _run_cuts(self) -> None:
        visits = self._visits
        world = World(self._seed, visits.place("run"))
        world.recorder.start()
        world.open()
        for _ in range(DEEDS_EACH):
            choices = lawful(world, plain=False)
            deed = visits.rng.choices(choices, [each.weight for each in choices])[0]
            world.deed = deed.name
            deed.act(world)
        world.machine.drop_store()
        past = self._remember(world.recorder.moments)
        for place, moment in enumerate(world.recorder.moments):
            known = Past(past.images[: place // PAST_EACH])
            for images in visits.crashes(moment, _variants(moment)):
                visits.visit(visits.scene(world, moment, images), known, SCENE_SHARE)

    def _remember(self, moments: list[Moment]) -> Past:
        """Sound ones: what was rotten then would be rotten again, and no scene says so."""
        images: list[Mapping[str, Image]] = []
        for moment in moments[::PAST_EACH]:
            assert isinstance(moment.note, Note), "that is what a world notes"
            is_sound = not images or not moment.note.rotten
            images.append(next(self._visits.crashes(moment, 1)) if is_sound else images[-1])
        return Past(images)


def _variants(moment: Moment) -> int:
    """How many crashes of a moment are tried: more where a deed has few moments."""
    assert isinstance(moment.note, Note), "that is what a world notes"
    deed = DEEDS.get(moment.note.deed)
    return VARIANTS if deed is None else deed.variants
