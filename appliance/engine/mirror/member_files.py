"""What a client has open of the mirror's members: for reading, and for staging.

Owns volumes, drive readers, staging claims and writer threads, one set per drive and generation.
Invariant: a drive that left is no longer offered, and whoever waits for it is told; what is open on
it is closed once nobody has been given it for a while, so that no mount is held for ever.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.core.errors import DriveFault, Unavailable
from appliance.core.ports import Volume
from appliance.engine.mirror.index import IndexReader
from appliance.engine.mirror.messages import MembersView
from appliance.engine.mirror.reader import DriveReader
from appliance.engine.mirror.staged_files import StagingMember
from appliance.engine.mirror.staging_lock import StagingClaim, claim_staging
from appliance.system.files import DirectoryVolume

WRITER_THREADS: Final = 4

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DriveFiles:
    """One drive, open. ``claim`` is None where this process may not stage."""

    generation: int
    path: str
    volume: Volume
    reader: DriveReader
    claim: StagingClaim | None
    threads: ThreadPoolExecutor


class MemberFiles:
    """``open`` and ``close`` block; the rest belongs to the event loop."""

    def __init__(self, directory: str) -> None:
        self.directory: Final = directory
        """This process's staging directory on each drive."""
        self._drives: dict[str, DriveFiles] = {}
        self._retired: list[DriveFiles] = []
        self._resting: list[DriveFiles] = []
        self._staging: dict[str, StagingMember] = {}
        self._index_path = ""

    def open(self, view: MembersView) -> Mapping[str, DriveFiles]:
        """Open what is new among the members. Raises ``DriveFault`` when none can be opened."""
        drives: dict[str, DriveFiles] = {}
        fault: DriveFault | None = None
        for member in view.members:
            known = self._drives.get(member.drive)
            if known is not None and (known.generation, known.path) == (
                member.generation,
                member.path,
            ):
                drives[member.drive] = known
                continue
            try:
                drives[member.drive] = self._open_drive(
                    member.drive, member.path, member.generation, view.mirror_id
                )
            except DriveFault as error:
                fault = error
                _log.warning("drive %s cannot be opened: %s", member.drive, error)
        if not drives and fault is not None:
            raise fault
        self._retired += [
            files for drive, files in self._drives.items() if drives.get(drive) is not files
        ]
        self._drives = drives
        self._index_path = view.index_path
        return drives

    def _open_drive(self, drive: str, path: str, generation: int, mirror_id: bytes) -> DriveFiles:
        volume = DirectoryVolume(path, drive)
        try:
            claim: StagingClaim | None = claim_staging(Path(path), self.directory)
        except DriveFault as fault:
            claim = None
            _log.info("nothing can be staged on drive %s: %s", drive, fault)
        threads = ThreadPoolExecutor(WRITER_THREADS, thread_name_prefix=f"staging {drive}")
        return DriveFiles(
            generation, path, volume, DriveReader(drive, volume, mirror_id), claim, threads
        )

    def open_index(self) -> IndexReader:
        """A connection for the calling thread. Raises ``Unavailable``."""
        try:
            return IndexReader(self._index_path)
        except DriveFault as fault:
            raise Unavailable(f"the index cannot be opened: {fault}") from fault

    def staging_members(self) -> Mapping[str, StagingMember]:
        """The in-sync drives this process may stage on."""
        return self._staging

    def show_staging(self, view: MembersView, drives: Mapping[str, DriveFiles]) -> None:
        """Offer these drives from now on; those that left tell whoever waits for them."""
        before = self._staging
        self._staging = {}
        for member in view.members:
            files = drives.get(member.drive)
            if files is None or files.claim is None or not member.in_sync:
                continue
            known = before.get(member.drive)
            if known is not None and known.generation == member.generation:
                self._staging[member.drive] = known
                continue
            gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._staging[member.drive] = StagingMember(
                member.drive, member.generation, files.volume, files.threads, gone
            )
        for drive, member_before in before.items():
            if self._staging.get(drive) is not member_before and not member_before.gone.done():
                member_before.gone.set_result(None)

    def close_retired(self) -> None:
        """Close what left the mirror before the last call of this; called now and then. The threads
        stay for uploads that still write there. In a thread of its own: a drive that failed may
        hang in this too."""
        closing, self._resting, self._retired = self._resting, self._retired, []
        if closing:
            name = f"retire {closing[0].volume.name}"
            threading.Thread(target=_close_all, args=(closing,), name=name, daemon=True).start()

    def close(self) -> None:
        """Blocking. After the last read; a staging directory is the collector's from here on."""
        away = [*self._retired, *self._resting]
        for files in [*self._drives.values(), *away]:
            files.threads.shutdown(wait=files not in away)
        _close_all([*self._drives.values(), *away])
        self._drives, self._retired, self._resting = {}, [], []


def _close_all(drives: Sequence[DriveFiles]) -> None:
    for files in drives:
        files.volume.close()
        files.reader.close()
        if files.claim is not None:
            files.claim.close()
