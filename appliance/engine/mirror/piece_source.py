"""Where compaction reads a segment from: piece by piece, from a drive that answers.

Owns the choice of the drive, and what becomes of a piece that does not verify or does not come
back. Refuses to wait longer than a drive's deadline: a drive that hangs in a read is asked for
nothing more here until that read is back, so that at most one of them is out per drive. Invariant:
compaction waits for no drive while another one has the piece, and keeps no commit waiting.

Committer thread only; the reading itself runs in another.
"""

from __future__ import annotations

import errno

from appliance.core.errors import DriveTimeout
from appliance.engine.mirror.member import Member
from appliance.engine.mirror.room import Spawn
from appliance.engine.mirror.segment_pieces import PieceReading
from appliance.engine.mirror.state import MirrorState
from appliance.engine.mirror.victims import Victim, Victims


class PieceSource:
    """Of one open mirror."""

    def __init__(self, state: MirrorState, victims: Victims, spawn: Spawn) -> None:
        self._state = state
        self._victims = victims
        self._spawn = spawn
        self._began_s = 0.0
        self._hung: list[PieceReading] = []

    def fetch(self, victim: Victim) -> bool:
        """Take in the piece that was read, and have the next one read. False: not there yet, or
        given up. Raises ``Stopped``."""
        reading = victim.reading
        if reading is None:
            self._read(victim, None, frozenset())
            reading = victim.reading
        if reading is None:
            return False
        if not reading.is_done:
            if self._is_gone(reading.member):
                self._read_elsewhere(victim, reading, "its drive left")
            elif self._is_overdue():
                self._leave_behind(victim, reading)
            return False
        if reading.fault is not None:
            self._read_elsewhere(victim, reading, str(reading.fault))
            return False
        for batch in reading.batches:
            victim.entries.extend(batch.entries)
        victim.is_read = reading.at_end
        if not victim.is_read:
            self._read(victim, reading, frozenset())
        return bool(victim.entries)

    def _is_gone(self, member: Member) -> bool:
        return self._state.members.get(member.drive_id) is not member

    def _is_overdue(self) -> bool:
        waited_s = self._state.clock.monotonic_s() - self._began_s
        return waited_s >= self._state.settings.deadline_s

    def _leave_behind(self, victim: Victim, reading: PieceReading) -> None:
        """The read does not come back. Its drive has to take a vote, or leaves the mirror."""
        self._hung.append(reading)
        drive = reading.member.drive_id
        late = DriveTimeout(drive, "reading a log segment", errno.ETIMEDOUT)
        self._state.callbacks.alert(f"compaction reads from another drive: {late}")
        self._state.probe()
        self._read_elsewhere(victim, reading, str(late))

    def _read(self, victim: Victim, after: PieceReading | None, tried: frozenset[str]) -> None:
        """Begin to read what follows, from the drive it was read from before if that answers; give
        up for now if none does."""
        self._hung = [reading for reading in self._hung if not reading.is_done]
        hanging = [reading.member for reading in self._hung]
        able = [
            member
            for drive, member in self._state.members.items()
            if member not in hanging and drive not in tried
        ]
        if not able:
            victim.is_given_up = True
            return
        member = after.member if after is not None and after.member in able else able[0]
        victim.reading = PieceReading(member, self._state.mirror_bytes, victim.state, after, tried)
        self._began_s = self._state.clock.monotonic_s()
        self._spawn(victim.reading.run)

    def _read_elsewhere(self, victim: Victim, failed: PieceReading, reason: str) -> None:
        """From another drive, or not at all."""
        failed.member.read_errors += 1
        tried = failed.tried | {failed.member.drive_id}
        self._read(victim, failed.after, tried)
        if victim.is_given_up and failed.fault is not None and tried >= self._state.members.keys():
            self._state.callbacks.alert(
                f"log segment {victim.state.segment:08x} cannot be compacted, and keeps its room: "
                f"{reason}"
            )
            self._victims.leave_alone(victim.state)
