"""What to mount and what to unmount: one pure decision over what the bay shows.

Owns the rules for drives of ours that come, go, fail and are doubled. Refuses to mount a clone
beside a drive in service, and to choose between two that both answer. Invariant: after the plan is
carried out every drive id is mounted at most once, from a device that answered.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from appliance.control.disks.bay import Mounted
from appliance.core.drives import Drive


@dataclass(frozen=True, slots=True)
class Unmount:
    """The drive's place must go. ``why`` is told to the operator."""

    drive_id: str
    why: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """A device of ours that is left alone. ``retry``: time alone may cure it."""

    node: str
    drive_id: str
    why: str
    clone: bool = False
    retry: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Unmounts come first; mounts are planned anew after them."""

    unmounts: tuple[Unmount, ...] = ()
    mounts: tuple[Drive, ...] = ()
    troubles: tuple[Trouble, ...] = ()


def doubtful(drives: Sequence[Drive], mounted: Mapping[str, Mounted]) -> list[Drive]:
    """The drives of ours that must be read from before deciding: all but a drive that is mounted
    and the only one of its id (that one belongs to its store, which knows better)."""
    return [
        drive
        for drive in drives
        if drive.drive_id
        and (drive.drive_id not in mounted or len(_bearers(drives, drive.drive_id)) > 1)
    ]


def decide(
    drives: Sequence[Drive],
    mounted: Mapping[str, Mounted],
    answering: Collection[str],
    reported: Mapping[str, str],
) -> Plan:
    """``answering``: nodes that read. ``reported``: drive ids whose store gave them up, and why."""
    unmounts = [*_unmounts(drives, mounted, answering, reported)]
    if unmounts:
        return Plan(unmounts=tuple(unmounts))
    mounts: list[Drive] = []
    troubles: list[Trouble] = []
    for drive_id in sorted({drive.drive_id for drive in drives if drive.drive_id}):
        bearers = _bearers(drives, drive_id)
        if drive_id in mounted:
            place = mounted[drive_id]
            why = f"a copy of a drive in service ({place.node}); detach one of them"
            troubles += [
                Trouble(each.node, drive_id, why, clone=True)
                for each in bearers
                if each.node != place.node
            ]
            continue
        living = [each for each in bearers if each.node in answering]
        troubles += [
            Trouble(each.node, drive_id, "does not answer", retry=True)
            for each in bearers
            if each not in living
        ]
        if len(living) > 1:
            why = f"{len(living)} drives carry one drive id; detach all but the right one"
            troubles += [Trouble(each.node, drive_id, why, clone=True) for each in living]
        elif living:
            _one(living[0], mounts, troubles)
    return Plan(mounts=tuple(mounts), troubles=tuple(troubles))


def _unmounts(
    drives: Sequence[Drive],
    mounted: Mapping[str, Mounted],
    answering: Collection[str],
    reported: Mapping[str, str],
) -> list[Unmount]:
    nodes = {drive.node: drive for drive in drives}
    found = []
    for drive_id, place in mounted.items():
        if place.node not in nodes or nodes[place.node].drive_id != drive_id:
            found.append(Unmount(drive_id, "its device is gone"))
        elif drive_id in reported:
            found.append(Unmount(drive_id, reported[drive_id]))
        elif len(_bearers(drives, drive_id)) > 1 and place.node not in answering:
            found.append(Unmount(drive_id, "it came back as another device"))
    return found


def _one(drive: Drive, mounts: list[Drive], troubles: list[Trouble]) -> None:
    if drive.mounts:
        why = f"mounted by somebody else at {', '.join(drive.mounts)}; unmount it there"
        troubles.append(Trouble(drive.node, drive.drive_id, why, retry=True))
    elif drive.busy or drive.holders:
        # After a lazy unmount the old file system lives on until its last user lets go. Mounting
        # now would give the same, possibly shut down, file system instead of a fresh one.
        why = "still held open by its former users"
        troubles.append(Trouble(drive.node, drive.drive_id, why, retry=True))
    else:
        mounts.append(drive)


def _bearers(drives: Sequence[Drive], drive_id: str) -> list[Drive]:
    return [drive for drive in drives if drive.drive_id == drive_id]
