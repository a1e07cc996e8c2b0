"""Power cuts at many operations of a run that one seed repeats."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path


def sweep(
    what: str,
    states: int,
    directory: Path,
    *,
    count: Callable[[int, Path], int],
    survive: Callable[[int, int, Path], object],
    cuts_min: int,
) -> None:
    """Judge ``states`` states: seed by seed, a sample of its operations, at least ``cuts_min``
    where it has as many. ``count``: how many operations a seed has; ``survive``: cut the power in
    one of them and judge what is left. Raises ``AssertionError`` that names seed and cut."""
    rng = random.Random(f"{what} {states}")
    done, seed = 0, 1
    while done < states:
        total = count(seed, directory / f"{seed}")
        share = min(states - done, max(states // 4, cuts_min), total)
        for cut in sorted(rng.sample(range(1, total + 1), share)):
            place = directory / f"{seed}-{cut}"
            try:
                survive(seed, cut, place)
            except Exception as error:
                raise AssertionError(f"{what}: seed {seed}, cut {cut}: {error}") from error
            shutil.rmtree(place)
            done += 1
        seed += 1
