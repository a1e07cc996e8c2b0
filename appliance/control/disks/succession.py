"""Drives that take another's place: at an operator's word, or a spare by itself.

Owns the carrying out. What is wanted lies in the passports of the mirror's drives, so that it
survives this process and goes where the drives go; ``ensure`` reads it and the stores' word, and
does what is due, whenever and how often it is called. Refuses what ``replacement`` refuses.

Crash points of a replacement: (1) the change of membership on some passports: ``Reality`` brings
the others up to the newest (2) on all: the store copies, begun again by each of its starts (3) the
new drive in sync by the mirror's epoch: the next ``ensure`` ends it (4) the end on some passports:
as 1; the drive that was replaced is detached, with all it holds, when it is seen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from appliance.control.disks import replacement
from appliance.control.disks.assembly import Assembly
from appliance.control.disks.jobs import JobBook, JobHandle
from appliance.control.disks.passport import write_passport
from appliance.control.disks.reality import Reality
from appliance.control.disks.replacement import SparePolicy, Watch
from appliance.core.drives import Drive, resolve
from appliance.core.errors import ApplianceError, Refused
from appliance.core.jobs import Job
from appliance.core.ports import Clock
from appliance.engine.interface import Health
from appliance.runtime.complaints import Complaints

HealthOf = Callable[[str], Awaitable[Health | None]]

LOOK_EVERY_S: Final = 1.0
AFTER_A_MISTAKE_S: Final = 30.0

_log = logging.getLogger(__name__)


class Succession:
    """Used from one event loop."""

    def __init__(
        self,
        reality: Reality,
        book: JobBook,
        health_of: HealthOf,
        clock: Clock,
        policy: SparePolicy,
        *,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._look_every_s = look_every_s
        self._reality = reality
        self._book = book
        self._health_of = health_of
        self._clock = clock
        self._watch = Watch(policy)
        self._jobs: dict[tuple[str, str], Job] = {}
        """The job of each replacement under way, by mirror and new drive."""
        self._complaints = Complaints(_log)
        self._keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look regularly from now on."""
        self._keeper = asyncio.create_task(self._keep(), name="succession")

    async def close(self) -> None:
        """Stop looking. Idempotent."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None

    # -- at an operator's word

    async def replace(self, mirror: str, old_identity: str, new_identity: str) -> Job:
        """Let a claimed drive take the place of a member, which stays until the new one counts.
        Idempotent. Raises ``NotFound``, ``InvalidInput``, ``Refused``."""
        reality = self._reality
        async with reality.lock:
            drives = await reality.scan()
            assembly = reality.assembly(mirror)
            old = replacement.member_of(assembly.membership, old_identity, drives)
            drive = resolve(drives, new_identity)
            if not replacement.must_not_be_under_way(assembly, old, drive.drive_id):
                await self._begin(assembly, old, drive, drives)
        return self._follow(reality.assembly(mirror))

    async def add_spare(self, mirror: str, identity: str) -> bool:
        """Keep a claimed drive ready for a mirror. Whether that changed anything. Raises
        ``NotFound``, ``Refused``."""
        reality = self._reality
        async with reality.lock:
            drives = await reality.scan()
            assembly = reality.assembly(mirror)
            drive = resolve(drives, identity)
            if any(drive.drive_id == spare for spare, _ in assembly.membership.spares):
                return False
            needed = replacement.needed_bytes(assembly, _sizes(drives))
            present = replacement.must_suit(
                drive, reality.present.get(drive.drive_id), assembly.membership, needed
            )
            spare = (present.passport.drive_id, present.passport.serial)
            await reality.change(replacement.with_spare(assembly.membership, spare))
        return True

    async def remove_spare(self, mirror: str, identity: str) -> bool:
        """Free a spare. It is claimed and empty afterwards. Raises ``NotFound``."""
        reality = self._reality
        async with reality.lock:
            drives = await reality.scan()
            assembly = reality.assembly(mirror)
            spare = replacement.spare_of(assembly.membership, identity, drives)
            present = reality.present.get(spare)
            await reality.change(replacement.without_spare(assembly.membership, spare))
            if present is not None:
                # Nothing was ever written to it: it is free, not detached.
                passport = present.passport.freed()
                await reality.blocking(partial(write_passport, present.path, passport))
                await reality.reread([present])
        return True

    async def _begin(
        self, assembly: Assembly, old: str, drive: Drive, drives: Sequence[Drive]
    ) -> None:
        """The lock is held."""
        needed = replacement.needed_bytes(assembly, _sizes(drives))
        present = replacement.must_suit(
            drive, self._reality.present.get(drive.drive_id), assembly.membership, needed
        )
        new = (present.passport.drive_id, present.passport.serial)
        await self._reality.change(replacement.begun(assembly.membership, old, new))

    # -- by itself

    async def _keep(self) -> None:
        while True:
            try:
                await self.ensure()
                self._complaints.over("ensure")
            except ApplianceError as error:
                self._complaints.say("ensure", str(error))
            except Exception:  # noqa: BLE001 - a mistake of ours must not cost the mirror its spare
                _log.exception("replacements cannot be looked after; tried again soon")
                await asyncio.sleep(AFTER_A_MISTAKE_S)
            await asyncio.sleep(self._look_every_s)

    async def ensure(self) -> bool:
        """Do what is due: end replacements that are done, begin with spares. True when anything
        changed."""
        changed = False
        for mirror in list(self._reality.assemblies):
            health = await self._health_of(mirror)
            if health is not None:
                changed = await self._ensure_mirror(mirror, health) or changed
        return changed

    async def _ensure_mirror(self, mirror: str, health: Health) -> bool:
        reality = self._reality
        assembly = reality.assembly(mirror)
        if assembly.membership.joining:
            self._follow(assembly)
        if not replacement.is_done(assembly, health):
            return await self._use_spare(assembly, health)
        async with reality.lock:
            sizes = _sizes(await reality.scan())
            assembly = reality.assembly(mirror)
            if not replacement.is_done(assembly, health):
                return False  # changed while we waited for the lock
            outgoing = {old for _, old in assembly.membership.joining}
            staying = [each for each, _ in assembly.membership.members if each not in outgoing]
            capacity = assembly.membership.capacity_bytes
            if all(drive in sizes for drive in staying):
                capacity = min(sizes[drive] for drive in staying)
            await reality.change(replacement.ended(assembly.membership, capacity))
            _log.info("mirror %s: drive %s was replaced", mirror, ", ".join(outgoing))
        await reality.ensure()
        return True

    async def _use_spare(self, assembly: Assembly, health: Health) -> bool:
        old = self._watch.due(assembly, health, self._clock.monotonic_s())
        if not old or not assembly.membership.spares:
            return False
        reality = self._reality
        async with reality.lock:
            drives = await reality.scan()
            assembly = reality.assembly(assembly.mirror)
            needed = replacement.needed_bytes(assembly, _sizes(drives))
            ready = {each: size for each, size in _sizes(drives).items() if each in reality.present}
            spare = replacement.best_spare(assembly.membership, ready, needed)
            if assembly.membership.joining or spare is None:
                if spare is None:
                    self._complaints.say(
                        f"spare {assembly.mirror}",
                        f"mirror {assembly.mirror}: no spare is there and large enough to take the "
                        f"place of {old}",
                    )
                return False
            self._complaints.over(f"spare {assembly.mirror}")
            drive = next(each for each in drives if each.drive_id == spare[0])
            await self._begin(assembly, old, drive, drives)
        _log.warning("mirror %s: spare %s takes the place of %s", assembly.mirror, spare[0], old)
        self._follow(reality.assembly(assembly.mirror))
        return True

    # -- telling

    def _follow(self, assembly: Assembly) -> Job:
        """The job of the replacement under way, begun if this process does not know it yet."""
        ((new, old), *_) = assembly.membership.joining
        key = (assembly.mirror, new)
        job = self._jobs.get(key)
        if job is None or self._book.get(job.id).ended:
            title = f"replace drive {old} by {new} in mirror {assembly.mirror}"
            job = self._jobs[key] = self._book.start(title, partial(self._wait, key, old))
        return self._book.get(job.id)

    async def _wait(self, key: tuple[str, str], old: str, handle: JobHandle) -> str:
        mirror, new = key
        while True:
            membership = self._reality.assembly(mirror).membership
            if (new, old) not in membership.joining:
                self._jobs.pop(key, None)
                if new in dict(membership.members):
                    return new
                raise Refused(f"another drive takes the place of {old} instead of {new}")
            health = await self._health_of(mirror)
            if health is not None and health.resync_drive == new:
                handle.tell(_step(health), health.resync_done, health.resync_total)
            elif health is not None:
                handle.tell("waiting for the store", 0, 0)
            await asyncio.sleep(self._look_every_s)


def _step(health: Health) -> str:
    if health.resync_paused:
        return "paused"
    return "copying" if health.resync_done < health.resync_total else "comparing"


def _sizes(drives: Sequence[Drive]) -> dict[str, int]:
    return {drive.drive_id: drive.size_bytes for drive in drives if drive.drive_id}
