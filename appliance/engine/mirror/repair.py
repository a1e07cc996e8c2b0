"""Repairing what a reader found bad on one drive, from the other.

Owns the proof and the repair. Invariant: nothing is written before the copy on the drive was read
past the cache and found bad and the other drive's was found good; a repair writes exactly the bytes
the checksum vouches for.

Committer thread only, so that it never meets a recycle or an adoption.
"""

from __future__ import annotations

from appliance.core.errors import Damaged, DriveFault
from appliance.engine.mirror.adoption import copy_blob, is_verified
from appliance.engine.mirror.blob import blob_directory, blob_path
from appliance.engine.mirror.format import BLOCK_BYTES, FileBlob, Location
from appliance.engine.mirror.member import Member
from appliance.engine.mirror.place import FilePlace, decode_place
from appliance.engine.mirror.state import MirrorState


class Repairer:
    """Repairs single records and blobs."""

    def __init__(self, state: MirrorState) -> None:
        self._state = state

    def repair(self, drive: str, place: bytes) -> bool:
        """Whether something was bad on ``drive`` and now is good. False too when no other drive has
        a good copy: the reader has reported that already."""
        member = self._state.members.get(drive)
        peers = [peer for name, peer in self._state.members.items() if name != drive]
        if member is None or not peers:
            return False
        try:
            where = decode_place(place)
        except Damaged:
            return False
        try:
            if isinstance(where, FilePlace):
                repaired = self._repair_file(member, peers, where.blob_id)
            else:
                repaired = self._repair_record(member, peers, where.location)
        except DriveFault as fault:
            if fault.drive != drive:
                return False
            # The drive does not even take the repair.
            self._state.lose({drive: fault})
            return False
        if repaired:
            member.repaired += 1
            self._state.counts.repaired += 1
        return repaired

    def _repair_record(self, member: Member, peers: list[Member], location: Location) -> bool:
        if _record_is_good(member, location):
            return False
        member.read_errors += 1
        source = next((peer for peer in peers if _record_is_good(peer, location)), None)
        if source is None:
            return False
        start = location.offset // BLOCK_BYTES * BLOCK_BYTES
        end = -(-(location.offset + location.length) // BLOCK_BYTES) * BLOCK_BYTES
        good = source.log.read_raw(location.segment, start, end - start)
        try:
            blocks = bytearray(member.log.read_raw(location.segment, start, end - start))
        except DriveFault:
            blocks = bytearray(good)  # an unreadable sector: its neighbours go with it
        at = location.offset - start
        blocks[at : at + location.length] = good[at : at + location.length]
        member.log.write_raw(location.segment, start, blocks)
        return _record_is_good(member, location)

    def _repair_file(self, member: Member, peers: list[Member], blob_id: bytes) -> bool:
        size = self._size_of(blob_id)
        if size is None:
            return False
        blob = FileBlob(blob_id, size)
        path = blob_path(blob_id)
        if is_verified(member.volume, path, blob):
            return False
        member.read_errors += 1
        source = next((peer for peer in peers if is_verified(peer.volume, path, blob)), None)
        if source is None:
            return False
        member.volume.make_directory(blob_directory(blob_id))
        copy_blob(source.volume, path, member.volume, path, blob)
        member.volume.flush_directory(blob_directory(blob_id))
        return True

    def _size_of(self, blob_id: bytes) -> int | None:
        """The blob's size while a record owns it."""
        found = self._state.index.blob_ids(_before(blob_id), 1)
        return found[0][1] if found and found[0][0] == blob_id else None


def _before(blob_id: bytes) -> bytes:
    """The greatest id of the same length below this one."""
    number = int.from_bytes(blob_id, "big")
    return (number - 1).to_bytes(len(blob_id), "big") if number else b""


def _record_is_good(member: Member, location: Location) -> bool:
    try:
        member.reader.read(location, past_cache=True)
    except (Damaged, DriveFault):
        return False
    return True
