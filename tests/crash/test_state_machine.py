"""The same deeds, crashes and faults as a hypothesis state machine, which shrinks what fails.

``episode`` visits far more states; this one finds the shortest way to a broken promise.
"""

from __future__ import annotations

import random
import shutil

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.crash.deeds import DEEDS, lawful
from tests.crash.machine import scratch_directory
from tests.crash.scenes import SCENES, Past, Scene
from tests.crash.verdict import Trial
from tests.crash.world import Note, World

NUMBERS = st.integers(0, 1 << 16)


class CrashingMachine(RuleBasedStateMachine):
    """A machine that lives on while copies of it are crashed and judged."""

    @initialize(seed=NUMBERS)
    def begin(self, seed: int) -> None:
        self.directory = scratch_directory()
        self.world = World(f"shrunk {seed}", self.directory / "run")
        self.world.recorder.start()
        self.world.open()
        self.trials = 0

    @rule(name=st.sampled_from(sorted(DEEDS)))
    def do(self, name: str) -> None:
        if name in {each.name for each in lawful(self.world, plain=False)}:
            self.world.recorder.moments.clear()
            self.world.deed = name
            DEEDS[name].act(self.world)

    @precondition(lambda self: bool(self.world.recorder.moments))
    @rule(
        moment=NUMBERS,
        chance=NUMBERS,
        keeps_index=st.booleans(),
        fault=st.sampled_from([None, *(draw for draw, _ in SCENES)]),
    )
    def crash(self, moment: int, chance: int, keeps_index: bool, fault: object) -> None:
        """A copy of the machine loses its power at one moment of the last deed."""
        moments, rng = self.world.recorder.moments, random.Random(chance)
        chosen = moments[moment % len(moments)]
        note = chosen.note
        assert isinstance(note, Note), "that is what a world notes"
        images = {name: rng.choice(f.outcomes(rng, 6)) for name, f in chosen.drives.items()}
        copies = self.world.index_copies
        index = copies[note.index_copies - 1] if keeps_index and note.index_copies else {}
        scene = Scene(images, note, frozenset({"power cut"}), index, rotten=note.rotten)
        if callable(fault):
            scene = fault(scene, Past([]), rng) or scene
        self.trials += 1
        place = self.directory / f"trial {self.trials}"
        Trial(scene, f"{moment} {chance}", place, record=False).run(go_on=chance % 4 == 0)
        shutil.rmtree(place)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.machine.drop_store()
            shutil.rmtree(self.directory)


TestCrashingMachine = CrashingMachine.TestCase
TestCrashingMachine.settings = settings(
    max_examples=15,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
