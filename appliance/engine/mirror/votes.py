"""Carrying out epochs: writing the votes in the order that makes them safe.

Owns the mirror's history of epochs and its heartbeat while the store runs, and every write of a
superblock or the witness. Refuses, with ``VoteFailed``, to go on when an epoch could not be made
valid: what then counts is for the next start to decide. Invariant: after ``change`` returns, the
new epoch is durable on two voters and nothing was acknowledged under it before.

Crash points of ``change``: after each step of its plan; ``core.membership.decide`` holds for all.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from appliance.core.epochs import (
    WITNESS,
    Epoch,
    History,
    Leave,
    WritePlan,
    join_plan,
    leave_plan,
    renew_plan,
    successor,
)
from appliance.core.errors import DriveFault, EngineError
from appliance.core.ports import Entropy, Volume
from appliance.engine.mirror.member import Calls, Member
from appliance.engine.mirror.superblock import SuperblockFile
from appliance.engine.mirror.witness import Witness, WitnessFile, create_witness

WITNESS_DEADLINE_S: Final = 10.0
EPOCH_ID_BYTES: Final = 16


def generation_of(history: History, drive_id: str) -> int:
    """The membership generation of a drive: the number of the epoch it has been in sync since. A
    history cut short yields a later one, which only makes uploads under way be written again."""
    since = 0
    for epoch in reversed(history):
        if drive_id not in epoch.in_sync:
            break
        since = epoch.number
    return since


class VoteFailed(EngineError):
    """An epoch could not be made valid; the store stops and its next start decides. ``fault``: of
    the drive that did not take its vote, if it was one."""

    def __init__(self, reason: str, fault: DriveFault | None = None) -> None:
        super().__init__(reason)
        self.fault: Final = fault


class WitnessMissing(VoteFailed):
    """Every drive asked has the epoch; only W did not take its vote. Nobody can go on without us,
    so that the same epoch may be given to W as often as it takes."""


@dataclass(frozen=True, slots=True)
class WitnessHome:
    """Where W lives, and whose it is."""

    directory: Volume
    name: str
    mirror_id: str


class Votes:
    """The votes of an open mirror. Committer thread only."""

    def __init__(
        self,
        history: History,
        heartbeat: int,
        *,
        witness: WitnessFile | None,
        home: WitnessHome | None,
        calls: Calls,
        entropy: Entropy,
    ) -> None:
        self._history = history
        self._heartbeat = heartbeat
        self._witness = witness
        self._home = home
        self._calls = calls
        self._entropy = entropy
        self._pending: History | None = None
        """An epoch that only W has not taken."""

    @property
    def history(self) -> History:
        """From old to new; its last epoch counts."""
        return self._history

    @property
    def epoch(self) -> Epoch:
        """The one that counts now."""
        return self._history[-1]

    @property
    def witness_present(self) -> bool:
        """Whether W took its last vote."""
        return self._witness is not None

    @property
    def heartbeat(self) -> int:
        """As last raised."""
        return self._heartbeat

    def make_witness(self, history: History | None = None) -> None:
        """A new W in place of a lost one, with a vote like the drives'. It stays lost where it
        cannot be written; a later heartbeat tries again."""
        home = self._home
        if home is None or self._witness is not None:
            return
        value = Witness(home.mirror_id, self._heartbeat, history or self._history)

        def make() -> WitnessFile | None:
            create_witness(home.directory, home.name, value)
            opened = WitnessFile.open(home.directory, home.name)
            return opened if isinstance(opened, WitnessFile) else None

        with contextlib.suppress(DriveFault):
            self._witness = self._calls.on(WITNESS, make, WITNESS_DEADLINE_S)

    def settle(self) -> bool:
        """After ``WitnessMissing``: give W the epoch again, exactly that one, for a write that was
        given up may still land. Whether it is valid now; if not, try again later."""
        pending = self._pending
        assert pending is not None, "an epoch waits"
        if self._witness is None:
            self.make_witness(pending)
        else:
            self._write_witness(pending)
        if self._witness is None:
            return False
        self._history, self._pending = pending, None
        return True

    def leave(
        self,
        members: Mapping[str, Member],
        leaves: tuple[Leave, ...],
        *,
        number: int = 0,
        voids: tuple[str, ...] = (),
        rejects: tuple[str, ...] = (),
        forced: bool = False,
    ) -> None:
        """Go on with ``members`` alone."""
        history = self._next(
            number,
            tuple(sorted(members)),
            leaves=leaves,
            voids=voids,
            rejects=rejects,
            forced=forced,
        )
        plan = leave_plan(self.epoch, history[-1])
        # Nobody else is left to go on: a survivor that does not answer is waited for.
        self._change(plan, history, _superblocks(members), hold=True)

    def join(self, members: Mapping[str, Member], joiner: str) -> None:
        """``members`` with ``joiner`` among them are in sync from here on."""
        history = self._next(0, tuple(sorted(members)))
        self._change(join_plan(self.epoch, history[-1], joiner), history, _superblocks(members))

    def renew(
        self,
        members: Mapping[str, Member],
        others: Mapping[str, SuperblockFile],
        *,
        number: int,
        voids: tuple[str, ...] = (),
        rejects: tuple[str, ...] = (),
        forced: bool = False,
    ) -> None:
        """The same members under a new epoch that outranks all seen."""
        history = self._next(
            number, tuple(sorted(members)), voids=voids, rejects=rejects, forced=forced
        )
        plan = renew_plan(history[-1], tuple(sorted(others)))
        self._change(plan, history, {**others, **_superblocks(members)})

    def catch_up(self, drives: Mapping[str, SuperblockFile], behind: tuple[str, ...]) -> None:
        """Write the winning history to the voters that lack it, in the order given. W is done
        without where two drives have it. Raises ``VoteFailed``."""
        for voter in behind:
            fault = self._write(voter, drives, self._history, hold=False)
            if fault is None or (voter == WITNESS and len(self.epoch.in_sync) > 1):
                continue
            reason = f"cannot bring {voter} up to the epoch that counts: {fault}"
            raise WitnessMissing(reason) if voter == WITNESS else VoteFailed(reason, fault)

    def beat(self, members: Mapping[str, Member]) -> Mapping[str, DriveFault]:
        """Raise the heartbeat: W first, so that a W below a drive is an old copy. A W that does not
        take it is given up. Returns the drives that did not take it: one that went on in sync
        without would later be taken for an old copy, so they must leave."""
        self._heartbeat += 1
        if self._witness is None:
            self.make_witness()
        elif self._write_witness(self._history) is not None:
            self._heartbeat -= 1  # no drive may show a beat that W does not
            return {}
        return self.level(members)

    def level(self, members: Mapping[str, Member]) -> Mapping[str, DriveFault]:
        """Bring drives that a crash kept from the last beat up to it: the next one may be cut short
        too, and whoever missed two is taken for an old copy. Returns what ``beat`` returns."""
        beating = {
            name: self._voting(member.superblock, self._history)
            for name, member in members.items()
            if member.superblock.value.heartbeat < self._heartbeat
        }
        return self._calls.each(beating).faults if beating else {}

    def close(self) -> None:
        """Close W; the drives are their members'."""
        if self._witness is not None:
            self._witness.close()

    def _next(
        self,
        number: int,
        in_sync: tuple[str, ...],
        *,
        leaves: tuple[Leave, ...] = (),
        voids: tuple[str, ...] = (),
        rejects: tuple[str, ...] = (),
        forced: bool = False,
    ) -> History:
        return successor(
            self._history,
            number=max(number, self.epoch.number + 1),
            epoch_id=self._entropy.token(EPOCH_ID_BYTES).hex(),
            in_sync=in_sync,
            leaves=leaves,
            forced=forced,
            voids=voids,
            rejects=rejects,
        )

    def _change(
        self,
        plan: WritePlan,
        history: History,
        drives: Mapping[str, SuperblockFile],
        *,
        hold: bool = False,
    ) -> None:
        for done, voter in enumerate(plan.steps):
            fault = self._write(voter, drives, history, hold=hold)
            if fault is not None and done < plan.valid_after:
                reason = (
                    f"cannot make epoch {history[-1].number} valid: {voter} did not take its vote"
                )
                if voter != WITNESS:
                    raise VoteFailed(f"{reason}: {fault}", fault)
                self._pending = history
                raise WitnessMissing(reason)
        self._history = history

    def _write(
        self, voter: str, drives: Mapping[str, SuperblockFile], history: History, *, hold: bool
    ) -> DriveFault | None:
        """Why the voter did not take it, or None. ``hold``: wait for it beyond its deadline."""
        if voter == WITNESS:
            return self._write_witness(history)
        voting = self._voting(drives[voter], history)
        if hold:
            return self._calls.each({voter: voting}).faults.get(voter)
        return self._calls.within(voter, voting)

    def _voting(self, superblock: SuperblockFile, history: History) -> Callable[[], object]:
        value = replace(superblock.value, history=history, heartbeat=self._heartbeat)
        return lambda: superblock.write(value)

    def _write_witness(self, history: History) -> DriveFault | None:
        witness = self._witness
        if witness is None:
            return DriveFault(WITNESS, "taking a vote", errno.ENODEV, "it is lost")
        value = Witness(witness.value.mirror_id, self._heartbeat, history)
        fault = self._calls.within(WITNESS, lambda: witness.write(value), WITNESS_DEADLINE_S)
        if fault is not None:
            # Its lane may hang in this call: the file is left to it.
            self._witness = None
            self._calls.alert(f"the witness does not take its vote and counts as lost: {fault}")
        return fault


def _superblocks(members: Mapping[str, Member]) -> dict[str, SuperblockFile]:
    return {drive: member.superblock for drive, member in members.items()}
