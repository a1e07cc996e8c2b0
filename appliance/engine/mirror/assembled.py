"""What a start is given: the drives, the outside world, and what the operator allows.

Owns these values and the errors of a start that comes too early
or waits for the operator's word. Nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from appliance.core.errors import ReadOnly, Refused, Unavailable
from appliance.core.ports import Clock, Entropy, Lanes, Volume


class NotYet(Unavailable):
    """Members are missing and may still come; ``missing`` are their drive ids."""

    def __init__(self, reason: str, missing: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.missing: Final = list(missing)


class NobodyAnswers(NotYet):
    """No drive answers at all: nothing is said of any of them, for it may be the host that stood
    still. To be tried again until they do."""


class MayForce(Refused):
    """A voter that is away may know more; the operator may go on without it."""


class WentApart(ReadOnly):
    """Two histories; the operator chooses one of ``heads``: drive id → what its vote says."""

    def __init__(self, reason: str, heads: Mapping[str, str]) -> None:
        super().__init__(reason)
        self.heads: Final = dict(heads)


@dataclass(frozen=True, slots=True)
class Assembly:
    """Where everything of one mirror is. ``volumes``: the present drives, in any order.
    ``replaces``: new drives among them, and the one that each takes the place of."""

    mirror_id: str
    volumes: Sequence[Volume]
    index_directory: Volume
    index_path: str
    """The index directory's path: SQLite opens its files itself."""
    witness_directory: Volume | None
    witness_name: str = "witness"
    replaces: Mapping[str, str] = field(default_factory=dict)
    failing: frozenset[str] = frozenset()
    """Drives that are there but could not be read, or did not answer."""

    def close(self) -> None:
        """Close every volume. Idempotent."""
        for volume in (*self.volumes, self.index_directory, self.witness_directory):
            if volume is not None:
                volume.close()


@dataclass(frozen=True, slots=True)
class Ports:
    """The outside world, real or simulated."""

    clock: Clock
    entropy: Entropy
    lanes: Lanes


@dataclass(frozen=True, slots=True)
class Orders:
    """What the operator or the time passed allows: see ``decide``. ``accept_losses``: serve
    although parts of the log are lost on every drive. ``resume``: take writes although the store
    crashed again and again."""

    waited: bool = False
    forced: bool = False
    chosen: str | None = None
    accept_losses: bool = False
    resume: bool = False
