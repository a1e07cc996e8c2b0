"""How a role's process ends: exit codes, and the descriptor that ties it to its supervisor.

Owns the codes, those of sysexits.h. Invariant: a code says whether another start could help.
"""

from __future__ import annotations

import sys
from typing import Final

from appliance.core.errors import (
    ApplianceError,
    InvalidInput,
    NotFound,
    Refused,
    Unreachable,
)

PARENT_VARIABLE: Final = "APPLIANCE_PARENT_PIPE"
"""A descriptor whose other end only the supervisor holds: its end of file is the supervisor's."""

EXIT_FAILED: Final = 1
EXIT_CODES: Final[tuple[tuple[type[ApplianceError], int], ...]] = (
    (InvalidInput, 78),
    (Refused, 77),
    (NotFound, 66),
    (Unreachable, 69),
    (ApplianceError, 70),
)
HOPELESS_CODES: Final = frozenset({66, 77, 78})
"""Another start would end the same."""


def complain(role: str, error: ApplianceError) -> int:
    """One sentence for a person; the exit code."""
    print(f"appliance {role}: {error}", file=sys.stderr, flush=True)  # noqa: T201
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))
