"""The drives of a start: guarded while their logs are made one, then opened for the mirror.

Owns what is open on them meanwhile. Invariant: what recovery used is closed before the drive is
opened for the mirror, so that no call of the start can follow into its life.

Committer thread only.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

from appliance.core.epochs import Standing
from appliance.core.ports import Volume
from appliance.engine.mirror.guard import Guard, GuardedVolume
from appliance.engine.mirror.member import Calls, Member, open_member
from appliance.engine.mirror.roll_call import RollCall
from appliance.engine.mirror.state import Callbacks
from appliance.engine.mirror.superblock import Blank, SuperblockFile, Unreadable
from appliance.engine.mirror.votes import generation_of


class StartDrives:
    """Of one attempt. ``guarded`` holds the members for recovery, by drive; after ``hand_over``
    ``members`` are those of the mirror, and ``others`` the superblocks of present drives that left:
    their votes count for epochs, though their data does not."""

    def __init__(
        self, mirror_id: bytes, volumes: Sequence[Volume], calls: Calls, callbacks: Callbacks
    ) -> None:
        self._mirror_id = mirror_id
        self._plain = {volume.name: volume for volume in volumes}
        self._guard = Guard(calls, volumes)
        self._callbacks = callbacks
        self.guarded: dict[str, Member] = {}
        self.members: dict[str, Member] = {}
        self.others: dict[str, SuperblockFile] = {}

    @property
    def volumes(self) -> Sequence[GuardedVolume]:
        """The drives, guarded."""
        return self._guard.volumes

    def open(self, roll: RollCall) -> int:
        """Open the drives in sync for recovery; their segments' size. Raises ``DriveFault``,
        ``Unavailable``, ``NobodyAnswers``."""
        size = 0
        for volume, block in roll.found:
            drive = block.drive_id
            if drive in roll.serve.in_sync:
                size = block.segment_size_bytes
                generation = generation_of(roll.serve.history, drive)
                self.guarded[drive] = open_member(volume, drive, self._mirror_id, size, generation)
        return size

    def least_total_bytes(self) -> int:
        """The size of the smallest one in sync. Raises what ``open`` raises."""
        return min(member.volume.space().total_bytes for member in self.guarded.values())

    def hand_over(self, roll: RollCall, segment_size_bytes: int) -> None:
        """The drives themselves, opened afresh: what the guard had open ends here. Raises what
        ``open`` raises."""
        for volume, block in roll.found:
            drive = block.drive_id
            plain = self._plain[volume.name]
            if drive in self.guarded:
                self.guarded[drive].close_files()
                opening = partial(
                    open_member,
                    plain,
                    drive,
                    self._mirror_id,
                    segment_size_bytes,
                    self.guarded[drive].generation,
                )
                self.members[drive] = self._guard.opened(
                    volume.name, "opening it to serve", opening, Member.close_files
                )
            elif roll.serve.standings.get(drive) is Standing.STALE:
                opened = self._guard.opened(
                    volume.name,
                    "opening its superblock",
                    partial(SuperblockFile.open, plain),
                    _close_superblock,
                )
                if isinstance(opened, SuperblockFile):
                    self.others[drive] = opened

    def close_others(self) -> None:
        """They have voted. Idempotent."""
        for superblock in self.others.values():
            superblock.close()
        self.others.clear()

    def abandon(self, failed: Collection[Volume]) -> None:
        """Close what is open, but for the volumes; a drive that failed, or hangs, whole, where that
        harms nobody."""
        for member in self.members.values():
            if member.volume in failed:
                self._callbacks.retire(member)
            else:
                member.close_files()
        for member in self.guarded.values():
            member.close_files()
        self.close_others()
        names = {volume.name for volume in failed}
        for volume in self.volumes:
            if volume.is_in_use or volume.name in names:
                self._callbacks.discard(volume)


def _close_superblock(opened: SuperblockFile | Blank | Unreadable) -> None:
    if isinstance(opened, SuperblockFile):
        opened.close()
