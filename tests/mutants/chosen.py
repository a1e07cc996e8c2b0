"""Sabotages chosen by hand: what an engineer in a hurry might do to the engine.

Each replaces one piece of text, which must stand exactly once in its file, so that a sabotage whose
target was rewritten is noticed and chosen anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutants.sites import ENGINE, Mutant


@dataclass(frozen=True, slots=True)
class Sabotage:
    """``original`` in ``module`` becomes ``replacement``."""

    name: str
    module: str
    original: str
    replacement: str


SABOTAGES: Final[tuple[Sabotage, ...]] = ()


def chosen(root: Path) -> list[Mutant]:
    """The sabotages as mutants. Raises ``AssertionError`` for one whose target is not there."""
    return [_mutant(root, sabotage) for sabotage in SABOTAGES]


def _mutant(root: Path, sabotage: Sabotage) -> Mutant:
    path = f"{ENGINE}/{sabotage.module}.py"
    source = (root / path).read_bytes()
    original = sabotage.original.encode()
    assert source.count(original) == 1, f"{sabotage.name}: its target is not once in {path}"
    start = source.index(original)
    return Mutant(
        f"chosen:{sabotage.name}",
        path,
        source.count(b"\n", 0, start) + 1,
        start,
        start + len(original),
        sabotage.replacement.encode(),
    )
