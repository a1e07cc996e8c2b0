"""Who may serve a mirror: epochs, votes, and the one decision made from them.

The voters are the mirror's drives and the witness W. An *epoch* says which drives are in sync from
then on; a vote for an epoch is a vote for its ancestors. Everything here is pure: the store reads
the votes, calls ``decide`` and carries out what it says.

What the order of writes (``leave_plan`` and its neighbours) guarantees, and ``decide`` rests on:

- W comes last: *what W holds, every drive that is in sync in it holds.* So an in-sync drive without
  W's epoch was rolled back, and a lone epoch that W could know but does not was never valid.
- An epoch changes one drive at a time and at most two are in sync, so any two of its drives and W
  meet any other two: two voters who agree cannot be outvoted by ones not seen.
- Until a new epoch is valid, acknowledgements need the union of the old and new sets, so nothing
  acknowledged rests on an epoch that is not valid. Only a *forced* epoch is valid alone.

Refused: an epoch that breaks these rules cannot be made (assertions, since only our own code
makes epochs); votes read from drives are checked by ``Epoch.is_sound``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

WITNESS: Final = "witness"
IN_SYNC_MAX: Final = 2
HISTORY_MAX: Final = 16
VOIDS_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class Leave:
    """A drive that stopped counting, and the last sequence known durable on it."""

    drive_id: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Epoch:
    """Which drives are in sync from here on. ``voids`` are epochs proven never to have been valid;
    ``forced`` ones were ordered by an operator and need no second voter."""

    number: int
    id: str
    parent_id: str
    in_sync: tuple[str, ...]
    leaves: tuple[Leave, ...] = ()
    forced: bool = False
    voids: tuple[str, ...] = ()

    def is_sound(self) -> bool:
        """Whether a value read from a drive obeys the rules of an epoch."""
        return (
            self.number >= 1
            and 1 <= len(self.in_sync) <= IN_SYNC_MAX
            and tuple(sorted(set(self.in_sync))) == self.in_sync
            and WITNESS not in self.in_sync
            and len(self.voids) <= VOIDS_MAX
        )


History: TypeAlias = tuple[Epoch, ...]


@dataclass(frozen=True, slots=True)
class DriveVote:
    """What a present drive's superblock says. ``history`` runs from old to new; its last epoch is
    the vote. Never empty."""

    drive_id: str
    mirror_id: str
    history: History
    heartbeat: int


@dataclass(frozen=True, slots=True)
class WitnessVote:
    """What W says. ``history`` is never empty."""

    mirror_id: str
    history: History
    heartbeat: int


class Standing(enum.Enum):
    """What a present drive is to the epoch that won."""

    IN_SYNC = "in sync"
    STALE = "stale"
    """Left at some time; brought back by state transfer."""
    ROLLED_BACK = "rolled back"
    """Counts as in sync but lacks what it must hold: its content is older than its vote owed."""
    DIVERGED = "diverged"
    """Went its own way; kept whole, wiped only by a claim."""
    CLONE = "clone"
    """Its identity is present twice; neither counts."""


@dataclass(frozen=True, slots=True)
class Serve:
    """Serve from ``in_sync``, all of them present. Before serving, in this order: bring the drives'
    logs together; write ``history`` to the voters ``behind``; then, if ``leaves_needed`` or
    ``renew`` or ``force``, make one successor epoch valid (number ``next_number``, in sync
    ``in_sync``, forced if ``force``, voiding ``voids``)."""

    epoch: Epoch
    history: History
    in_sync: tuple[str, ...]
    standings: Mapping[str, Standing]
    next_number: int
    behind: tuple[str, ...] = ()
    leaves_needed: tuple[str, ...] = ()
    renew: bool = False
    force: bool = False
    voids: tuple[str, ...] = ()
    witness_lost: bool = False

    @property
    def needs_epoch(self) -> bool:
        """Whether a successor epoch must be valid before serving."""
        return bool(self.leaves_needed) or self.renew or self.force


@dataclass(frozen=True, slots=True)
class Wait:
    """Not yet: ``missing`` drives may still come."""

    reason: str
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadOnly:
    """Two histories went apart. The operator chooses one drive of ``heads`` (drive id → epoch)."""

    reason: str
    heads: Mapping[str, Epoch] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refuse:
    """Not with these voters; the reason says what would help."""

    reason: str


Decision: TypeAlias = Serve | Wait | ReadOnly | Refuse


def decide(
    drives: Sequence[DriveVote],
    witness: WitnessVote | None,
    *,
    waited: bool,
    forced: bool = False,
    chosen: str | None = None,
) -> Decision:
    """Who serves, from the votes of the present drives and W (None: absent, blank or unreadable).

    ``waited``: the time for missing drives is over. ``forced``: the operator accepts to lose what
    only absent drives hold. ``chosen``: the drive the operator picked among diverged ones.
    """
    raise AssertionError(drives, witness, waited, forced, chosen)
