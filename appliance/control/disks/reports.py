"""What the disk manager tells people, and the refusals that need more than one drive's facts.

Owns sentences and the estimate of a resync's end. Decides nothing about mounting.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Final

from appliance.control.disks.assembly import Assembly, PresentDrive
from appliance.control.disks.plan import Trouble
from appliance.core.admin import DriveChoice, DriveReport, DriveState, MemberReport, MirrorReport
from appliance.core.drives import Drive, Refusal, Signature, claimable, label_of
from appliance.core.errors import InvalidInput, Refused
from appliance.core.jobs import estimate_s
from appliance.core.ports import Clock
from appliance.engine.interface import Health, MemberHealth

_MIRROR_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,30}")
ASSEMBLING: Final = "assembling"
OFFLINE: Final = "offline"


class Resyncs:
    """Remembers when each resync was first seen, for an estimate of its end."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._first: dict[str, tuple[float, int]] = {}

    def eta_s(self, mirror: str, health: Health) -> float | None:
        """None while nothing can be said, or no resync runs."""
        if not health.resync_total:
            self._first.pop(mirror, None)
            return None
        now_s = self._clock.monotonic_s()
        began_s, done = self._first.setdefault(mirror, (now_s, health.resync_done))
        return estimate_s(health.resync_done - done, health.resync_total - done, now_s - began_s)


def must_be_mirror_name(name: str) -> None:
    """Raises ``InvalidInput``. The name becomes a directory and a unit instance."""
    if not _MIRROR_NAME.fullmatch(name):
        raise InvalidInput(
            f"cannot call a mirror {name!r}: a name has 1 to 31 of a-z, 0-9 and -, "
            "and begins with a letter"
        )


def without_own_mount(drive: Drive, present: PresentDrive | None) -> Drive:
    """The drive as it would be without the mount the manager itself holds."""
    if present is None:
        return drive
    mounts = tuple(place for place in drive.mounts if place != str(present.path))
    return dataclasses.replace(drive, mounts=mounts, busy=bool(mounts))


def must_be_claimable(
    drive: Drive,
    present: Mapping[str, PresentDrive],
    force_serial: str | None,
    *,
    detached: bool = False,
) -> None:
    """Raises ``Refused`` with every reason and what to do next. ``detached``: the mirror it was a
    member of has decided against it."""
    own = present.get(drive.drive_id)
    if own is not None and own.passport.mirror is not None and not detached:
        mirror = own.passport.mirror
        if any(own.passport.drive_id == spare for spare, _ in mirror.spares):
            raise Refused(
                f"cannot claim {drive.identity}: it is a spare of mirror {mirror.name}; "
                f"`appliance mirror spare remove {mirror.name} {drive.serial}` frees it"
            )
        raise Refused(
            f"cannot claim {drive.identity}: it is a member of mirror {mirror.name}, "
            "which would lose a copy"
        )
    verdict = claimable(drive, force_serial=force_serial)
    if isinstance(verdict, Refusal):
        raise Refused(refusal_sentence(drive, verdict))


def refusal_sentence(drive: Drive, refusal: Refusal) -> str:
    """Which drive, every reason, and the way on if there is one."""
    why = "; ".join(reason.sentence for reason in refusal.reasons)
    text = f"cannot claim {drive.identity} (serial {drive.serial or 'none'}): {why}"
    if refusal.forceable and drive.serial:
        text += (
            f". To destroy what is on it, repeat with its serial typed: --force-serial"
            f" {drive.serial}"
        )
    return text


def formatted(drive: Drive, drive_id: str) -> Drive:
    """The drive as it is right after formatting."""
    return dataclasses.replace(
        drive,
        drive_id=drive_id,
        signatures=(Signature("xfs", label_of(drive_id), drive_id),),
        partitions=(),
    )


def drive_report(
    drive: Drive, present: PresentDrive | None, trouble: Trouble | None
) -> DriveReport:
    """What a drive is to us."""
    if trouble is not None:
        state = DriveState.CLONE if trouble.clone else DriveState.FAULTY
        return DriveReport(drive, state, reasons=(trouble.why,))
    if present is not None:
        path, mirror = str(present.path), present.passport.mirror
        if present.passport.is_free:
            return DriveReport(drive, DriveState.CLAIMED, path=path)
        if mirror is None:
            why = (f"{present.passport.station}; only a claim with its serial typed wipes it",)
            return DriveReport(drive, DriveState.DETACHED, path=path, reasons=why, can_force=True)
        is_spare = any(drive.drive_id == spare for spare, _ in mirror.spares)
        state = DriveState.SPARE if is_spare else DriveState.MEMBER
        return DriveReport(drive, state, mirror=mirror.name, path=path)
    verdict = claimable(drive)
    if isinstance(verdict, Refusal):
        reasons = tuple(reason.sentence for reason in verdict.reasons)
        force = verdict.forceable and bool(drive.serial)
        return DriveReport(drive, DriveState.REFUSED, reasons=reasons, can_force=force)
    return DriveReport(drive, DriveState.CLAIMABLE)


def with_advice(report: DriveReport, advice: str) -> DriveReport:
    """With what its store thinks of a drive in service."""
    if not advice:
        return report
    return dataclasses.replace(report, reasons=(*report.reasons, advice))


def mirror_report(
    assembly: Assembly, health: Health | None, resyncs: Resyncs, present: Mapping[str, PresentDrive]
) -> MirrorReport:
    """The mirror as its store sees it, or as its drives show while no store answers."""
    known = {member.drive_id: member for member in health.members} if health else {}
    paths = {each.drive: str(each.path) for each in assembly.members}
    roles = {
        **{new: "joining" for new, _ in assembly.membership.joining},
        **{old: "outgoing" for _, old in assembly.membership.joining},
    }
    members = [
        _member(drive, serial, paths.get(drive), known.get(drive), roles.get(drive, "member"))
        for drive, serial in assembly.membership.members
    ] + [
        MemberReport(drive, serial, present=drive in present, role="spare")
        for drive, serial in assembly.membership.spares
    ]
    report = MirrorReport(
        name=assembly.mirror,
        mirror_id=assembly.mirror_id,
        state=ASSEMBLING if assembly.members else OFFLINE,
        reason="its store has not answered yet" if assembly.members else "no drive of it is there",
        members=tuple(
            sorted(members, key=lambda member: (member.role == "spare", member.drive_id))
        ),
    )
    if health is None:
        return report
    return dataclasses.replace(
        report,
        state=health.state.value,
        reason=health.reason,
        epoch=health.epoch,
        sequence=health.sequence,
        total_bytes=health.total_bytes,
        free_bytes=health.free_bytes,
        resync_done=health.resync_done,
        resync_total=health.resync_total,
        question=health.question.value,
        choices=tuple(
            DriveChoice(each, _serial(assembly, each), words)
            for each, words in health.choices.items()
        ),
        lost=tuple(health.lost),
        lost_more=health.lost_more,
        resync_eta_s=None if health.resync_paused else resyncs.eta_s(assembly.mirror, health),
        resync_drive=health.resync_drive,
        resync_paused=health.resync_paused,
        alerts=tuple(health.alerts),
        unreadable=tuple(f"{count} of {name}" for name, count in sorted(health.unreadable.items())),
    )


def _serial(assembly: Assembly, drive: str) -> str:
    serials = {each.drive: each.serial for each in assembly.members} | dict(assembly.absent)
    return serials.get(drive, "")


def _member(
    drive_id: str, serial: str, path: str | None, health: MemberHealth | None, role: str
) -> MemberReport:
    here = MemberReport(drive_id, serial, present=path is not None, path=path or "", role=role)
    if health is None:
        return here
    return dataclasses.replace(
        here,
        in_sync=health.in_sync,
        reason=health.reason,
        read_errors=health.read_errors,
        repaired=health.repaired,
        detached=health.detached,
        failed=health.failed,
    )
