"""The rules of replacing a drive: who may take whose place, when a spare does, and what a mirror's
membership is before and after.

Owns the judgement and its sentences. Pure. Refuses a new drive that is too small, not free, or not
what its passport says. Invariant: a membership changes by one drive at a time, each change with a
higher revision, and an outgoing drive stays a member until the new one is in sync.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from appliance.control.disks.assembly import Assembly, PresentDrive
from appliance.control.disks.passport import Membership
from appliance.core.drives import Drive
from appliance.core.errors import InvalidInput, NotFound, Refused
from appliance.engine.interface import Health, MirrorState

SPARES_MAX: Final = 8
_GIGABYTE: Final = 10**9


@dataclass(frozen=True, slots=True)
class SparePolicy:
    """How long a drive must have failed, or be missing, before a spare takes its place."""

    after_failed_s: float = 0.0
    after_absent_s: float = 600.0


# -- memberships -------------------------------------------------------------------------------


def begun(membership: Membership, old: str, new: tuple[str, str]) -> Membership:
    """``new`` (id, serial) is to take the place of ``old``. A replacement of ``old`` that was under
    way with another drive is over."""
    given_up = {each for each, place in membership.joining if place == old}
    members = [each for each in membership.members if each[0] not in given_up]
    return dataclasses.replace(
        membership,
        members=(*members, new),
        joining=((new[0], old),),
        spares=tuple(each for each in membership.spares if each[0] != new[0]),
        revision=membership.revision + 1,
    )


def ended(membership: Membership, capacity_bytes: int) -> Membership:
    """The new drive counts; the old one is no member any more."""
    outgoing = {old for _, old in membership.joining}
    return dataclasses.replace(
        membership,
        members=tuple(each for each in membership.members if each[0] not in outgoing),
        joining=(),
        capacity_bytes=capacity_bytes,
        revision=membership.revision + 1,
    )


def with_spare(membership: Membership, spare: tuple[str, str]) -> Membership:
    """One more spare. Raises ``Refused``."""
    if len(membership.spares) >= SPARES_MAX:
        raise Refused(f"cannot add a spare: mirror {membership.name} has {SPARES_MAX} already")
    spares = (*membership.spares, spare)
    return dataclasses.replace(membership, spares=spares, revision=membership.revision + 1)


def without_spare(membership: Membership, drive_id: str) -> Membership:
    """One spare less."""
    spares = tuple(each for each in membership.spares if each[0] != drive_id)
    return dataclasses.replace(membership, spares=spares, revision=membership.revision + 1)


# -- who is meant, and may he ----------------------------------------------------------------------


def member_of(membership: Membership, identity: str, drives: Sequence[Drive]) -> str:
    """The id of the member an operator means, be it there or away. Raises ``NotFound``."""
    listed = dict(membership.members)
    for drive_id, serial in membership.members:
        if identity in {drive_id, serial}:
            return drive_id
    for drive in drives:
        names = {drive.identity, drive.wwn, *drive.aliases}
        if drive.drive_id in listed and identity in names - {""}:
            return drive.drive_id
    known = ", ".join(f"{serial} ({drive_id})" for drive_id, serial in membership.members)
    raise NotFound(f"cannot find {identity!r} in mirror {membership.name}: its drives are {known}")


def spare_of(membership: Membership, identity: str, drives: Sequence[Drive]) -> str:
    """The same for a spare."""
    spares = dataclasses.replace(membership, members=membership.spares)
    if not membership.spares:
        raise NotFound(f"cannot find the spare {identity!r}: {membership.name} has no spare")
    return member_of(spares, identity, drives)


def must_suit(
    drive: Drive, present: PresentDrive | None, membership: Membership, needed_bytes: int
) -> PresentDrive:
    """The drive that may serve in the mirror. Raises ``Refused`` with why not, and what to do."""
    where = f"cannot use {drive.identity} in mirror {membership.name}"
    if present is None:
        raise Refused(
            f"{where}: it is not claimed; run `appliance drive claim {drive.identity}` first"
        )
    passport = present.passport
    if passport.former:
        raise Refused(
            f"{where}: it was detached from mirror {passport.former} and still holds its data; "
            f"to destroy that, run `appliance drive claim {drive.identity} --force-serial "
            f"{drive.serial}`"
        )
    if passport.mirror is not None:
        is_spare = passport.mirror.mirror_id == membership.mirror_id and any(
            passport.drive_id == spare for spare, _ in membership.spares
        )
        if not is_spare:
            raise Refused(f"{where}: it belongs to mirror {passport.mirror.name} already")
    if passport.serial and drive.serial and not drive.serial.startswith(passport.serial):
        raise Refused(
            f"{where}: its passport was written for serial {passport.serial}, but this drive's is "
            f"{drive.serial}: it is a copy; claim it anew"
        )
    if drive.size_bytes < needed_bytes:
        raise Refused(
            f"{where}: it has {drive.size_bytes} bytes ({drive.size_bytes / _GIGABYTE:.1f} GB), "
            f"{needed_bytes - drive.size_bytes} too few; the mirror needs "
            f"{needed_bytes} ({needed_bytes / _GIGABYTE:.1f} GB)"
        )
    return present


def must_not_be_under_way(assembly: Assembly, old: str, new: str) -> bool:
    """Whether exactly this is under way already. Raises ``Refused`` when another replacement is
    that still can succeed."""
    if new == old:
        raise InvalidInput("cannot replace a drive by itself")
    there = {member.drive for member in assembly.members}
    for joining, outgoing in assembly.membership.joining:
        if (joining, outgoing) == (new, old):
            return True
        if joining in there or outgoing != old:
            raise Refused(
                f"cannot replace {old}: drive {joining} is taking the place of {outgoing} now; "
                f"`appliance mirror resync {assembly.mirror}` shows how far it is"
            )
    if new in dict(assembly.membership.members):
        raise Refused(f"cannot replace {old} by {new}: that is a member of the mirror already")
    return False


def needed_bytes(assembly: Assembly, sizes: Mapping[str, int]) -> int:
    """The least size of a drive for the mirror; ``sizes`` are those of the present drives."""
    if assembly.membership.capacity_bytes:
        return assembly.membership.capacity_bytes
    return min((sizes[each.drive] for each in assembly.members if each.drive in sizes), default=0)


def is_done(assembly: Assembly, health: Health) -> bool:
    """Whether every joining drive is in sync and no outgoing one is."""
    in_sync = {member.drive_id for member in health.members if member.in_sync}
    joining = assembly.membership.joining
    return bool(joining) and all(n in in_sync and o not in in_sync for n, o in joining)


# -- spares ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Watch:
    """Since when each member of each mirror has failed or been missing."""

    policy: SparePolicy
    _since_s: dict[tuple[str, str], float] = field(default_factory=dict)

    def due(self, assembly: Assembly, health: Health, now_s: float) -> str:
        """The member a spare is to replace now; empty when there is none. While no replacement is
        under way and the mirror serves from another drive."""
        mirror, membership = assembly.mirror, assembly.membership
        known = {member.drive_id: member for member in health.members}
        serves = health.state in {MirrorState.DEGRADED, MirrorState.RESYNCING}
        present = {member.drive for member in assembly.members}
        chosen = ""
        for drive, _ in membership.members:
            found = known.get(drive)
            has_failed = found is not None and found.failed
            is_away = drive not in present
            in_sync = found is not None and found.in_sync
            if in_sync or not serves or membership.joining or not (has_failed or is_away):
                self._since_s.pop((mirror, drive), None)
                continue
            since_s = self._since_s.setdefault((mirror, drive), now_s)
            wait_s = self.policy.after_failed_s if has_failed else self.policy.after_absent_s
            if now_s - since_s >= wait_s and not chosen:
                chosen = drive
        return chosen


def best_spare(
    membership: Membership, sizes: Mapping[str, int], needed: int
) -> tuple[str, str] | None:
    """The smallest spare that is there and large enough."""
    able = [
        (sizes[drive], drive, serial)
        for drive, serial in membership.spares
        if sizes.get(drive, 0) >= needed and drive in sizes
    ]
    return min(able)[1:] if able else None
