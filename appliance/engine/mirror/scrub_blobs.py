"""A scrub of blob files: every chunk of every copy, and which files are there at all.

Owns the judgement of blob files. Refuses to delete anything itself: a file nobody owns is looked at
again, and dropped, by the committer. Invariant: the cursor passes a blob when every drive's copy
verified, was mended from one that did, or was counted as lost.

A blob released meanwhile is no error: its owner is asked for again before anything is said of it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from appliance.core.errors import DataLost, DriveFault
from appliance.engine.mirror.adoption import copy_blob, unlink_quietly
from appliance.engine.mirror.blob import BLOB_ID_BYTES, blob_id_of, blob_path, file_bytes
from appliance.engine.mirror.format import FileBlob
from appliance.engine.mirror.index import IndexReader
from appliance.engine.mirror.mend import MENDED_SUFFIX, Mend, blob_directories
from appliance.engine.mirror.scrub_kit import Kit, Recycled
from appliance.engine.mirror.scrub_looks import BlobLooks, Copies, Copy

PAGE: Final = 500
ATTEMPTS: Final = 3
"""A copy waiting to take a bad one's place may be swept once after a start."""


class BlobScrub:
    """Walks the blobs of all members. ``sweep``, for the committer, drops what nobody owns in a
    directory and says how many files on which drive; without it they are only counted."""

    def __init__(
        self, kit: Kit, index: IndexReader, sweep: Callable[[str], dict[str, int]] | None
    ) -> None:
        self._kit = kit
        self._looks = BlobLooks(kit)
        self._index = index
        self._sweep = sweep
        self._directories = blob_directories()

    def run(self) -> None:
        """All blobs behind the cursor. Raises ``DriveFault``, ``Unavailable``, ``Damaged``."""
        tally = self._kit.tally
        after = bytes.fromhex(tally.cursor.blob)
        directory = after[0] if after else 0
        for blob, copies in self._looks.look(self._blobs(after)):
            directory = self._pass(directory, blob.blob_id[0])
            self._settle(blob, copies)
            tally.done_bytes += file_bytes(blob.size_bytes)
            tally.cursor = replace(tally.cursor, blob=blob.blob_id.hex())
        self._pass(directory, len(self._directories))

    def _pass(self, directory: int, until: int) -> int:
        """What lies in the directories whose blobs were all looked at, but for the last one."""
        for number in range(directory, until):
            self._orphans(self._directories[number])
            passed = bytes([number]) + b"\xff" * (BLOB_ID_BYTES - 1)
            self._kit.tally.cursor = replace(self._kit.tally.cursor, blob=passed.hex())
        return until

    def _blobs(self, after: bytes) -> Iterator[FileBlob]:
        """Those with an owner, by id."""
        while page := self._index.blob_ids(after, PAGE):
            for blob_id, size_bytes in page:
                yield FileBlob(blob_id, size_bytes)
            after = page[-1][0]

    # -- one blob ----------------------------------------------------------------------------------

    def _settle(self, blob: FileBlob, copies: Copies) -> None:
        """Mend what was found wrong, or count it as lost."""
        if not _wrong(copies):
            return
        # Once more: it may have been released meanwhile, or only a transfer have gone wrong.
        ((_, copies),) = self._looks.look([blob])
        wrong = _wrong(copies)
        owner = self._index.owner(blob.blob_id)
        if owner is None or not wrong:
            return
        sources = [drive for drive, copy in copies.items() if copy is Copy.GOOD]
        for drive in wrong:
            found = self._kit.tally.of(drive)
            if copies[drive] is Copy.MISSING:
                found.missing_files += 1
            else:
                found.bad_blobs += 1
            self._kit.bad(drive)
            if not sources:
                found.unrepairable += 1
                continue
            try:
                self._kit.settle(drive, self._mend(blob, sources[0], drive))
            except Recycled:
                continue
        if not sources:
            self._kit.tally.name_lost(self._index.words_for(*owner))

    def _mend(self, blob: FileBlob, source: str, drive: str) -> Mend:
        """Copy the good one beside the bad one, here; let it take its place, on the committer."""
        kit = self._kit
        path = blob_path(blob.blob_id)
        for _ in range(ATTEMPTS):
            if not {source, drive} <= kit.members.keys():
                return Mend.VOID
            target = kit.volume(drive)
            try:
                target.make_directory(path.rpartition("/")[0])
                copy_blob(
                    kit.volume(source),
                    path,
                    target,
                    path + MENDED_SUFFIX,
                    blob,
                    kit.throttle.piece,
                )
            except DataLost:
                return Mend.FAILED
            except DriveFault as fault:
                unlink_quietly(target, path + MENDED_SUFFIX + ".part")
                if fault.errno == errno.ENOENT and fault.drive != drive:
                    return Mend.VOID
                if fault.errno not in {errno.ENOSPC, errno.EDQUOT, errno.ENOENT}:
                    raise
                continue
            mend = kit.commit(lambda: kit.mender.blob(drive, blob.blob_id))
            if mend is not Mend.FAILED:
                return mend
        return Mend.FAILED

    # -- what nobody owns --------------------------------------------------------------------------

    def _orphans(self, directory: str) -> None:
        kit, sweep = self._kit, self._sweep
        counts: dict[str, int] = {}
        for drive in kit.members:
            volume = kit.volume(drive)
            if volume.stat(directory) is not None:
                counts[drive] = sum(map(self._is_orphan, volume.names(directory)))
        if sweep is not None and any(counts.values()):
            counts = kit.commit(lambda: sweep(directory))
        for drive, count in counts.items():
            kit.tally.of(drive).orphan_files += count

    def _is_orphan(self, name: str) -> bool:
        blob_id = blob_id_of(name)
        if not blob_id:
            return True
        return self._index.owner(blob_id) is None and not self._index.is_released(blob_id)


def _wrong(copies: Copies) -> list[str]:
    return [drive for drive, copy in copies.items() if copy is not Copy.GOOD]
