"""Reality: which drives of ours are in their places now, and which mirrors they make.

Owns the one lock under which drives are looked at and changed, and the worker that events wake.
Refuses to guess: what to do is decided by ``plan``. ``ensure`` reads, compares, acts; it may be
called at any time. Invariant: subscribers see every change of an assembly, and see a drive go
before it comes back.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from appliance.control.disks.assembly import (
    Assembly,
    PresentDrive,
    assemble,
    corrected,
    emptied,
)
from appliance.control.disks.bay import Bay
from appliance.control.disks.passport import Membership, read_passport, write_passport
from appliance.control.disks.permissions import Owners, give_to_store, take_over_tree
from appliance.control.disks.plan import Plan, Trouble, decide, doubtful
from appliance.core.drives import Drive
from appliance.core.errors import ApplianceError, DriveFault, DriveTimeout, NotFound
from appliance.runtime.complaints import Complaints

T = TypeVar("T")
Subscriber = Callable[[Assembly], None]

ROUNDS_MAX: Final = 4
"""One ``ensure`` plans again after acting; what is not settled then waits for the next wake."""
RETRY_S_MIN: Final = 1.0
RETRY_S_MAX: Final = 60.0
BLOCKING_S_MAX: Final = 1200.0
"""Formatting a large SSD is the longest call; anything beyond is a device that hangs."""
LOOK_S_MAX: Final = 150.0
TAKE_OVER_S_MAX: Final = 3600.0
"""Millions of files change hands; only once, on a new server."""
_WORKERS: Final = 16

_log = logging.getLogger(__name__)


class Reality:
    """Used from one event loop."""

    def __init__(self, bay: Bay, mirrors_directory: Path, owners: Owners | None) -> None:
        self.lock = asyncio.Lock()
        self.present: dict[str, PresentDrive] = {}
        self.troubles: dict[str, Trouble] = {}
        self.formatting: set[str] = set()
        self._bay = bay
        self._mirrors_directory = mirrors_directory
        self._owners = owners
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="disks")
        self._complaints = Complaints(_log)
        self._wake = asyncio.Event()
        self._published = asyncio.Condition()
        self._worker: asyncio.Task[None] | None = None
        self._assemblies: dict[str, Assembly] = {}
        self._subscribers: list[Subscriber] = []
        self._reported: dict[str, str] = {}
        self._mount_count = 0
        self._closed = False
        self._retry_s = RETRY_S_MIN
        self._stumbled = False

    async def start(self) -> None:
        """Listen first, then look, so that nothing falls between; then keep reality in order."""
        loop = asyncio.get_running_loop()

        def wake() -> None:
            loop.call_soon_threadsafe(self._wake.set)

        self._bay.watch(wake)
        await self.ensure()
        self._worker = asyncio.create_task(self._keep(), name="disks")

    async def close(self) -> None:
        """Stop watching. Mounts stay: the stores outlive this process. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        await self.blocking(self._bay.close)
        self._workers.shutdown(wait=False, cancel_futures=True)

    async def blocking(self, call: Callable[[], T], *, deadline_s: float = LOOK_S_MAX) -> T:
        """Run on a worker thread. Raises ``DriveTimeout``; the thread is then left to its fate, so
        that a drive that hangs stalls one thread and nothing else."""
        future = asyncio.get_running_loop().run_in_executor(self._workers, call)
        future.add_done_callback(_forget)
        try:
            async with asyncio.timeout(deadline_s):
                return await asyncio.shield(future)
        except TimeoutError as error:
            raise DriveTimeout("in the bay", "waiting", errno.ETIMEDOUT) from error

    # -- keeping in order

    async def _keep(self) -> None:
        while True:
            retry_s = self._retry_s if self._needs_retry() else None
            try:
                async with asyncio.timeout(retry_s):
                    await self._wake.wait()
                self._retry_s = RETRY_S_MIN
            except TimeoutError:
                self._retry_s = min(RETRY_S_MAX, self._retry_s * 2)
            self._wake.clear()
            try:
                await self.ensure()
                self._complaints.over("all")
                self._stumbled = False
            except ApplianceError as error:
                self._complaints.say("all", str(error))
            except Exception:  # noqa: BLE001 - after a mistake of ours drives still come and go
                _log.exception("drives cannot be looked after; tried again soon")
                self._stumbled = True

    def _needs_retry(self) -> bool:
        return self._stumbled or any(trouble.retry for trouble in self.troubles.values())

    async def ensure(self) -> bool:
        """Mount what came, unmount what went, tell who must know. True when anything changed."""
        changed = False
        async with self.lock:
            for _ in range(ROUNDS_MAX):
                acted = await self._act(await self._look())
                changed = changed or acted
                if not acted:
                    break
        return changed

    async def scan(self, *, fresh: bool = False) -> list[Drive]:
        """Every drive there is now. The lock is held by the caller."""
        return await self.blocking(partial(self._bay.scan, fresh=fresh))

    async def _look(self) -> Plan:
        # A drive that is being claimed is its job's alone, its mount included. Nodes are only added
        # under the lock, which is held here.
        others = frozenset(self.formatting)
        drives = [each for each in await self.scan() if each.node not in others]
        places = await self.blocking(self._bay.mounted)
        mounted = {each: place for each, place in places.items() if place.node not in others}
        suspects = doubtful(drives, mounted)
        calls = [self.blocking(partial(self._bay.answers, drive)) for drive in suspects]
        heard = await asyncio.gather(*calls, return_exceptions=True)
        answering = {
            drive.node for drive, answer in zip(suspects, heard, strict=True) if answer is True
        }
        plan = decide(drives, mounted, answering, self._reported)
        self._complain(plan.troubles)
        self.troubles = {trouble.node: trouble for trouble in plan.troubles}
        if not plan.unmounts:
            # Mounts that an earlier life of this process made.
            for drive in drives:
                if drive.drive_id in mounted and drive.drive_id not in self.present:
                    await self._admit(drive, mounted[drive.drive_id].path)
        return plan

    def _complain(self, troubles: Sequence[Trouble]) -> None:
        for each in troubles:
            self._complaints.say(
                f"{each.node} left alone", f"drive {each.drive_id} at {each.node}: {each.why}"
            )
        for node in self.troubles.keys() - {each.node for each in troubles}:
            self._complaints.over(f"{node} left alone")

    async def _act(self, plan: Plan) -> bool:
        acted = False
        for each in plan.unmounts:
            _log.warning("drive %s: %s", each.drive_id, each.why)
            self._reported.pop(each.drive_id, None)
            await self.put_out(each.drive_id)
            acted = True
        await self.publish()
        for drive in plan.mounts:
            acted = await self._take_in(drive) or acted
        await self.publish()
        return acted

    async def put_out(self, drive_id: str) -> None:
        """Take a drive's place away. The lock is held by the caller."""
        self.present.pop(drive_id, None)
        await self.blocking(partial(self._bay.unmount, drive_id))

    async def _take_in(self, drive: Drive) -> bool:
        try:
            path = await self.blocking(partial(self._bay.mount, drive))
        except DriveFault as fault:
            self._note_fault(drive, fault)
            return False
        return await self._admit(drive, path)

    async def _admit(self, drive: Drive, path: Path) -> bool:
        """Read the passport of a mounted drive; one that cannot be read is put out again."""
        try:
            passport = await self.blocking(partial(read_passport, path))
            if passport.drive_id != drive.drive_id:
                raise DriveFault(drive.identity, "admission", 0, "its passport is another drive's")
            if passport.mirror is not None:
                take_over = partial(take_over_tree, path, self._owners)
                if await self.blocking(take_over, deadline_s=TAKE_OVER_S_MAX):
                    _log.info("drive %s came from another server", drive.drive_id)
        except DriveFault as fault:
            self._note_fault(drive, fault)
            await self.put_out(drive.drive_id)
            return False
        self._mount_count += 1
        self.present[drive.drive_id] = PresentDrive(passport, path, self._mount_count)
        self._complaints.over(drive.node)
        _log.info("drive %s (%s) is in its place", drive.drive_id, drive.identity)
        return True

    def _note_fault(self, drive: Drive, fault: DriveFault) -> None:
        self._complaints.say(drive.node, str(fault))
        # What the device answered plainly, such as that there is no passport, time will not cure.
        retry = fault.errno not in {0, errno.ENOENT}
        self.troubles[drive.node] = Trouble(drive.node, drive.drive_id, str(fault), retry=retry)

    async def _complete_passports(self) -> bool:
        """Passports that a change of their mirror overtook, or that a crash in one left behind, are
        brought up to the newest. Whether any was."""
        changed = False
        for drive_id, drive in list(self.present.items()):
            passport = corrected(drive, self._assemblies.values())
            if passport is not None:
                await self.blocking(partial(write_passport, drive.path, passport))
                self.present[drive_id] = replace(drive, passport=passport)
                changed = True
        return changed

    async def change(self, membership: Membership) -> None:
        """A mirror's membership is this from now on: durable on every present drive it lists, the
        members first, before anybody is told. The lock is held by the caller. Raises ``DriveFault``
        if no member takes it.

        Crash points: after each passport; the newest one counts, and the next look brings the
        others up to it. A drive that is no longer listed is detached by that look."""
        taken = 0
        fault: DriveFault | None = None
        for drive_id, _ in (*membership.members, *membership.spares):
            drive = self.present.get(drive_id)
            if drive is None:
                continue
            passport = drive.passport.joined(membership)
            try:
                await self.blocking(partial(write_passport, drive.path, passport))
            except DriveFault as error:
                fault = error
                continue
            self.present[drive_id] = replace(drive, passport=passport)
            taken += 1
        if fault is not None and not taken:
            raise fault
        await self.publish()

    async def reread(self, drives: Sequence[PresentDrive]) -> None:
        """Passports were rewritten. The lock is held by the caller."""
        for drive in drives:
            passport = await self.blocking(partial(read_passport, drive.path))
            self.present[passport.drive_id] = PresentDrive(passport, drive.path, drive.mount)
        await self.publish()

    async def publish(self) -> None:
        """Tell subscribers of every assembly that is not as it was told last."""
        known = [assembly.membership for assembly in self._assemblies.values()]
        fresh = assemble(self.present.values(), self._mirrors_directory, known)
        for name, old in self._assemblies.items():
            if name not in fresh:
                # All its drives are away; the mirror is still known.
                fresh[name] = emptied(old)
        changed = [each for name, each in fresh.items() if self._assemblies.get(name) != each]
        self._assemblies = fresh
        await self._complete_passports()
        for each in changed:
            await self.blocking(partial(self._prepare_home, each))
            for subscriber in list(self._subscribers):
                subscriber(each)
        async with self._published:
            self._published.notify_all()

    def _prepare_home(self, assembly: Assembly) -> None:
        for directory in (assembly.index_directory, assembly.witness_file.parent):
            give_to_store(directory, self._owners)

    # -- what a store asks

    @property
    def assemblies(self) -> Mapping[str, Assembly]:
        """Every mirror known, by name."""
        return self._assemblies

    def assembly(self, mirror: str) -> Assembly:
        """Where the mirror's drives are now. Raises ``NotFound``."""
        found = self._assemblies.get(mirror)
        if found is None:
            raise NotFound(
                f"cannot find the mirror {mirror!r}: no drive of it is attached; "
                "`appliance mirror status` shows what is known"
            )
        return found

    async def assembled(self, mirror: str) -> Assembly:
        """Wait until at least one drive of the mirror is there."""

        def there() -> bool:
            return mirror in self._assemblies and bool(self._assemblies[mirror].members)

        async with self._published:
            await self._published.wait_for(there)
            return self._assemblies[mirror]

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Be called, on the event loop, with every changed assembly. The result unsubscribes."""
        self._subscribers.append(subscriber)
        return partial(self._subscribers.remove, subscriber)

    def report_failed(self, drive_id: str, reason: str) -> None:
        """A store gave a drive up. Its mount is replaced by a fresh one, once nobody holds the old
        one open and the device answers; until then it counts as absent."""
        self._reported[drive_id] = reason
        self._wake.set()


def _forget(future: asyncio.Future[T]) -> None:
    """Nobody may be waiting for the outcome any more."""
    if not future.cancelled():
        future.exception()
