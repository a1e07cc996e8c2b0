"""Who is present of a mirror, what they vote, and what follows from that.

Owns the reading of superblocks and the witness at a start. Refuses what ``core.membership.decide``
refuses, in the engine's errors. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from appliance.core.epochs import WITNESS, DriveVote, Refuse, Serve, Wait, WitnessVote
from appliance.core.epochs import ReadOnly as DivergedHistories
from appliance.core.errors import DriveFault, Refused
from appliance.core.membership import decide
from appliance.core.ports import Volume
from appliance.engine.mirror.assembled import Assembly, MayForce, NotYet, Orders, WentApart
from appliance.engine.mirror.member import Calls, Opening
from appliance.engine.mirror.superblock import (
    Blank,
    Superblock,
    Unreadable,
    read_superblock,
)
from appliance.engine.mirror.votes import WITNESS_DEADLINE_S
from appliance.engine.mirror.witness import WitnessFile


@dataclass(frozen=True, slots=True)
class RollCall:
    """The present drives of the mirror, the open witness if there is one, and the decision."""

    found: list[tuple[Volume, Superblock]]
    witness: WitnessFile | None
    serve: Serve


def call_roll(
    assembly: Assembly,
    volumes: Iterable[Volume],
    orders: Orders,
    calls: Calls,
    *,
    waited: bool,
) -> RollCall:
    """Read the votes of ``volumes`` and W, and decide. Raises ``NotYet``, ``Refused``,
    ``ReadOnly``, ``DriveFault``."""
    found = _read_superblocks(assembly, volumes, calls.alert)
    witness = _open_witness(assembly, calls, must_write=orders.forced)
    try:
        return RollCall(found, witness, _decide(found, witness, orders, waited=waited))
    except BaseException:
        if witness is not None:
            witness.close()
        raise


def _read_superblocks(
    assembly: Assembly, volumes: Iterable[Volume], alert: Callable[[str], None]
) -> list[tuple[Volume, Superblock]]:
    found = []
    for volume in volumes:
        superblock = read_superblock(volume)
        if volume.name in assembly.replaces and not _votes(superblock):
            continue  # a new drive that never joined: it has no say yet
        if not isinstance(superblock, Superblock):
            alert(f"drive {volume.name} has no readable superblock")
        elif superblock.mirror_id != assembly.mirror_id or not superblock.history:
            alert(f"drive {volume.name} is not of this mirror")
        else:
            found.append((volume, superblock))
    return found


def _votes(superblock: Superblock | Blank | Unreadable) -> bool:
    return isinstance(superblock, Superblock) and bool(superblock.history)


def _open_witness(assembly: Assembly, calls: Calls, *, must_write: bool) -> WitnessFile | None:
    """``must_write``: one that takes no vote is not waited for, because the operator said so. On
    its lane: one that hangs in a call of an earlier life is not opened beside it."""
    directory, name = assembly.witness_directory, assembly.witness_name
    if directory is None:
        return None
    opening = Opening(partial(WitnessFile.open, directory, name), _close_witness)
    try:
        witness = calls.on(WITNESS, opening, WITNESS_DEADLINE_S)
    except DriveFault as fault:
        opening.give_up()
        calls.alert(f"the witness cannot be read: {fault}")
        return None
    if not isinstance(witness, WitnessFile):
        return None
    if must_write:
        writing = partial(witness.write, witness.value)
        refusal = calls.within(WITNESS, writing, WITNESS_DEADLINE_S)
        if refusal is not None:
            calls.alert(f"the witness takes no vote: {refusal}")
            witness.close()
            return None
    return witness


def _close_witness(opened: WitnessFile | Blank | Unreadable) -> None:
    if isinstance(opened, WitnessFile):
        opened.close()


def _decide(
    found: list[tuple[Volume, Superblock]],
    witness: WitnessFile | None,
    orders: Orders,
    *,
    waited: bool,
) -> Serve:
    votes = [
        DriveVote(block.drive_id, block.mirror_id, block.history, block.heartbeat)
        for _, block in found
    ]
    vote = None
    if witness is not None:
        value = witness.value
        vote = WitnessVote(value.mirror_id, value.history, value.heartbeat)
    decision = decide(votes, vote, waited=waited, forced=orders.forced, chosen=orders.chosen)
    if isinstance(decision, Wait):
        raise NotYet(decision.reason, decision.missing)
    if isinstance(decision, Refuse):
        raise (MayForce if decision.may_force else Refused)(decision.reason)
    if isinstance(decision, DivergedHistories):
        raise WentApart(decision.reason, _heads(decision, found))
    return decision


def _heads(decision: DivergedHistories, found: list[tuple[Volume, Superblock]]) -> dict[str, str]:
    """What an operator can tell the halves by."""
    histories = {block.drive_id: block.history for _, block in found}
    shared = set.intersection(*(({e.id for e in histories[d]}) for d in decision.heads))
    words = {}
    for drive, epoch in decision.heads.items():
        known = [e.number for e in histories[drive] if e.id in shared]
        since = f", apart since epoch {max(known)}" if known else ""
        with_whom = "alone" if epoch.in_sync == (drive,) else f"with {', '.join(epoch.in_sync)}"
        how = ", forced by an operator" if epoch.forced else ""
        words[drive] = f"epoch {epoch.number}{since}, {with_whom}{how}"
    return words
