"""Making one drive's files equal to another's: blobs and log segments, for a state transfer.

Owns the comparing and copying. Refuses nothing: what the source cannot read is counted and passed
over, and what the target already has there is kept, so that one bad spot on the last good drive
never keeps a second copy of all the rest from being made. Invariant: a blob file of the target is
left alone only when every byte of it verifies.

Blocking; any thread.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from appliance.core.errors import DataLost, DriveFault, DriveTimeout
from appliance.core.ports import Volume
from appliance.engine.mirror.accepted import read_losses, write_losses
from appliance.engine.mirror.adoption import (
    PARTIAL_SUFFIX,
    copy_blob,
    is_verified,
    unlink_quietly,
)
from appliance.engine.mirror.blob import (
    BLOB_DIRECTORY,
    STAGING_DIRECTORY,
    blob_bytes,
    blob_directory,
    blob_id_of,
    blob_path,
    file_bytes,
)
from appliance.engine.mirror.format import BLOCK_BYTES, FileBlob
from appliance.engine.mirror.member import Member

COPY_BYTES: Final = 1024 * 1024


@dataclass(slots=True)
class ResyncProgress:
    """How far it is, and what could not be read on the members: it does not block the join."""

    done_bytes: int = 0
    total_bytes: int = 0
    unreadable: int = 0


class Transfer:
    """From one member to a drive that is to become one."""

    def __init__(self, source: Member, target: Member, progress: ResyncProgress) -> None:
        self._source = source
        self._target = target
        self._progress = progress

    # -- blobs ---------------------------------------------------------------------------------

    def compare_blobs(self) -> None:
        """Copy what the target lacks or has wrong, remove what the source has not."""
        source, target = self._source.volume, self._target.volume
        for directory in (BLOB_DIRECTORY, STAGING_DIRECTORY):
            target.make_directory(directory)
        target.flush_directory("")
        wanted = set()
        for path, blob_id in _blob_files(source):
            found = source.stat(path)
            if blob_id and found is not None:
                wanted.add(path)
                self.copy_blob(FileBlob(blob_id, blob_bytes(found.size_bytes)))
        for path, _ in _blob_files(target):
            if path not in wanted:
                unlink_quietly(target, path)

    def copy_losses(self) -> None:
        """What the operator accepted to lose is lost on the target as well."""
        losses = read_losses(self._source.volume)
        if losses != read_losses(self._target.volume):
            write_losses(self._target.volume, losses)

    def copy_blob(self, blob: FileBlob) -> None:
        """Make the target's copy of one blob good and its name durable."""
        path, target = blob_path(blob.blob_id), self._target.volume
        self._progress.done_bytes += file_bytes(blob.size_bytes)
        if is_verified(target, path, blob):
            return
        directory = blob_directory(blob.blob_id)
        if target.stat(directory) is None:
            target.make_directory(directory)
            target.flush_directory(BLOB_DIRECTORY)
        try:
            copy_blob(self._source.volume, path, target, path, blob)
            target.flush_directory(directory)
        except DataLost:
            self._progress.unreadable += 1
            unlink_quietly(target, path + PARTIAL_SUFFIX)
        except DriveFault as fault:
            if fault.drive != self._source.volume.name or isinstance(fault, DriveTimeout):
                raise
            unlink_quietly(target, path + PARTIAL_SUFFIX)
            if fault.errno != errno.ENOENT:  # else released and unlinked meanwhile
                self._progress.unreadable += 1

    # -- the log -------------------------------------------------------------------------------

    def copy_differences(self, segment: int, start: int, end: int) -> None:
        """Make [start, end) of the target's segment equal to the source's. Whole blocks."""
        for offset in range(start, end, COPY_BYTES):
            self._copy_piece(segment, offset, min(COPY_BYTES, end - offset))

    def _copy_piece(self, segment: int, offset: int, length: int) -> None:
        try:
            data = self._source.log.read_raw(segment, offset, length)
        except DriveTimeout:
            raise
        except DriveFault as fault:
            if fault.errno != errno.EIO:
                raise
            if length <= BLOCK_BYTES:
                self._progress.unreadable += 1
                return
            for block in range(offset, offset + length, BLOCK_BYTES):
                self._copy_piece(segment, block, min(BLOCK_BYTES, offset + length - block))
            return
        if self._read_target(segment, offset, length) != data:
            self._target.log.write_raw(segment, offset, data)

    def _read_target(self, segment: int, offset: int, length: int) -> bytes:
        """What the target has; nothing where it cannot be read, for writing may mend that."""
        try:
            return self._target.log.read_raw(segment, offset, length)
        except DriveTimeout:
            raise
        except DriveFault as fault:
            if fault.errno != errno.EIO:
                raise
            return b""


def _blob_files(volume: Volume) -> Iterator[tuple[str, bytes]]:
    """(path, blob id) of every file below ``blob/``; an id of b"" for what is none."""
    for directory in volume.names(BLOB_DIRECTORY):
        for name in volume.names(f"{BLOB_DIRECTORY}/{directory}"):
            yield f"{BLOB_DIRECTORY}/{directory}/{name}", blob_id_of(name)
