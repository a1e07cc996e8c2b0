"""Epochs and votes: what the voters of a mirror say, and in which order they are made to say it.

The voters are the mirror's drives and the witness W. An *epoch* says which drives are in sync from
then on; a vote for an epoch is a vote for its ancestors. Everything here is pure.

What the order of writes (``leave_plan`` and its neighbours) guarantees, and ``decide`` rests on:

- W comes last: *what W holds, every drive that is in sync in it holds.* So an in-sync drive without
  W's epoch was rolled back, and a lone epoch that W could know but does not was never valid.
- A heartbeat is raised on W first and then on every drive in sync. A W below a drive is an old
  copy; a drive in sync that lacks more than the beat under way is one too.
- An epoch changes one drive at a time and at most two are in sync, so any two of its drives and W
  meet any other two: two voters who agree cannot be outvoted by ones not seen.
- Until a new epoch is valid, acknowledgements need the union of the old and new sets, so nothing
  acknowledged rests on an epoch that is not valid. Only a *forced* epoch is valid alone.

Refused: an epoch that breaks these rules cannot be made (assertions, since only our own code
makes epochs); votes read from drives are checked by ``Epoch.is_sound``. The decision itself is in
``core.membership``.
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
REJECTS_MAX: Final = 4
BEATS_PER_START: Final = 2
"""A start raises the heartbeat so often that one which was completed can be told from one that was
cut short. So does a join: a drive and W that went back to before it are below the joiner's."""
BEATS_UNDER_WAY_MAX: Final = 1
"""A crash between W and the drives leaves them apart by this much."""


@dataclass(frozen=True, slots=True)
class Leave:
    """A drive that stopped counting, and the last sequence known durable on it. ``clean``: it was
    only taken away or not there, no call on it had failed; so it still has what it had."""

    drive_id: str
    sequence: int
    clean: bool = False


@dataclass(frozen=True, slots=True)
class Epoch:
    """Which drives are in sync from here on. ``voids`` are epochs proven never to have been valid;
    ``forced`` ones were ordered by an operator and need no second voter; ``rejects``, handed on
    from epoch to epoch, are the ends of histories that an operator decided against."""

    number: int
    id: str
    parent_id: str
    in_sync: tuple[str, ...]
    leaves: tuple[Leave, ...] = ()
    forced: bool = False
    voids: tuple[str, ...] = ()
    rejects: tuple[str, ...] = ()

    def is_sound(self) -> bool:
        """Whether a value read from a drive obeys the rules of an epoch."""
        return (
            self.number >= 1
            and 1 <= len(self.in_sync) <= IN_SYNC_MAX
            and tuple(sorted(set(self.in_sync))) == self.in_sync
            and WITNESS not in self.in_sync
            and len(self.voids) <= VOIDS_MAX
            and len(self.rejects) <= REJECTS_MAX
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
    ``in_sync``, forced if ``force``, voiding ``voids``, rejecting ``rejects``)."""

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
    rejects: tuple[str, ...] = ()
    witness_lost: bool = False
    """W was absent, blank, another mirror's or an old copy: make it anew once this is done."""

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
    """Not with these voters; the reason says what would help. ``may_force``: the operator may
    accept to lose what only absent voters hold."""

    reason: str
    may_force: bool = False


Decision: TypeAlias = Serve | Wait | ReadOnly | Refuse


@dataclass(frozen=True, slots=True)
class WritePlan:
    """The voters to write a new epoch to, one after the other. It is valid once the first
    ``valid_after`` have it on stable storage; until then every acknowledgement needs
    ``acknowledge``."""

    steps: tuple[str, ...]
    valid_after: int
    acknowledge: frozenset[str]


def successor(
    history: History,
    *,
    number: int,
    epoch_id: str,
    in_sync: tuple[str, ...],
    leaves: tuple[Leave, ...] = (),
    forced: bool = False,
    voids: tuple[str, ...] = (),
    rejects: tuple[str, ...] = (),
) -> History:
    """``history`` with a new epoch at its end. ``number`` exceeds all ever seen."""
    parent = history[-1] if history else None
    epoch = Epoch(
        number=number,
        id=epoch_id,
        parent_id=parent.id if parent else "",
        in_sync=tuple(sorted(in_sync)),
        leaves=leaves,
        forced=forced,
        voids=voids[-VOIDS_MAX:],
        rejects=((parent.rejects if parent else ()) + rejects)[-REJECTS_MAX:],
    )
    assert epoch.is_sound()
    if parent is not None:
        assert number > parent.number
        assert forced or len(set(parent.in_sync) ^ set(epoch.in_sync)) <= 1, (
            "an epoch changes one drive at a time"
        )
    return (*history, epoch)[-HISTORY_MAX:]


def leave_plan(old: Epoch, new: Epoch) -> WritePlan:
    """The survivor, then W."""
    steps = (*new.in_sync, WITNESS)
    return WritePlan(steps, 1 if new.forced else len(steps), _union(old, new))


def join_plan(old: Epoch, new: Epoch, joiner: str) -> WritePlan:
    """The joiner, which holds everything by now; the member; W."""
    members = tuple(drive for drive in new.in_sync if drive != joiner)
    return WritePlan((joiner, *members, WITNESS), 2, _union(old, new))


def renew_plan(epoch: Epoch, others: Sequence[str] = ()) -> WritePlan:
    """The drives in sync, other present drives that may vote, W."""
    steps = (*epoch.in_sync, *others, WITNESS)
    return WritePlan(steps, 1 if epoch.forced else 2, frozenset(epoch.in_sync))


def _union(old: Epoch, new: Epoch) -> frozenset[str]:
    return frozenset(old.in_sync) | frozenset(new.in_sync)
