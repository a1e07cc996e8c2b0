"""The figures of the proofs, and the page that publishes them.

Owns ``docs/reliability-figures.json``, one section per proof, and the part of
``docs/RELIABILITY.md`` that is made from it. A proof calls ``publish`` with its section when it has
run in full; ``python -m tests.crash.figures`` writes the page again from what is kept.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

BEGIN: Final = "<!-- figures of the last full runs: begin -->"
END: Final = "<!-- figures of the last full runs: end -->"
DOCUMENTS: Final = Path(__file__).parents[2] / "docs"
PAGE: Final = DOCUMENTS / "RELIABILITY.md"
KEPT: Final = DOCUMENTS / "reliability-figures.json"

Section = Mapping[str, Any]
"""``title``, ``command``, ``rows``: label → figure, and, if there is one, ``shares``: label →
percent. ``publish`` adds ``date`` and ``host``."""


def publish(name: str, section: Section) -> None:
    """Keep the figures of one proof, in place of its last ones, and write the page."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    host = f"Linux {platform.release()}, {os.cpu_count()} cores"
    kept[name] = {**section, "date": today, "host": host}
    KEPT.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")
    write_page(kept)


def publish_if_asked(name: str, section: Section) -> None:
    """``publish`` when the environment has ``PUBLISH_FIGURES=1``: for proofs that are tests."""
    if os.environ.get("PUBLISH_FIGURES") == "1":
        publish(name, section)


def write_page(kept: Mapping[str, Section]) -> None:
    """Replace the figures between the marks of the page; the words around them stay."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"cannot write {PAGE}: the marks for the figures are missing")
    PAGE.write_text(f"{before}{BEGIN}\n\n{rendered(kept)}\n{END}{after}")


def rendered(kept: Mapping[str, Section]) -> str:
    """All sections as Markdown."""
    return "\n".join(_section(kept[name]) for name in sorted(kept))


def _section(section: Section) -> str:
    lines = [
        f"### {section['title']}",
        "",
        f"{section['date']}, {section['host']}; again with `{section['command']}`.",
        "",
        "| | |",
        "|---|---:|",
        *(f"| {label} | {_told(figure)} |" for label, figure in section["rows"].items()),
        "",
    ]
    if section.get("shares"):
        lines += ["| share of the states | % |", "|---|---:|"]
        lines += [f"| {label} | {share:.1f} |" for label, share in section["shares"].items()]
        lines.append("")
    return "\n".join(lines)


def _told(figure: object) -> str:
    return f"{figure:,}" if isinstance(figure, int) else str(figure)


if __name__ == "__main__":
    write_page(json.loads(KEPT.read_text()))
