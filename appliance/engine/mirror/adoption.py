"""The store's side of large blobs: taking over what a gateway staged, and dropping what is over.

Owns ``blob/`` on every in-sync drive. Refuses, with ``MembershipChanged``, a staged blob that no
in-sync drive holds whole. Invariant: before a record that names a blob is logged on a drive, the
blob's file has its final name there, durably.

Crash points of adoption, in order: (1) after some renames: the files have final names and no
record; a retry finds them there, otherwise they are orphans; (2) after the directory flushes: the
same; (3) after the record is on one drive: recovery sees to it that the last batch's blobs are on
both (``ensure``) before serving.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final, TypeAlias

from appliance.core.errors import (
    DataLost,
    DriveFault,
    DriveTimeout,
    InvalidInput,
    MembershipChanged,
)
from appliance.core.ports import Volume
from appliance.engine.mirror.blob import (
    BLOB_DIRECTORY,
    STAGING_DIRECTORY,
    ChunkCheck,
    blob_directory,
    blob_path,
    file_bytes,
    staged_path,
)
from appliance.engine.mirror.format import BLOCK_BYTES, FileBlob
from appliance.engine.mirror.index_reader import Reads
from appliance.engine.mirror.member import Answers, Calls, Member
from appliance.engine.mirror.messages import Staged

COPY_BYTES: Final = 1024 * 1024
PARTIAL_SUFFIX: Final = ".part"


Pacer: TypeAlias = Callable[[int], AbstractContextManager[None]]
"""Waits until so many bytes may be moved; they are moved inside. See ``throttle``."""


def unpaced(_size_bytes: int) -> AbstractContextManager[None]:
    """The ``Pacer`` of work somebody waits for."""
    return nullcontext()


def copy_blob(
    source: Volume,
    path: str,
    target: Volume,
    target_path: str,
    blob: FileBlob,
    pace: Pacer = unpaced,
) -> None:
    """Copy a blob's file as it lies, verified on the way, to ``target_path``; flushed on return,
    its name not. Past both page caches. Raises ``DataLost`` when the source does not verify,
    ``DriveFault``."""
    length = file_bytes(blob.size_bytes)
    check = ChunkCheck(blob.blob_id, blob.size_bytes)
    reading = source.open(path, direct=True)
    try:
        partial = target_path + PARTIAL_SUFFIX
        unlink_quietly(target, partial)
        writing = target.open(partial, write=True, create=True, direct=True)
        try:
            writing.allocate(length)
            for offset in range(0, length, COPY_BYTES):
                with pace(COPY_BYTES):
                    wanted = min(COPY_BYTES, length - offset)
                    raw = reading.read_at(offset, wanted, past_cache=True)
                    if not check.take(raw):
                        break
                    writing.write_at(offset, raw + bytes(-len(raw) % BLOCK_BYTES))
            if not check.is_complete:
                raise DataLost(f"blob {blob.blob_id.hex()} is damaged on {source.name}")
            if length % BLOCK_BYTES:
                writing.truncate(length)
            writing.flush()
        finally:
            writing.close()
        target.rename(partial, target_path)
    finally:
        reading.close()


def is_whole(volume: Volume, path: str, size_bytes: int) -> bool:
    """Whether a file of a blob's length is there. Its content is verified whenever it is read."""
    found = volume.stat(path)
    return found is not None and found.size_bytes == file_bytes(size_bytes)


def is_verified(volume: Volume, path: str, blob: FileBlob, pace: Pacer = unpaced) -> bool:
    """Whether a file is there and every byte of it is the blob's, read past the page cache. Raises
    ``DriveTimeout``; a file that cannot be read is not the blob."""
    if not is_whole(volume, path, blob.size_bytes):
        return False
    try:
        file = volume.open(path, direct=True)
    except DriveTimeout:
        raise
    except DriveFault:
        return False
    length = file_bytes(blob.size_bytes)
    check = ChunkCheck(blob.blob_id, blob.size_bytes)
    try:
        for offset in range(0, length, COPY_BYTES):
            with pace(COPY_BYTES):
                wanted = min(COPY_BYTES, length - offset)
                if not check.take(file.read_at(offset, wanted, past_cache=True)):
                    return False
        return check.is_complete
    except DriveTimeout:
        raise
    except DriveFault:
        return False
    finally:
        file.close()


class BlobKeeper:
    """Adopts, ensures and drops blob files on a set of drives."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._taken: set[bytes] = set()
        self._made: dict[Volume, set[str]] = {}

    def check_unowned(self, index: Reads, blobs: Sequence[Staged]) -> None:
        """Raises ``InvalidInput`` if one of the blobs has an owner, or had one: it would go with
        that one. A retry over a crash passes, for its first attempt left no record."""
        ids = {blob.blob_id for blob in blobs}
        for blob_id in ids:
            known = blob_id in self._taken or index.is_released(blob_id)
            if known or index.owner(blob_id) is not None:
                raise InvalidInput("cannot adopt: the blob belongs to another record already")
        if len(ids) != len(blobs):
            raise InvalidInput("cannot adopt: two records name the same blob")

    def lacking(self, members: Mapping[str, Member], staged: Staged) -> list[str]:
        """The in-sync drives that do not hold the blob as staged. Raises ``MembershipChanged`` when
        none does."""
        lacking = [
            drive
            for drive, member in members.items()
            if tuple(staged.stamps.get(drive, ())) != (member.generation, member.generation)
        ]
        if len(lacking) == len(members):
            raise MembershipChanged(
                "cannot adopt: no in-sync drive holds the whole blob; write it again"
            )
        return lacking

    def complete(self, members: Mapping[str, Member], staged: Staged) -> Staged:
        """Copy a staged blob to the in-sync drives that lack it. Long for a large blob: any thread
        may do it before the commit. Raises ``MembershipChanged``, ``DriveFault``."""
        lacking = self.lacking(members, staged)
        if not lacking:
            return staged
        source = next(member for drive, member in members.items() if drive not in lacking)
        stamps = dict(staged.stamps)
        path = staged_path(staged.directory, staged.blob_id)
        for drive in lacking:
            target = members[drive]
            generation = target.generation
            target.volume.make_directory(f"{STAGING_DIRECTORY}/{staged.directory}")
            try:
                copy_blob(
                    source.volume,
                    path,
                    target.volume,
                    path,
                    FileBlob(staged.blob_id, staged.size_bytes),
                )
            except DriveFault as fault:
                if fault.errno == errno.ENOENT:
                    raise MembershipChanged("cannot adopt: the staged blob is gone") from fault
                raise
            stamps[drive] = (generation, target.generation)
        return staged._replace(stamps=stamps)

    def adopt(self, members: Mapping[str, Member], blobs: Sequence[Staged]) -> Answers:
        """Give the staged files their final names on every member. Not durable before
        ``flush_names``. A drive's value is whether it had them all."""
        self._taken.update(staged.blob_id for staged in blobs)
        return self._calls.each(
            {drive: self._adopting(member.volume, blobs) for drive, member in members.items()}
        )

    def _adopting(self, volume: Volume, blobs: Sequence[Staged]) -> Callable[[], object]:
        def call() -> bool:
            whole = True
            for staged in blobs:  # all of them, so that each directory is there to be flushed
                whole = self._adopt_one(volume, staged) and whole
            return whole

        return call

    def _adopt_one(self, volume: Volume, staged: Staged) -> bool:
        target = blob_path(staged.blob_id)
        self._make_directory(volume, blob_directory(staged.blob_id))
        source = staged_path(staged.directory, staged.blob_id)
        try:
            if not is_whole(volume, source, staged.size_bytes):
                return is_whole(volume, target, staged.size_bytes)
            volume.take_over(source)
            volume.rename(source, target)
        except DriveFault as fault:
            if fault.errno != errno.ENOENT:
                raise
            return is_whole(volume, target, staged.size_bytes)
        return True

    def _make_directory(self, volume: Volume, directory: str) -> None:
        """The directory of blobs itself is there since the drive was laid out or brought in."""
        made = self._made.setdefault(volume, set())
        if directory not in made:
            volume.make_directory(directory)
            volume.flush_directory(BLOB_DIRECTORY)
            made.add(directory)

    def take_touched(self) -> list[str]:
        """The directories whose names must be flushed with the next batch."""
        touched = sorted({blob_directory(blob_id) for blob_id in self._taken})
        self._taken.clear()  # the batch that names them is in the index before the next is judged
        return touched

    def drop(self, members: Mapping[str, Member], blob_ids: Iterable[bytes]) -> Answers:
        """Unlink blob files; those that are gone already are fine."""
        dropped = list(blob_ids)
        self._taken.difference_update(dropped)
        paths = [blob_path(blob_id) for blob_id in dropped]

        def dropping(volume: Volume) -> Callable[[], object]:
            def call() -> None:
                for path in paths:
                    unlink_quietly(volume, path)

            return call

        return self._calls.each({d: dropping(m.volume) for d, m in members.items()})

    def ensure(self, members: Mapping[str, Member], blobs: Iterable[FileBlob]) -> None:
        """Recovery: each blob has its final name on every member, durably; from staging if it did
        not get so far, else from the other drive. Raises ``DriveFault``. A blob no drive has is
        left to be reported when it is read."""
        for blob in blobs:
            holders = [
                member
                for member in members.values()
                if is_whole(member.volume, blob_path(blob.blob_id), blob.size_bytes)
                or self._rescue(member.volume, blob)
            ]
            for member in members.values():
                if member not in holders:
                    self._copy_from_any(holders, member, blob)
                member.volume.flush_directory(blob_directory(blob.blob_id))

    def _copy_from_any(self, holders: Sequence[Member], member: Member, blob: FileBlob) -> None:
        """A holder whose copy does not verify is passed over."""
        path = blob_path(blob.blob_id)
        for holder in holders:
            self._make_directory(member.volume, blob_directory(blob.blob_id))
            with contextlib.suppress(DataLost):
                copy_blob(holder.volume, path, member.volume, path, blob)
                return

    def _rescue(self, volume: Volume, blob: FileBlob) -> bool:
        """A crash before the rename was durable leaves the file in staging. Its length alone proves
        nothing: it may be one that was never flushed here, beside a good copy that is gone."""
        self._make_directory(volume, blob_directory(blob.blob_id))
        for directory in staging_directories(volume):
            path = staged_path(directory, blob.blob_id)
            if is_verified(volume, path, blob):
                volume.rename(path, blob_path(blob.blob_id))
                return True
        return False


def staging_directories(volume: Volume) -> list[str]:
    """Names of the gateways' staging directories."""
    return volume.names(STAGING_DIRECTORY) if volume.stat(STAGING_DIRECTORY) is not None else []


def unlink_quietly(volume: Volume, path: str) -> None:
    """Unlink; a missing file is fine. Raises ``DriveFault``."""
    try:
        volume.unlink(path)
    except DriveFault as fault:
        if fault.errno != errno.ENOENT:
            raise
