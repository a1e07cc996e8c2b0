"""Repairing what a reader found bad on one drive, from the other.

Owns the proof and the repair. Invariant: nothing is written before the copy on the drive was read
past the cache and found bad and the other drive's was found good; a repair writes exactly the bytes
the checksum vouches for.

Committer thread only, so that it never meets a recycle or an adoption, and there on the drives'
lanes, for what gives wrong bytes may hang next. But a blob file is read and copied beside it, for
that may take long: only the copy takes its place between two batches.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from appliance.core.errors import Damaged, DataLost, DriveFault, DriveTimeout
from appliance.engine.mirror.adoption import copy_blob, is_verified
from appliance.engine.mirror.blob import blob_directory, blob_path
from appliance.engine.mirror.format import BLOCK_BYTES, FileBlob, Location
from appliance.engine.mirror.index import IndexReader
from appliance.engine.mirror.member import FULL, Member
from appliance.engine.mirror.mend import Mend, Mender
from appliance.engine.mirror.place import FilePlace, decode_place
from appliance.engine.mirror.state import MirrorState

REPAIRED_SUFFIX: Final = ".repaired"
"""Behind a blob's name while its good copy waits to take its place."""


class Repairer:
    """Repairs single records and blobs."""

    def __init__(self, state: MirrorState) -> None:
        self._state = state

    def repair(self, drive: str, place: bytes) -> bool:
        """Whether something was bad on ``drive`` and now is good. False too when no other drive has
        a good copy: the reader has reported that already. A blob file is copied while commits wait:
        see ``copy_file``."""
        try:
            where = decode_place(place)
        except Damaged:
            return False
        if isinstance(where, FilePlace):
            finish = self.copy_file(drive, where.blob_id)
            return finish is not None and finish()
        member = self._state.members.get(drive)
        if member is None:
            return False
        try:
            repaired = self._repair_record(member, self._peers(drive), where.location)
        except DriveFault as fault:
            return self._give_up(drive, fault)
        if repaired:
            member.repaired += 1
            self._state.counts.repaired += 1
        return repaired

    def _peers(self, drive: str) -> list[Member]:
        return [peer for name, peer in self._state.members.items() if name != drive]

    def _give_up(self, drive: str, fault: DriveFault) -> bool:
        """A drive that does not even take the repair leaves. One that does not answer is judged by
        its next write, and one that has no room is whole."""
        is_harmless = isinstance(fault, DriveTimeout) or fault.errno in FULL
        if fault.drive == drive and not is_harmless:
            self._state.lose({drive: fault})
        return False

    # -- records -----------------------------------------------------------------------------------

    def _repair_record(self, member: Member, peers: list[Member], location: Location) -> bool:
        if not peers or self._is_good(member, location):
            return False
        member.read_errors += 1
        source = next((peer for peer in peers if self._is_good(peer, location)), None)
        if source is None:
            return False
        start = location.offset // BLOCK_BYTES * BLOCK_BYTES
        end = -(-(location.offset + location.length) // BLOCK_BYTES) * BLOCK_BYTES
        reading = partial(source.log.read_raw, location.segment, start, end - start)
        good: bytes = self._state.calls.on(source.drive_id, reading)
        writing = partial(_write_record, member, location, start, good)
        self._state.calls.on(member.drive_id, writing)
        return self._is_good(member, location)

    def _is_good(self, member: Member, location: Location) -> bool:
        looking = partial(_record_is_good, member, location)
        found: bool = self._state.calls.on(member.drive_id, looking)
        return found

    # -- blob files --------------------------------------------------------------------------------

    def copy_file(self, drive: str, blob_id: bytes) -> Callable[[], bool] | None:
        """Look at a blob's file, and copy a good one beside a bad one. Returns what is left for the
        committer's thread to do, which tells whether it is repaired; None if nothing is. Long for a
        large blob; any thread. Raises ``Damaged``, ``DriveFault`` of the index."""
        member = self._state.members.get(drive)
        size = self._size_of(blob_id)
        if member is None or size is None:
            return None
        blob = FileBlob(blob_id, size)
        path, target = blob_path(blob_id), member.volume
        try:
            if is_verified(target, path, blob):
                return None
            for peer in self._peers(drive):
                if is_verified(peer.volume, path, blob):
                    target.make_directory(blob_directory(blob_id))
                    copy_blob(peer.volume, path, target, path + REPAIRED_SUFFIX, blob)
                    return partial(self._take_copy, drive, blob_id)
        except DriveFault as fault:
            return partial(self._give_up, drive, fault)
        except DataLost:
            pass
        return partial(self._count_bad, drive)

    def _take_copy(self, drive: str, blob_id: bytes) -> bool:
        self._count_bad(drive)
        return Mender(self._state).blob(drive, blob_id, REPAIRED_SUFFIX) is Mend.MENDED

    def _count_bad(self, drive: str) -> bool:
        Mender(self._state).count_bad(drive)
        return False

    def _size_of(self, blob_id: bytes) -> int | None:
        """The blob's size while a record owns it."""
        index = IndexReader(self._state.index.path)
        try:
            found = index.blob_ids(_before(blob_id), 1)
        finally:
            index.close()
        return found[0][1] if found and found[0][0] == blob_id else None


def _before(blob_id: bytes) -> bytes:
    """The greatest id of the same length below this one."""
    number = int.from_bytes(blob_id, "big")
    return (number - 1).to_bytes(len(blob_id), "big") if number else b""


def _record_is_good(member: Member, location: Location) -> bool:
    try:
        member.reader.read(location, past_cache=True)
    except DriveTimeout:
        raise
    except (Damaged, DriveFault):
        return False
    return True


def _write_record(member: Member, location: Location, start: int, good: bytes) -> None:
    """The record's own bytes out of ``good``, whole blocks from ``start`` on."""
    try:
        blocks = bytearray(member.log.read_raw(location.segment, start, len(good)))
    except DriveFault:
        blocks = bytearray(good)  # an unreadable sector: its neighbours go with it
    at = location.offset - start
    blocks[at : at + location.length] = good[at : at + location.length]
    member.log.write_raw(location.segment, start, blocks)
