"""What the parts of a scrub share: the mirror, its drives read side by side, its pace, its account.

Owns how a scrub reads and how it reaches the committer. Refuses to go on, by raising what a drive
raised, when that is no single bad spot: the scrub is taken up again where its cursor stands.
Invariant: every read goes past the page cache, at the throttle's pace.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from appliance.core.errors import DriveFault, DriveTimeout, Unavailable
from appliance.core.ports import File, Lanes
from appliance.engine.mirror.format import BLOCK_BYTES
from appliance.engine.mirror.guarded import GuardedVolume
from appliance.engine.mirror.member import Member
from appliance.engine.mirror.mend import Mend, Mender
from appliance.engine.mirror.planner import Tail
from appliance.engine.mirror.room import Spawn, at_once
from appliance.engine.mirror.scrub_drives import ScrubDrives
from appliance.engine.mirror.scrub_tally import Tally
from appliance.engine.mirror.segment import SegmentState
from appliance.engine.mirror.state import MirrorState
from appliance.engine.mirror.throttle import Throttle

T = TypeVar("T")

PIECE_BYTES: Final = 1024 * 1024
"""What is read of a drive at a time: about what a client may have to wait for."""
DEPTH: Final = 4
"""So much more of each drive while no client is active, so that none waits for us."""
BAD_BLOCKS_MAX: Final = 64
"""In one piece; a drive with more is not one bad spot but failing."""


class LostRange(NamedTuple):
    """A part of the log no drive has: [start, end) of a segment's generation."""

    segment: int
    generation: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Goal:
    """The log as it was at one moment."""

    segments: tuple[SegmentState, ...]
    tail: Tail

    def used(self) -> list[SegmentState]:
        """From old to new."""
        used = [segment for segment in self.segments if segment.first_sequence]
        return sorted(used, key=lambda segment: segment.first_sequence)

    def end_of(self, segment: SegmentState, size_bytes: int) -> int:
        """Up to where a used segment may be written."""
        return self.tail.offset if segment.segment == self.tail.segment else size_bytes


class Recycled(Exception):
    """The segment or blob at hand means something else by now: nothing to see here."""


class Committing:
    """Has the committer do something between two batches and waits for it: the one way by which a
    scrub changes anything."""

    def __init__(self, run: Callable[[Callable[[], object]], object]) -> None:
        self._run = run

    def __call__(self, work: Callable[[], T]) -> T:
        """``work``'s result. Raises what it raises, and ``Unavailable``."""
        results: list[T] = []
        self._run(lambda: results.append(work()))
        return results[0]


class Ahead:
    """A read that was begun before it is needed."""

    def __init__(self, offset: int, length: int, read: Callable[[], dict[str, bytes]]) -> None:
        self.offset: Final = offset
        self.length: Final = length
        self._read = read
        self._done = threading.Event()
        self._data: dict[str, bytes] = {}
        self._error: BaseException | None = None

    def run(self) -> None:
        """On whatever thread it was spawned on."""
        try:
            self._data = self._read()
        except BaseException as error:  # noqa: BLE001 - raised where the bytes are wanted
            self._error = error
        self._done.set()

    def wait(self) -> None:
        """Until it is over, however it went."""
        self._done.wait()

    def result(self) -> dict[str, bytes]:
        """The bytes. Raises what the read raised."""
        self.wait()
        if self._error is not None:
            raise self._error
        return self._data


class ScrubMeans(NamedTuple):
    """What a scrub is handed. ``progress`` is called after each piece, for saving the cursor now
    and then; it ends the scrub by raising ``Unavailable``. ``spawn`` runs a read beside."""

    commit: Committing
    lanes: Lanes
    throttle: Throttle
    tally: Tally
    progress: Callable[[], None]
    spawn: Spawn = at_once


class Kit:
    """Everything a scrub works with."""

    def __init__(self, state: MirrorState, means: ScrubMeans) -> None:
        self.state: Final = state
        self.mender: Final = Mender(state)
        self.drives: Final = ScrubDrives(state, means.lanes)
        self.commit: Final = means.commit
        self.throttle: Final = means.throttle
        self.tally: Final = means.tally
        self.progress: Final = means.progress
        self._spawn: Final = means.spawn
        self._ahead: Ahead | None = None
        self.lost: Final[list[LostRange]] = []

    @property
    def members(self) -> Mapping[str, Member]:
        """The in-sync drives now: replaced as a whole when they change."""
        return self.state.members

    def member(self, drive: str) -> Member:
        """One of them. Raises ``Unavailable`` once it left: what is left goes on without it."""
        member = self.members.get(drive)
        if member is None:
            raise Unavailable(f"drive {drive} left the mirror under the scrub")
        return member

    def goal(self) -> Goal:
        """The log as it is now. Raises ``Stopped``."""
        planner = self.state.planner

        def look() -> Goal:
            self.state.check_running()
            return Goal(tuple(planner.table.states()), planner.tail)

        return self.commit(look)

    @property
    def depth(self) -> int:
        """How many pieces to read at once of each drive now."""
        return 1 if self.throttle.is_gentle else DEPTH

    def on(self, drive: str, call: Callable[[], Any]) -> Any:
        """One call on a drive's lane: its result. Raises what it raised, ``DriveTimeout``."""
        self.drop_ahead()
        return self.drives.on(drive, call)

    def volume(self, drive: str) -> GuardedVolume:
        """A member's volume, each call on its lane."""
        return GuardedVolume(self.member(drive).volume, partial(self.on, drive))

    def open(self, drive: str, path: str) -> File:
        """A file of a member for ``read``, past the page cache. Raises ``DriveFault``."""
        file: File = self.on(drive, partial(self.member(drive).volume.open, path, direct=True))
        return file

    def read(self, files: Mapping[str, File], offset: int, length: int) -> dict[str, bytes]:
        """The same bytes of each drive's file. A block that cannot be read becomes zeros, which
        verify as nothing."""
        self.drop_ahead()
        return self._read(files, offset, length)

    def read_ahead(self, files: Mapping[str, File], offset: int, length: int) -> Ahead:
        """Begin to read what is wanted next; one at a time."""
        self.drop_ahead()
        self._ahead = ahead = Ahead(offset, length, lambda: self._read(files, offset, length))
        self._spawn(ahead.run)
        return ahead

    def drop_ahead(self) -> None:
        """No read is under way on return: the lanes are one thread's at a time."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.wait()

    def _read(self, files: Mapping[str, File], offset: int, length: int) -> dict[str, bytes]:
        with self.throttle.piece(length):
            found = self.drives.together(
                {drive: [partial(_bytes, file, offset, length)] for drive, file in files.items()}
            )
        data = {}
        for drive, (read,) in found.items():
            data[drive] = read or b""
            self.tally.of(drive).read_bytes += length
        self.progress()
        return data

    def bad(self, drive: str) -> None:
        """Count wrong bytes, or none, against the drive itself."""
        self.commit(lambda: self.mender.count_bad(drive))

    def settle(self, drive: str, mend: Mend) -> None:
        """Count what became of something bad. Raises ``Recycled``."""
        if mend is Mend.VOID:
            raise Recycled
        found = self.tally.of(drive)
        if mend is Mend.MENDED:
            found.repaired += 1
        else:
            found.unrepairable += 1

    def blame(self, late: DriveTimeout) -> None:
        """A drive did not answer: it counts against it, and one that still does not while another
        does leaves the mirror. A spot that hangs does not cost a drive. Raises ``Unavailable``."""
        self.drop_ahead()
        self.bad(late.drive)
        members = self.members
        silent = self.drives.silent(members)
        if silent:
            self.commit(lambda: self.mender.give_up(silent, members))


def _bytes(file: File, offset: int, length: int) -> bytes:
    """Bytes of a file, and zeros for the blocks of it that cannot be read."""
    try:
        return file.read_at(offset, length, past_cache=True)
    except DriveFault as fault:
        if not fault.is_bad_spot:
            raise
    parts: list[bytes] = []
    for at in range(offset, offset + length, PIECE_BYTES):
        parts += _blocks(file, at, min(PIECE_BYTES, offset + length - at))
    return b"".join(parts)


def _blocks(file: File, offset: int, length: int) -> list[bytes]:
    try:
        return [file.read_at(offset, length, past_cache=True)]
    except DriveFault as fault:
        if not fault.is_bad_spot:
            raise
    parts: list[bytes] = []
    bad = 0
    for at in range(offset, offset + length, BLOCK_BYTES):
        size = min(BLOCK_BYTES, offset + length - at)
        try:
            parts.append(file.read_at(at, size, past_cache=True))
        except DriveFault as fault:
            bad += 1
            if not fault.is_bad_spot or bad > BAD_BLOCKS_MAX:
                raise
            parts.append(bytes(size))
    return parts
