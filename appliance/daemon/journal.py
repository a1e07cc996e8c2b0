"""What a process says while it works: one line per message on standard error.

Owns the format. Under systemd a line begins with its level (sd-daemon(3)) and the journal adds the
rest; elsewhere with time, role and level. Invariant: one message is one line of the first form, so
that a stack trace does not fall apart in the journal's eyes.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from typing import Final

_LEVELS: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}
_CRITICAL: Final = 2


class JournalFormatter(logging.Formatter):
    """For systemd: level number in front of every line."""

    def format(self, record: logging.LogRecord) -> str:
        """See ``logging.Formatter``."""
        level = f"<{_LEVELS.get(record.levelno, _CRITICAL)}>"
        return "\n".join(level + line for line in super().format(record).splitlines())


class TerminalFormatter(logging.Formatter):
    """For people: time, role, level."""

    def __init__(self, role: str) -> None:
        super().__init__("%(message)s")
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """See ``logging.Formatter``."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        head = f"{clock} {self._role}: "
        if record.levelno >= logging.WARNING:
            head += f"{record.levelname.lower()}: "
        return head + super().format(record)


def start_logging(role: str, level: str, environment: Mapping[str, str]) -> None:
    """Send messages of ``level`` and above to standard error. Replaces earlier settings."""
    handler = logging.StreamHandler(sys.stderr)
    under_systemd = "JOURNAL_STREAM" in environment
    handler.setFormatter(JournalFormatter() if under_systemd else TerminalFormatter(role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    if root.level > logging.DEBUG:
        # A client that breaks off is no news of ours; the access record tells of it.
        logging.getLogger("asyncio").setLevel(logging.ERROR)
    logging.raiseExceptions = False
