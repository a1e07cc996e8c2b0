"""Writing good bytes over bad ones where a scrub found them: the part that must not meet a commit.

Owns every write of a scrub to a drive. Refuses, with ``Mend.VOID``, a place that means something
else by now: a segment recycled since, a blob released since. Invariant: nothing is written but
bytes whose checksum and identity the scrub has verified, at a place whose generation is still the
one they belong to; each write is read back past the cache.

Crash points: (1) in the middle of a batch's or header's write: it was bad before and is bad still,
the peer's is whole; (2) a blob's copy under its temporary name: swept after the next start; (3)
after the rename: whole, since its bytes were flushed before.

Committer thread only, and short: a blob is copied before, beside the committer. Every call is made
on the lane of the drive it is for, so that the one that hangs is the one that is blamed.
"""

from __future__ import annotations

import enum
import errno
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import PurePath
from typing import Any, Final

from appliance.core.errors import DriveFault, DriveTimeout
from appliance.core.ports import Volume
from appliance.engine.mirror.adoption import unlink_quietly
from appliance.engine.mirror.blob import BLOB_DIRECTORY, blob_directory, blob_path
from appliance.engine.mirror.guarded import GuardedVolume
from appliance.engine.mirror.index import publish
from appliance.engine.mirror.member import Member
from appliance.engine.mirror.rebuild import condemn
from appliance.engine.mirror.recovery import copy_segment
from appliance.engine.mirror.segment import (
    SegmentHeader,
    SegmentState,
    encode_segment_header,
)
from appliance.engine.mirror.state import MirrorState

MENDED_SUFFIX: Final = ".mended"
"""Behind a blob's name while its good copy waits to take its place."""


class Mend(enum.Enum):
    """What became of something bad."""

    MENDED = "mended"
    VOID = "void"
    FAILED = "failed"


class Mender:
    """Mends what was found bad on a member."""

    def __init__(self, state: MirrorState) -> None:
        self._state = state

    def is_current(self, segment: int, generation: int) -> bool:
        """Whether a segment still is what it was. Raises ``Stopped``."""
        self._state.check_running()
        found = self._state.planner.table.get(segment)
        return found is not None and found.generation == generation

    def batch(self, drive: str, place: tuple[int, int, int], good: bytes) -> Mend:
        """Put verified blocks at (segment, generation, offset). Raises ``Stopped``."""
        segment, generation, offset = place
        member = self._state.members.get(drive)
        if member is None or not self.is_current(segment, generation):
            return Mend.VOID
        tail = self._state.planner.tail
        assert segment != tail.segment or offset + len(good) <= tail.offset, "only what is written"

        def write() -> bool:
            member.log.write_raw(segment, offset, good)
            return member.log.read_raw(segment, offset, len(good)) == good

        return self._done(member, lambda: self._on(member, write))

    def header(self, drive: str, segment: int, generation: int) -> Mend:
        """Write a segment's header anew: the log knows what it says. Raises ``Stopped``."""
        member = self._state.members.get(drive)
        if member is None or not self.is_current(segment, generation):
            return Mend.VOID
        wanted = self.header_bytes(segment, generation)

        def write() -> bool:
            member.log.recycle(SegmentState(segment, generation))
            return member.log.read_raw(segment, 0, len(wanted)) == wanted

        return self._done(member, lambda: self._on(member, write))

    def header_bytes(self, segment: int, generation: int) -> bytes:
        """What the first block of a segment holds. Any thread."""
        state = self._state
        return encode_segment_header(
            SegmentHeader(state.mirror_bytes, segment, generation, state.segment_size_bytes)
        )

    def segment(self, drive: str, source: str, segment: int, generation: int) -> Mend:
        """A segment's file is missing or cut: copied whole from another member, or made anew where
        it is free. Raises ``Stopped``."""
        members = self._state.members
        member, peer = members.get(drive), members.get(source)
        if member is None or peer is None or not self.is_current(segment, generation):
            return Mend.VOID
        found = self._state.planner.table.get(segment)
        assert found is not None, "it is current"

        def write() -> bool:
            if found.first_sequence:
                copy_segment(self._guarded(peer), self._guarded(member), segment)
                self._on(member, member.log.close)  # it may hold the file that was replaced
            else:
                self._on(member, partial(member.log.prepare, SegmentState(segment, generation)))
            return True

        return self._done(member, write)

    def blob(self, drive: str, blob_id: bytes, suffix: str = MENDED_SUFFIX) -> Mend:
        """Let the flushed copy beside a blob's file, which has ``suffix`` behind its name, take its
        place. Raises ``Stopped``."""
        self._state.check_running()
        member = self._state.members.get(drive)
        if member is None:
            return Mend.VOID
        volume, path = member.volume, blob_path(blob_id)
        temporary = path + suffix
        if self._state.index.owner(blob_id) is None:
            self._try(member, lambda: unlink_quietly(self._guarded(member), temporary))
            return Mend.VOID

        def write() -> bool:
            volume.take_over(temporary)
            volume.rename(temporary, path)
            volume.flush_directory(blob_directory(blob_id))
            return True

        return self._done(member, lambda: self._on(member, write))

    def count_bad(self, drive: str) -> None:
        """The drive gave wrong bytes, or none."""
        member = self._state.members.get(drive)
        if member is not None:
            member.read_errors += 1

    def give_up(self, silent: Mapping[str, DriveFault], asked: Mapping[str, Member]) -> None:
        """Go on without drives that do not answer although another one does. ``asked``: the members
        of then. Once one of them left, or one came, this says nothing any more: the one that
        answered may be gone, or the silent one be back. Raises ``Stopped``."""
        self._state.check_running()
        if self._state.members is asked:  # replaced as a whole
            self._state.lose(silent)

    def replace_index(self, directory: Volume, building: str) -> None:
        """Put the index aside and publish the one that was built from the log beside it. The store
        must be stopped then: it opens the new one and replays what came since. Crash between the
        two: the next start builds one. Raises ``DriveFault``, ``Stopped``."""
        self._state.check_running()
        condemn(directory, PurePath(self._state.index.path).name)
        publish(directory, building)

    def put_aside(self, directory: Volume) -> None:
        """Never open the index again. The store must be stopped then. Raises ``DriveFault``,
        ``Stopped``."""
        self._state.check_running()
        condemn(directory, PurePath(self._state.index.path).name)

    def _done(self, member: Member, write: Callable[[], bool]) -> Mend:
        good = self._try(member, write)
        if good:
            member.repaired += 1
            self._state.counts.repaired += 1
        return Mend.MENDED if good else Mend.FAILED

    def _try(self, member: Member, work: Callable[[], object]) -> bool:
        """Whether it was done. A drive that does not even take a repair leaves the mirror; one that
        does not answer is judged by its next write."""
        try:
            return bool(work())
        except DriveFault as fault:
            if fault.drive == member.drive_id and not _is_harmless(fault):
                self._state.lose({member.drive_id: fault})
            return False

    def _on(self, member: Member, call: Callable[[], Any]) -> Any:
        return self._state.calls.on(member.drive_id, call)

    def _guarded(self, member: Member) -> GuardedVolume:
        return GuardedVolume(member.volume, partial(self._on, member))


def _is_harmless(fault: DriveFault) -> bool:
    """No answer yet, no room, or a file that was swept: the drive itself may be whole."""
    is_late = isinstance(fault, DriveTimeout)
    return is_late or fault.errno in {errno.ENOSPC, errno.EDQUOT, errno.ENOENT}


def blob_directories() -> list[str]:
    """Every directory a blob may lie in, in order of the ids."""
    return [f"{BLOB_DIRECTORY}/{number:02x}" for number in range(256)]
