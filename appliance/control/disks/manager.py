"""The disk manager: claims drives, makes mirrors, and answers for both.

Owns what an operator may do with drives; what is there and where it is mounted belongs to
``Reality``. Refuses whatever ``core.drives`` refuses, and any drive that a mirror needs. Mutations
run under the one lock, on facts read under it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final

from appliance.control.disks import reports
from appliance.control.disks.assembly import Assembly, PresentDrive
from appliance.control.disks.bay import Bay
from appliance.control.disks.creation import (
    MirrorMaker,
    NewMember,
    NewMirror,
    made_mirror_id,
    unfinished_mirror_id,
)
from appliance.control.disks.decisions import Override, decide, no_override
from appliance.control.disks.jobs import JobBook, JobHandle
from appliance.control.disks.passport import Membership, Passport, write_passport
from appliance.control.disks.permissions import (
    Owners,
    give_to_store,
    give_tree_to_store,
    share_staging,
)
from appliance.control.disks.reality import BLOCKING_S_MAX, Reality, Subscriber
from appliance.control.disks.replacement import SparePolicy
from appliance.control.disks.succession import LOOK_EVERY_S, HealthOf, Succession
from appliance.control.disks.trimming import Trimming, TrimPolicy
from appliance.core.admin import DriveReport, DriveState, MirrorReport
from appliance.core.decisions import Choice
from appliance.core.drives import Drive, label_of, resolve
from appliance.core.errors import ApplianceError, InvalidInput, Refused, Unavailable
from appliance.core.jobs import Job
from appliance.core.ports import Clock, Entropy
from appliance.core.scrubs import ScrubOrder, ScrubReport
from appliance.engine.interface import Health
from appliance.engine.mirror.superblock import TEXT_BYTES_MAX, Superblock, format_drive
from appliance.system.files import DirectoryVolume

ScrubOf = Callable[[str, ScrubOrder], Awaitable[ScrubReport]]
OrderOf = Callable[[str, str, object], Awaitable[None]]
"""Tells the store of a mirror what an operator wants of one of its chores."""

CLAIM_STEPS: Final = 4
MIRROR_MEMBERS: Final = 2
_ID_BYTES: Final = 16


async def no_health(mirror: str) -> Health | None:
    """Where no store can be asked."""
    return None


async def no_scrub(mirror: str, order: ScrubOrder) -> ScrubReport:
    """Where no store can be asked."""
    raise Unavailable(f"the store of mirror {mirror} does not answer")


async def no_order(mirror: str, what: str, _message: object) -> None:
    """Where no store can be told."""
    raise Unavailable(f"cannot {what} mirror {mirror}: its store cannot be reached")


class Disks:
    """Used from one event loop. ``start`` before anything else, ``close`` at the end."""

    def __init__(
        self,
        bay: Bay,
        *,
        mirrors_directory: Path,
        make_mirror: MirrorMaker,
        clock: Clock,
        entropy: Entropy,
        owners: Owners | None = None,
        health_of: HealthOf = no_health,
        scrub_of: ScrubOf = no_scrub,
        override: Override = no_override,
        order: OrderOf = no_order,
        spare_policy: SparePolicy | None = None,
        trim_policy: TrimPolicy | None = None,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._bay = bay
        self._mirrors_directory = mirrors_directory
        self._make_mirror = make_mirror
        self._clock = clock
        self._entropy = entropy
        self._owners = owners
        self._health_of = health_of
        self._scrub_of = scrub_of
        self._override = override
        self._book = JobBook(clock, entropy)
        self._reality = Reality(bay, mirrors_directory, owners)
        self._resyncs = reports.Resyncs(clock)
        self._order = order
        self._succession = Succession(
            self._reality,
            self._book,
            health_of,
            clock,
            spare_policy or SparePolicy(),
            look_every_s=look_every_s,
        )
        self._trimming = Trimming(self._reality, bay, clock, trim_policy or TrimPolicy())

    async def start(self) -> None:
        """Every drive of ours that is there is in its place on return; later ones follow live."""
        await self._reality.start()
        self._succession.start()
        self._trimming.start()

    async def close(self) -> None:
        """Stop watching and working. Mounts stay: the stores outlive this process."""
        await self._trimming.close()
        await self._succession.close()
        await self._book.close()
        await self._reality.close()

    async def ensure(self) -> bool:
        """Put reality in order now. True when anything changed."""
        return await self._reality.ensure()

    # -- what a store asks

    def mirrors(self) -> list[str]:
        """Names of the mirrors known."""
        return sorted(self._reality.assemblies)

    def was_made(self, name: str) -> bool:
        """Whether this machine made such a mirror once, be its drives there or away."""
        return self._witness_file(name).exists()

    def assembly(self, mirror: str) -> Assembly:
        """Where the mirror's drives are now. Raises ``NotFound``."""
        return self._reality.assembly(mirror)

    async def assembled(self, mirror: str) -> Assembly:
        """Wait until at least one drive of the mirror is there."""
        return await self._reality.assembled(mirror)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Be called, on the event loop, with every changed assembly. The result unsubscribes."""
        return self._reality.subscribe(subscriber)

    def report_failed(self, drive_id: str, reason: str) -> None:
        """A store gave a drive up: mount it afresh as soon as that is possible."""
        self._reality.report_failed(drive_id, reason)

    @property
    def present(self) -> Mapping[str, PresentDrive]:
        """Drives of ours that are in their places, by drive id."""
        return self._reality.present

    # -- claim

    async def claim(self, identity: str, *, force_serial: str | None = None) -> Job:
        """Start formatting a drive; one that is claimed and free already is left as it is.

        Raises ``InvalidInput``, ``NotFound``, ``Refused`` with every reason.
        """
        reality = self._reality
        async with reality.lock:
            drive = resolve(await reality.scan(fresh=True), identity)
            if drive.node in reality.formatting:
                raise Refused(f"cannot claim {drive.identity}: it is being formatted already")
            present = reality.present.get(drive.drive_id)
            if present is not None and force_serial is None and present.passport.is_free:
                return self._book.ended(f"claim {drive.identity}", drive.drive_id)
            free = reports.without_own_mount(drive, present)
            detached = present is not None and await self._is_detached(present)
            reports.must_be_claimable(free, reality.present, force_serial, detached=detached)
            if present is not None:
                await reality.put_out(drive.drive_id)
            reality.formatting.add(drive.node)
        return self._book.start(
            f"claim {drive.identity}", partial(self._format, free), total=CLAIM_STEPS
        )

    async def _is_detached(self, present: PresentDrive) -> bool:
        """Whether its store keeps it out for good: then no mirror loses a copy by a claim."""
        if present.passport.mirror is None:
            return False
        health = await self._health_of(present.passport.mirror.name)
        members = health.members if health is not None else ()
        return any(each.drive_id == present.passport.drive_id and each.detached for each in members)

    async def _format(self, drive: Drive, handle: JobHandle) -> str:
        """Crash points: anywhere before the passport the drive is one of ours without a passport;
        it is shown as faulty and can be claimed again with its serial typed."""
        reality = self._reality
        drive_id = self._new_id()
        try:
            await reality.blocking(
                partial(self._bay.format, drive, drive_id, handle.step), deadline_s=BLOCKING_S_MAX
            )
            handle.step("mounting it")
            ours = reports.formatted(drive, drive_id)
            path = await reality.blocking(partial(self._bay.mount, ours))
            handle.step("writing its passport")
            passport = Passport(drive_id, _cut(drive.serial), drive.model, self._clock.now_ns())
            await reality.blocking(partial(self._furnish, path, passport))
        finally:
            reality.formatting.discard(drive.node)
        await reality.ensure()
        return drive_id

    def _new_id(self) -> str:
        """Hexadecimal, and a valid random UUID, because it becomes the file system's."""
        return uuid.UUID(bytes=self._entropy.token(_ID_BYTES), version=4).hex

    def _furnish(self, path: Path, passport: Passport) -> None:
        superblock = Superblock(
            passport.drive_id,
            serial=passport.serial,
            label=label_of(passport.drive_id),
            created_ns=passport.claimed_ns,
        )
        with closing(DirectoryVolume(path, passport.drive_id)) as volume:
            format_drive(volume, superblock)
        share_staging(path, self._owners)
        give_tree_to_store(path, self._owners)
        write_passport(path, passport)

    # -- mirrors

    async def create_mirror(self, name: str, identities: Sequence[str]) -> MirrorReport:
        """Make a mirror of two claimed drives. Raises ``InvalidInput``, ``NotFound``, ``Refused``.

        Crash points: (1) some engine files: both drives are still free, the next creation starts
        over under the same mirror id (2) all engine files: the next creation only writes passports
        (3) first passport: it lists both, the mirror exists (4) second passport.
        """
        reports.must_be_mirror_name(name)
        reality = self._reality
        async with reality.lock:
            drives = await reality.scan()
            chosen = [self._free_drive(drives, identity) for identity in identities]
            ids = {each.passport.drive_id for each in chosen}
            if len(ids) != len(chosen) or len(chosen) != MIRROR_MEMBERS:
                raise InvalidInput("cannot create the mirror: it takes two different drives")
            if name in reality.assemblies:
                raise Refused(f"cannot create the mirror {name!r}: it exists; choose another name")
            new = await reality.blocking(partial(self._new_mirror, name, chosen))
            sizes = {each.drive_id: each.size_bytes for each in drives}
            capacity = min(sizes[drive_id] for drive_id in ids)
            creating = partial(self._create, new, chosen, capacity)
            await reality.blocking(creating, deadline_s=BLOCKING_S_MAX)
            await reality.reread(chosen)
        return await self._mirror_report(name)

    async def resolve(self, name: str, choice: Choice, identity: str = "") -> MirrorReport:
        """Decide what the mirror waits for. Raises ``NotFound``, ``InvalidInput``, ``Refused`` for
        what it does not wait for, ``Unavailable``."""
        assembly = self.assembly(name)
        await decide(assembly, choice, identity, health_of=self._health_of, override=self._override)
        return await self._mirror_report(name)

    def _free_drive(self, drives: Sequence[Drive], identity: str) -> PresentDrive:
        drive = resolve(drives, identity)
        present = self._reality.present.get(drive.drive_id)
        if present is None:
            raise Refused(
                f"cannot put {drive.identity} into a mirror: it is not claimed; "
                f"run `appliance drive claim {drive.identity}` first"
            )
        if not present.passport.is_free:
            raise Refused(f"cannot put {drive.identity} into a mirror: {present.passport.station}")
        return present

    def _new_mirror(self, name: str, chosen: Sequence[PresentDrive]) -> NewMirror:
        members = tuple(
            NewMember(each.passport.drive_id, each.passport.serial, each.path) for each in chosen
        )
        mirror_id = unfinished_mirror_id(chosen) or self._new_id()
        index_directory = self._mirrors_directory / name / "index"
        return NewMirror(name, mirror_id, members, index_directory, self._witness_file(name))

    def _witness_file(self, name: str) -> Path:
        return self._mirrors_directory / name / "witness" / "witness"

    def _create(self, new: NewMirror, chosen: Sequence[PresentDrive], capacity_bytes: int) -> None:
        made = made_mirror_id(new.witness_file)
        if made not in {"", new.mirror_id}:
            # Its witness is a vote that its drives will need when they come back.
            raise Refused(
                f"cannot create the mirror {new.name!r}: there is one of that name whose "
                "drives are away; attach them, or choose another name"
            )
        for directory in (new.index_directory, new.witness_file.parent):
            give_to_store(directory, self._owners)
        if not made:
            self._make_mirror(new)
        for root in (*(each.path for each in chosen), new.witness_file.parent):
            give_tree_to_store(root, self._owners)
        members = tuple((each.drive_id, each.serial) for each in new.members)
        membership = Membership(new.mirror_id, new.name, members, capacity_bytes=capacity_bytes)
        for each in chosen:
            write_passport(each.path, each.passport.joined(membership))

    # -- drives that take another's place

    async def replace(self, mirror: str, old: str, new: str) -> Job:
        """See ``Succession.replace``."""
        return await self._succession.replace(mirror, old, new)

    async def add_spare(self, mirror: str, identity: str) -> MirrorReport:
        """See ``Succession.add_spare``."""
        await self._succession.add_spare(mirror, identity)
        return await self._mirror_report(mirror)

    async def remove_spare(self, mirror: str, identity: str) -> MirrorReport:
        """See ``Succession.remove_spare``."""
        await self._succession.remove_spare(mirror, identity)
        return await self._mirror_report(mirror)

    async def pause_resync(self, mirror: str, *, paused: bool) -> MirrorReport:
        """Hold, or go on, bringing drives in. Raises ``NotFound``, ``Unavailable``."""
        self.assembly(mirror)
        await self._order(mirror, "resync", "pause" if paused else "resume")
        return await self._mirror_report(mirror)

    # -- reports

    async def drive_reports(self) -> Sequence[DriveReport]:
        """Every drive the machine shows now."""
        async with self._reality.lock:
            drives = await self._reality.scan()
        told = [await self._health_of(name) for name in self.mirrors()]
        words = {
            member.drive_id: member.reason
            for health in told
            if health is not None
            for member in health.members
            if member.in_sync and member.reason
        }
        return [
            reports.with_advice(self._drive_report(drive), words.get(drive.drive_id, ""))
            for drive in drives
        ]

    def _drive_report(self, drive: Drive) -> DriveReport:
        reality = self._reality
        if drive.node in reality.formatting:
            return DriveReport(drive, DriveState.FORMATTING)
        return reports.drive_report(
            drive, reality.present.get(drive.drive_id), reality.troubles.get(drive.node)
        )

    async def mirror_reports(self) -> Sequence[MirrorReport]:
        """Every mirror known, with its store's word where that answers."""
        return [await self._mirror_report(name) for name in self.mirrors()]

    async def _mirror_report(self, name: str) -> MirrorReport:
        health = await self._health_of(name)
        report = reports.mirror_report(
            self.assembly(name), health, self._resyncs, self._reality.present
        )
        if health is None:
            return report
        with contextlib.suppress(ApplianceError):
            scrub = await self._scrub_of(name, ScrubOrder.LOOK)
            report = dataclasses.replace(report, scrub=scrub)
        return report

    async def scrub(self, name: str, order: ScrubOrder) -> ScrubReport:
        """Begin, pause, resume or cancel a mirror's scrub, or look at it. Raises ``NotFound``,
        ``Refused``, ``Unavailable``."""
        self.assembly(name)
        return await self._scrub_of(name, order)

    def jobs(self) -> Sequence[Job]:
        """Running jobs and the last ended ones, oldest first."""
        return self._book.all()

    def job(self, job_id: str) -> Job:
        """Raises ``NotFound``."""
        return self._book.get(job_id)


def _cut(text: str) -> str:
    """What a superblock has room for: a loop device's serial is a file name of any length."""
    return text.encode()[:TEXT_BYTES_MAX].decode(errors="ignore")
