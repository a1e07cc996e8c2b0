"""What does not succeed yet and is tried again and again, said once per reason.

Owns which reason was told last, per thing it is about. Refuses nothing. Invariant: the same reason
about the same thing is told again only after it was over, so that a log of days shows changes.
"""

from __future__ import annotations

import logging


class Complaints:
    """Of one loop. Used from one thread; ``about`` names few things: a mirror, a drive."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._told: dict[str, str] = {}

    def say(self, about: str, text: str) -> None:
        """A warning, unless it is what was told of this thing last."""
        if self._told.get(about) != text:
            self._told[about] = text
            self._log.warning("%s", text)

    def over(self, about: str) -> bool:
        """It succeeded. True when there had been a complaint."""
        return self._told.pop(about, None) is not None
