"""A scrub of blob files: every chunk of every copy, and which files are there at all.

Owns the judgement of blob files. Refuses to delete anything itself: a file nobody owns is looked at
again, and dropped, by the committer. Invariant: the cursor passes a blob when every drive's copy
verified, was mended from one that did, or was counted as lost.

A blob released meanwhile is no error: its owner is asked for again before anything is said of it.
"""

from __future__ import annotations

import enum
import errno
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from appliance.core.errors import DataLost, DriveFault
from appliance.core.ports import File, Volume
from appliance.engine.mirror.adoption import copy_blob, is_whole, unlink_quietly
from appliance.engine.mirror.blob import (
    BLOB_ID_BYTES,
    CHUNK_BYTES,
    FRAME_BYTES,
    blob_id_of,
    blob_path,
    decode_chunks,
    file_bytes,
    spans,
)
from appliance.engine.mirror.format import FileBlob
from appliance.engine.mirror.index import IndexReader
from appliance.engine.mirror.mend import MENDED_SUFFIX, Mend, blob_directories
from appliance.engine.mirror.scrub_kit import (
    PIECE_BYTES,
    Kit,
    Recycled,
    open_for_reading,
)

PAGE: Final = 500
ATTEMPTS: Final = 3
"""A copy waiting to take a bad one's place may be swept once after a start."""


class Copy(enum.Enum):
    """What a drive's copy of a blob is."""

    GOOD = "good"
    BAD = "bad"
    MISSING = "missing"


class BlobScrub:
    """Walks the blobs of all members. ``sweep``, for the committer, drops what nobody owns in a
    directory and says how many files on which drive; without it they are only counted."""

    def __init__(
        self, kit: Kit, index: IndexReader, sweep: Callable[[str], dict[str, int]] | None
    ) -> None:
        self._kit = kit
        self._index = index
        self._sweep = sweep

    def run(self) -> None:
        """All blobs behind the cursor. Raises ``DriveFault``, ``Unavailable``, ``Damaged``."""
        tally = self._kit.tally
        after = bytes.fromhex(tally.cursor.blob)
        for number, directory in enumerate(blob_directories()):
            if after and after[0] > number:
                continue
            last = bytes([number]) + b"\xff" * (BLOB_ID_BYTES - 1)
            while True:
                page = [one for one in self._index.blob_ids(after, PAGE) if one[0] <= last]
                for blob_id, size_bytes in page:
                    self._blob(FileBlob(blob_id, size_bytes))
                    tally.done_bytes += file_bytes(size_bytes)
                    after = blob_id
                    tally.cursor = replace(tally.cursor, blob=after.hex())
                if len(page) < PAGE:
                    break
            self._orphans(directory)
            after = last
            tally.cursor = replace(tally.cursor, blob=after.hex())

    # -- one blob ----------------------------------------------------------------------------------

    def _blob(self, blob: FileBlob) -> None:
        copies = self._look(blob)
        wrong = [drive for drive, copy in copies.items() if copy is not Copy.GOOD]
        if not wrong:
            return
        # Once more: it may have been released meanwhile, or only a transfer have gone wrong.
        copies = self._look(blob)
        wrong = [drive for drive, copy in copies.items() if copy is not Copy.GOOD]
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
            self._kit.tally.name_lost(name_of(*owner))

    def _look(self, blob: FileBlob) -> dict[str, Copy]:
        """Every byte of every member's copy."""
        kit, path = self._kit, blob_path(blob.blob_id)
        files: dict[str, File] = {}
        copies: dict[str, Copy] = {}
        for drive, member in kit.members.items():
            file = _open_whole(member.volume, path, blob.size_bytes)
            if isinstance(file, Copy):
                copies[drive] = file
            else:
                copies[drive], files[drive] = Copy.GOOD, file
        try:
            waiting = deque(spans(0, blob.size_bytes, PIECE_BYTES))
            while waiting and files:
                parts = [waiting.popleft() for _ in range(min(kit.depth, len(waiting)))]
                size_bytes = sum(file_bytes(end - start) for start, end in parts)
                with kit.throttle.piece(size_bytes):
                    good = kit.side_by_side(
                        {
                            drive: [partial(_is_good, file, blob, *part) for part in parts]
                            for drive, file in files.items()
                        }
                    )
                for drive, verified in good.items():
                    kit.tally.of(drive).read_bytes += size_bytes
                    if not all(verified):
                        copies[drive] = Copy.BAD
                        files.pop(drive).close()
                kit.progress()
        finally:
            for file in files.values():
                file.close()
        return copies

    def _mend(self, blob: FileBlob, source: str, drive: str) -> Mend:
        """Copy the good one beside the bad one, here; let it take its place, on the committer."""
        kit = self._kit
        path = blob_path(blob.blob_id)
        for _ in range(ATTEMPTS):
            members = kit.members
            if source not in members or drive not in members:
                return Mend.VOID
            target = members[drive].volume
            try:
                target.make_directory(path.rpartition("/")[0])
                copy_blob(
                    members[source].volume,
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
        for drive, member in kit.members.items():
            if member.volume.stat(directory) is not None:
                counts[drive] = sum(map(self._is_orphan, member.volume.names(directory)))
        if sweep is not None and any(counts.values()):
            counts = kit.commit(lambda: sweep(directory))
        for drive, count in counts.items():
            kit.tally.of(drive).orphan_files += count

    def _is_orphan(self, name: str) -> bool:
        blob_id = blob_id_of(name)
        if not blob_id:
            return True
        return self._index.owner(blob_id) is None and not self._index.is_released(blob_id)


def name_of(partition: str, key: bytes) -> str:
    """How an operator is told of a record."""
    return f"{partition}: {key.decode(errors='backslashreplace')}"


def _open_whole(volume: Volume, path: str, size_bytes: int) -> File | Copy:
    try:
        if volume.stat(path) is None:
            return Copy.MISSING
        if not is_whole(volume, path, size_bytes):
            return Copy.BAD
        return open_for_reading(volume, path)
    except DriveFault as fault:
        if fault.errno == errno.ENOENT:
            return Copy.MISSING
        if not fault.is_bad_spot:
            raise
        return Copy.BAD


def _is_good(file: File, blob: FileBlob, start: int, end: int) -> bool:
    """Whether the chunks of [start, end) verify."""
    first, last = start // CHUNK_BYTES, -(-end // CHUNK_BYTES)
    offset = first * FRAME_BYTES
    raw = file.read_at(offset, file_bytes(end) - offset, past_cache=True)
    return decode_chunks(blob.blob_id, blob.size_bytes, first, last, raw) is not None
