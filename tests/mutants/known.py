"""What became of every mutant when it was last tried, as far as the repository keeps it.

Owns ``survivors.txt`` (each a missing test) and ``caught.txt`` (a mutant, two spaces, the test that
caught it: a share asks that test first and so need not find out which tests run which lines). A
mutant in neither is newer than the last run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.mutants.sites import Mutant
from tests.mutants.trial import Verdict

SURVIVORS: Final = Path(__file__).with_name("survivors.txt")
CAUGHT: Final = Path(__file__).with_name("caught.txt")
HEAD: Final = """\
# Mutants that survived when last tried. Each is a missing test, or code that nothing needs.
# "python -m tests.mutants --survivors --untried --write" tries them and writes both lists anew.
# Put none in to silence a failure that can be mended.
"""
"""Of ``survivors.txt``."""


def survivors() -> set[str]:
    """The names in ``survivors.txt``."""
    return set(_lines(SURVIVORS))


def catchers() -> dict[str, str]:
    """Mutant → test, of ``caught.txt``."""
    pairs = (line.partition("  ") for line in _lines(CAUGHT))
    return {name: test for name, _, test in pairs}


def _lines(path: Path) -> list[str]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in lines if line and not line.startswith("#")]


def write(names: Sequence[str], results: Mapping[str, Verdict]) -> None:
    """Both lists anew, of the mutants ``names``. One that ``results`` lacks stays as listed."""
    survived, caught = survivors(), catchers()
    for name, verdict in results.items():
        survived.discard(name)
        caught.pop(name, None)
        if verdict.caught_by:
            caught[name] = verdict.caught_by
        else:
            survived.add(name)
    listed = [name for name in names if name in survived]
    lines = [f"{name}  {caught[name]}" for name in names if name in caught]
    SURVIVORS.write_text(HEAD + "".join(f"{name}\n" for name in listed))
    CAUGHT.write_text("".join(f"{line}\n" for line in lines))
    print(f"{len(lines)} caught, {len(listed)} survived, of {len(names)}")


def tests_of(mutants: Iterable[Mutant]) -> dict[tuple[str, int], set[str]]:
    """By path and line, the tests that caught mutants of the same function: ``raise:2`` becomes
    ``raise:1`` when the one before it goes."""
    by_function: dict[str, set[str]] = defaultdict(set)
    for name, test in catchers().items():
        by_function[_function(name)].add(test)
    found: dict[tuple[str, int], set[str]] = defaultdict(set)
    for mutant in mutants:
        for line in mutant.lines:
            found[mutant.path, line] |= by_function[_function(mutant.name)]
    return dict(found)


def _function(name: str) -> str:
    return name if name.startswith("chosen:") else name.partition(":")[0]
