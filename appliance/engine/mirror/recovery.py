"""Bringing the logs of the in-sync drives together before anything is served.

Owns the repair of one drive's log from the other's. Refuses, by reporting ``losses``, what is bad
on every drive: nothing is truncated or skipped silently. Invariant: when this returns without
losses, the logs of all members are the same bytes up to the same tail, and the last batch has been
written again, so that it is durable whoever left it behind.

Every step may be cut short and done again: each only makes one drive more like the other.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from appliance.core.errors import DriveFault
from appliance.core.ports import Volume
from appliance.engine.mirror.accepted import Loss, loss_of, read_losses, write_losses
from appliance.engine.mirror.format import (
    BlobKind,
    DecodedBatch,
    FileBlob,
    Kind,
    decode_batch,
    decode_file_blob,
)
from appliance.engine.mirror.log import Damage, LogScan
from appliance.engine.mirror.member import Member
from appliance.engine.mirror.planner import Tail
from appliance.engine.mirror.segment import (
    LOG_DIRECTORY,
    SegmentState,
    SegmentTable,
    segment_path,
)

ROUNDS_MAX: Final = 4
"""Repairs may uncover what lay behind the damage; more rounds than this mean a failing drive."""
COPY_BYTES: Final = 1024 * 1024
Ensure: TypeAlias = Callable[[Sequence[FileBlob]], None]
"""Sees to it that every member has these blobs, durably."""


@dataclass(slots=True)
class Survey:
    """What one member's log was found to be."""

    table: SegmentTable
    tail: Tail
    damage: list[Damage]
    last: DecodedBatch | None
    torn: bool = False


@dataclass(slots=True)
class LogRecovery:
    """The common log. ``repaired`` counts repairs by drive; ``losses`` tells what no drive has and
    nobody has accepted to lose; ``lied`` names drives that lack more than a crash can explain, and
    ``torn`` those whose log ended in a batch that was not whole. The last two tell what the start
    did about the index."""

    table: SegmentTable = field(default_factory=SegmentTable)
    tail: Tail = field(default_factory=Tail)
    last: DecodedBatch | None = None
    repaired: dict[str, int] = field(default_factory=dict)
    copied_batches: int = 0
    losses: list[str] = field(default_factory=list)
    accepted: set[Loss] = field(default_factory=set)
    unaccepted: set[Loss] = field(default_factory=set)
    contradiction: str = ""
    """Why nothing can be accepted before a drive is chosen."""
    lied: list[str] = field(default_factory=list)
    torn: set[str] = field(default_factory=set)
    aligned_segments: int = 0
    replayed_batches: int = 0
    rebuilt_index: bool = False

    def count(self, drive: str) -> None:
        """One repair on ``drive``."""
        self.repaired[drive] = self.repaired.get(drive, 0) + 1


def recover_logs(
    members: Mapping[str, Member],
    after: Tail | None,
    *,
    accept_losses: bool = False,
    chosen: str | None = None,
    ensure: Ensure = lambda blobs: None,
) -> LogRecovery:
    """Make the members' logs one. ``after``: everything up to there is known good (the index has
    applied it from this log). ``accept_losses``: go on without what no drive has, and remember that
    on every drive. ``chosen``: the drive that is right where two contradict each other. ``ensure``:
    called with the blobs of a batch before it is copied to a drive. Raises ``DriveFault``, also
    for a drive that cannot be made equal: then the other one has it all."""
    recovery = LogRecovery()
    for member in members.values():
        recovery.accepted |= read_losses(member.volume)
    surveys: dict[str, Survey] = {}
    for _ in range(ROUNDS_MAX):
        surveys = {drive: survey(member, after) for drive, member in members.items()}
        recovery.losses, recovery.unaccepted = [], set()
        recovery.torn |= {drive for drive, found in surveys.items() if found.torn}
        changed = _align_segments(members, surveys, recovery)
        changed = _repair(members, surveys, recovery) or changed
        if not changed:
            changed = _copy_tail(members, surveys, recovery, ensure)
        if not changed:
            break
    else:
        surveys = {drive: survey(member, after) for drive, member in members.items()}
    ahead = max(surveys.values(), key=lambda found: found.tail.sequence)
    if accept_losses and chosen in surveys and surveys[chosen].tail.sequence == ahead.tail.sequence:
        ahead = surveys[chosen]
    recovery.table, recovery.tail, recovery.last = ahead.table, ahead.tail, ahead.last
    for drive, found in surveys.items():
        if found.tail == ahead.tail:
            continue
        if found.tail.sequence == ahead.tail.sequence and not (accept_losses and chosen):
            recovery.contradiction = f"the drives hold different batches {ahead.tail.sequence}"
            recovery.losses.append(recovery.contradiction)
            continue
        # Repaired again and again, and still not the same: it does not keep what it is given.
        reason = "its log cannot be made equal to its peer's"
        raise DriveFault(drive, "recovery", errno.EILSEQ, reason)
    accept_losses = accept_losses and not recovery.contradiction
    if accept_losses and recovery.unaccepted:
        for member in members.values():
            write_losses(member.volume, recovery.accepted | recovery.unaccepted)
    if accept_losses or not recovery.losses:
        for member in members.values():
            member.log.settle(recovery.table.free())
            if recovery.last is not None:
                member.log.rewrite(recovery.last)
    return recovery


def survey(member: Member, after: Tail | None) -> Survey:
    """Scan a member's log to its end. Raises ``DriveFault``."""
    scan: LogScan = member.log.scan(after, records=False)
    damage: list[Damage] = []
    last: DecodedBatch | None = None
    for found in scan:
        if isinstance(found, Damage):
            damage.append(found)
            last = None
        else:
            last = found
    last = decode_batch(last.data) if last is not None else None
    return Survey(scan.table, scan.tail, damage, last, scan.torn)


def _align_segments(
    members: Mapping[str, Member], surveys: Mapping[str, Survey], recovery: LogRecovery
) -> bool:
    """Complete what was done to the segments of one drive only: a recycle (a higher generation
    proves that it was allowed) or a preparation. Returns whether anything was done."""
    newest: dict[int, SegmentState] = {}
    for found in surveys.values():
        for state in found.table.states():
            known = newest.get(state.segment)
            if known is None or state.generation > known.generation:
                newest[state.segment] = state
    changed = False
    for drive, member in members.items():
        found = surveys[drive]
        damaged = {damage.segment for damage in found.damage}
        for segment, state in newest.items():
            own = found.table.get(segment)
            if own is not None and own.generation < state.generation:
                member.log.recycle(SegmentState(segment, state.generation))
                recovery.aligned_segments += 1
                changed = True
            elif own is None and segment not in damaged:
                _prepare(members, member, state)
                recovery.aligned_segments += 1
                changed = True
    return changed


def _prepare(members: Mapping[str, Member], member: Member, state: SegmentState) -> None:
    """Make a segment that another drive has; where there is no room, take a free one back there."""
    try:
        member.log.prepare(SegmentState(state.segment, state.generation))
    except DriveFault as fault:
        if fault.errno != errno.ENOSPC or state.first_sequence:
            raise
        for other in members.values():
            other.log.remove(state.segment)


def _repair(
    members: Mapping[str, Member], surveys: Mapping[str, Survey], recovery: LogRecovery
) -> bool:
    """Put back from a peer what does not verify. Returns whether anything was done."""
    changed = False
    for drive, found in surveys.items():
        for damage in found.damage:
            peer = _sound_peer(drive, damage, members, surveys)
            if peer is None and any(known.covers(damage) for known in recovery.accepted):
                continue
            if peer is None and _was_never_used(drive, damage, surveys):
                members[drive].log.remove(damage.segment)
                recovery.count(drive)
                changed = True
                continue
            if peer is None:
                recovery.unaccepted.add(loss_of(damage))
                recovery.losses.append(
                    f"drive {drive}: log segment {damage.segment:08x} at {damage.offset}: "
                    f"{damage.reason} (batches {damage.first_sequence} to "
                    f"{damage.last_sequence or 'unknown'}), and no other drive has them"
                )
                continue
            _copy_damaged(members[peer], members[drive], damage)
            recovery.count(drive)
            changed = True
    return changed


def _sound_peer(
    drive: str,
    damage: Damage,
    members: Mapping[str, Member],
    surveys: Mapping[str, Survey],
) -> str | None:
    for other, found in surveys.items():
        if other == drive or found.table.get(damage.segment) is None:
            continue
        if not any(damage.overlaps(theirs) for theirs in found.damage):
            return other
    return None


def _was_never_used(drive: str, damage: Damage, surveys: Mapping[str, Survey]) -> bool:
    """Whether a segment whose header does not verify was only being prepared: what is used lies on
    every in-sync drive, and a manifest that named it would have told that it is missing there."""
    others = [found for other, found in surveys.items() if other != drive]
    return (
        bool(others)
        and damage.generation == 0
        and damage.first_sequence == 0
        and all(
            found.table.get(damage.segment) is None
            and all(theirs.segment != damage.segment for theirs in found.damage)
            for found in others
        )
    )


def _copy_damaged(source: Member, target: Member, damage: Damage) -> None:
    if damage.length and target.volume.stat(segment_path(damage.segment)) is not None:
        copy_raw(source, target, damage.segment, damage.offset, damage.length)
    else:
        copy_segment(source.volume, target.volume, damage.segment)
        target.log.close()  # it may hold the file that was replaced


def copy_raw(source: Member, target: Member, segment: int, offset: int, length: int) -> None:
    """Copy bytes of a segment as they lie. Durable on return. Raises ``DriveFault``."""
    end = offset + length
    while offset < end:
        data = source.log.read_raw(segment, offset, min(COPY_BYTES, end - offset))
        target.log.write_raw(segment, offset, data)
        offset += len(data)


def copy_segment(source: Volume, target: Volume, segment: int) -> None:
    """Copy a whole segment, past both page caches, under its final name only once it is whole and
    flushed. Whoever holds the file that is replaced must let go of it. Raises ``DriveFault``."""
    path = segment_path(segment)
    partial = f"{path}.new"
    if target.stat(partial) is not None:
        target.unlink(partial)
    reading = source.open(path)
    try:
        length = reading.size_bytes()
        file = target.open(partial, write=True, create=True)
        try:
            file.allocate(length)
            for offset in range(0, length, COPY_BYTES):
                wanted = min(COPY_BYTES, length - offset)
                file.write_at(offset, reading.read_at(offset, wanted, past_cache=True))
            file.flush()
        finally:
            file.close()
    finally:
        reading.close()
    target.rename(partial, path)
    target.flush_directory(LOG_DIRECTORY)


def _copy_tail(
    members: Mapping[str, Member],
    surveys: Mapping[str, Survey],
    recovery: LogRecovery,
    ensure: Ensure,
) -> bool:
    """A batch that reached only some drives was never acknowledged, but may be: it is copied to
    the others, never dropped once it was whole anywhere. Returns whether anything was done."""
    ahead = max(surveys, key=lambda drive: surveys[drive].tail.sequence)
    changed = False
    for drive, found in surveys.items():
        missing = surveys[ahead].tail.sequence - found.tail.sequence
        if missing == 0:
            continue
        if missing > 1 and drive not in recovery.lied:
            recovery.lied.append(drive)
        for batch in members[ahead].log.scan(found.tail):
            if isinstance(batch, DecodedBatch):
                ensure(file_blobs(batch))  # a drive that lost more than its last batch lacks them
                members[drive].log.append(batch)
                recovery.copied_batches += 1
                changed = True
            elif not any(batch.overlaps(known) for known in surveys[ahead].damage):
                reason = "it does not give back what it showed just before"
                raise DriveFault(ahead, "recovery", errno.EIO, reason)
    return changed


def file_blobs(batch: DecodedBatch | None) -> Sequence[FileBlob]:
    """The blob files a batch's records own."""
    if batch is None:
        return []
    return [
        decode_file_blob(entry.record.blob)
        for entry in batch.entries
        if entry.record.kind in {Kind.PUT, Kind.MOVE} and entry.record.blob_kind is BlobKind.FILE
    ]
