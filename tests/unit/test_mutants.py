"""The mutants of the engine: what counts as a safeguard, and what disabling one does."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.mutants.chosen import chosen
from tests.mutants.sites import find, find_in

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCE: Final = b"""
class Slot:
    def read(self, header):
        assert header.crc == 1
        if header.crc != self.crc:
            raise Damaged(
                "bad"
            )
        self.file.flush()
        return self.volume.open("\xc3\xa9", durable=True)
"""


def test_each_safeguard_is_disabled_in_turn() -> None:
    changes = {
        mutant.name: mutant.apply(SOURCE)[mutant.start :].partition(b"\n")[0]
        for mutant in find_in("slots.py", SOURCE)
    }
    assert changes == {
        "slots.Slot.read:check:1": b"False:",
        "slots.Slot.read:raise:1": b"pass",
        "slots.Slot.read:flush:1": b"None",
        "slots.Slot.read:durable:1": b"False)",
    }


def test_the_shares_are_a_partition() -> None:
    mutants = find(ROOT)
    assert len({mutant.name for mutant in mutants}) == len(mutants) > 200
    shares = [mutant.share(10) for mutant in mutants]
    assert set(shares) == set(range(10))
    assert max(map(shares.count, range(10))) < len(mutants) / 5


def test_every_chosen_sabotage_still_has_its_target() -> None:
    for mutant in chosen(ROOT):
        assert mutant.apply((ROOT / mutant.path).read_bytes())
