"""What an operator may decide about a mirror that waits, and what each choice means.

Owns the words that the command line shows before anything is done. Pure.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final


class Choice(enum.Enum):
    """An operator's answer. The value is the word of the API and the option of the command."""

    KEEP = "keep"
    FORCE = "force"
    ACCEPT_LOSSES = "accept-losses"
    RESUME = "resume"


@dataclass(frozen=True, slots=True)
class Meaning:
    """``question``: the engine's word for what it asks, which this answers. ``option``: as it is
    typed. ``consequence``: what will be, said before it is done."""

    question: str
    option: str
    asks: str
    consequence: str


MEANINGS: Final = {
    Choice.KEEP: Meaning(
        "choose",
        "--keep DRIVE",
        "Both drives went on without each other, or hold contents that contradict each other. Only"
        " one of them can be right.",
        "The mirror goes on with what is on the drive you keep. Whatever only the other one holds"
        " is gone from the service, acknowledged or not. The other drive is detached whole: nothing"
        " is written to it, `appliance drive inspect` and `appliance mirror export` read it, and"
        " only a claim wipes it. Until a second drive joins, everything is on one drive alone.",
    ),
    Choice.FORCE: Meaning(
        "force",
        "--force",
        "A drive or the witness that is away may hold a newer state than what is here. Attaching it"
        " is the safe answer.",
        "The mirror goes on with what is here. If the voter that is away was newer, everything"
        " stored since then is gone from the service, and deleted objects may be back. A drive that"
        " returns and went on by itself meanwhile is detached, not merged. This cannot be undone.",
    ),
    Choice.ACCEPT_LOSSES: Meaning(
        "losses",
        "--accept-losses",
        "Part of the log cannot be read on any drive. A drive that is away may still have it:"
        " attaching it is the safe answer.",
        "The records named are given up for good; where a deletion is among them, the older object"
        " is back. Everything else is served, and writes are taken again.",
    ),
    Choice.RESUME: Meaning(
        "resume",
        "--resume",
        "The store crashed again and again on the same data, so it serves reads alone. It tries by"
        " itself once it has run without a crash for as long as crashes are counted.",
        "The store takes writes again at once. Nothing is lost by it; if it crashes again as often,"
        " it comes back for reading alone.",
    ),
}


def choice_for(question: str) -> Choice | None:
    """The one that answers the engine's question; None if it asks nothing."""
    for choice, meaning in MEANINGS.items():
        if meaning.question == question:
            return choice
    return None
