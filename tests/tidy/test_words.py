"""The project speaks of itself alone, and nothing is left for later."""

from __future__ import annotations

import re

from tests.tidy.sources import project_texts

# One letter of each word stands in brackets, so that this file does not find itself.
LEFTOVERS = re.compile(
    r"\b([T]ODO|[F]IXME|[X]XX|[H]ACK)\b|[N]otImplementedError"
    r"|pytest\.([s]kip|[x]fail|[i]mportorskip)|mark\.([s]kip|[x]fail)"
)
FOREIGN = re.compile(
    r"(?<![\w.])/([w]ork|[f]arm|tmp/[s]pec)/"
    r"|\b([p]ypi|[n]pmjs|[c]rates|[d]ebian|[g]olang)\.(org|io|com)\b"
    r"|[b]efore-stop|\b[C]EO\b|[d]eveloper session|\b[i]ssue #?\d+\b"
)


def _hits(pattern: re.Pattern[str], folders: tuple[str, ...] = ("",)) -> list[str]:
    return [
        f"{path}:{number}: {found.group()}"
        for path, text in project_texts().items()
        if path.startswith(folders)
        for number, line in enumerate(text.splitlines(), 1)
        for found in pattern.finditer(line)
    ]


def test_nothing_is_left_for_later() -> None:
    hits = _hits(LEFTOVERS, ("appliance", "tests", "packaging", "systemd", "udev", "Makefile"))
    assert not hits, "\n".join(hits)


def test_the_project_speaks_of_itself_alone() -> None:
    hits = _hits(FOREIGN)
    assert not hits, "\n".join(hits)


def test_the_patterns_find_what_they_are_for() -> None:
    assert LEFTOVERS.search(f"# {'to' + 'do'}".upper())
    assert LEFTOVERS.search("@pytest.mark." + "skip")
    assert FOREIGN.search("see /" + "work/main")
    assert not FOREIGN.search("the frame" + "work/main")
