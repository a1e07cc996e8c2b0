"""A scrub of the log: every copy of every batch, read side by side and judged by its checksums.

Owns the judgement of log segments. Refuses to guess: of two copies that differ the one whose
checksums, identity, place in the chain and padding are right is right; where both are bad they are
put together block by block if that verifies; else the range is lost, and said so. Invariant: a
batch that is yielded verified, and every drive holds it, or was counted as failing.

A segment recycled meanwhile is no error: its generation says so, and it is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from appliance.core.errors import Damaged
from appliance.core.ports import File
from appliance.engine.mirror.accepted import Loss, read_losses
from appliance.engine.mirror.format import (
    BATCH_HEADER_BYTES,
    BATCH_MAGIC,
    BLOCK_BYTES,
    DecodedBatch,
    decode_batch,
    decode_header,
)
from appliance.engine.mirror.mend import Mend
from appliance.engine.mirror.planner import Tail
from appliance.engine.mirror.scan import Damage
from appliance.engine.mirror.scrub_kit import (
    PIECE_BYTES,
    Ahead,
    Goal,
    Kit,
    LostRange,
    Recycled,
    open_for_reading,
)
from appliance.engine.mirror.scrub_pieces import put_together
from appliance.engine.mirror.segment import FIRST_OFFSET, SegmentState, segment_path


@dataclass(slots=True)
class _Walk:
    """A segment under way: where it is, and the bytes around."""

    segment: SegmentState
    files: Mapping[str, File]
    end: int
    offset: int
    sequence: int
    """Of the last batch; at the segment's start one less than its first may be."""
    crc: int
    verified: int = 0
    """Up to this sequence everything was compared, and counted, before."""
    base: int = 0
    window: dict[str, bytes] = field(default_factory=dict)
    ahead: Ahead | None = None
    """What follows the window, on its way."""

    @property
    def is_first(self) -> bool:
        """Whether the segment's first batch is next: what the table says of its sequence is an
        upper bound, for it may have been bad when the table was made."""
        return self.offset == FIRST_OFFSET


class LogScrub:
    """Walks the log of all members. ``gap`` is set when a segment was gone before it was read."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._size_bytes = kit.state.segment_size_bytes
        self._accepted: set[Loss] = set()
        self.gap = False

    def learn_losses(self) -> None:
        """What the operator has accepted to lose is not found again."""
        for member in self._kit.members.values():
            self._accepted |= read_losses(member.volume)

    def check_free(self, goal: Goal) -> None:
        """The headers of free segments: all that matters in them."""
        for segment in goal.segments:
            if not segment.first_sequence:
                try:
                    self._check_headers(segment, self._present(segment))
                except Recycled:
                    continue

    def walk(self, goal: Goal, after: Tail, until: int, verified: int) -> Iterator[DecodedBatch]:
        """The batches behind ``after`` up to sequence ``until``. What lies up to ``verified`` was
        compared before: it is read from one drive only, unless that is bad."""
        for segment in goal.used():
            if segment.last_sequence <= after.sequence or segment.first_sequence > until:
                continue
            try:
                yield from self._segment(goal, segment, after, until, verified)
            except Recycled:
                self.gap = True

    def _segment(
        self, goal: Goal, segment: SegmentState, after: Tail, until: int, verified: int
    ) -> Iterator[DecodedBatch]:
        files = self._open(segment, verified)
        try:
            is_same = (segment.segment, segment.generation) == (after.segment, after.generation)
            offset, crc = (after.offset, after.crc) if is_same else (FIRST_OFFSET, 0)
            before = after.sequence if is_same else segment.first_sequence - 1
            end = goal.end_of(segment, self._size_bytes)
            walk = _Walk(segment, files, end, offset, before, crc, verified)
            if not files:
                self._lose(walk, end, segment.last_sequence)
            counted = offset if is_same else 0
            while walk.sequence < min(segment.last_sequence, until):
                batch = self._next(walk)
                if batch is None:
                    self._skip(walk)
                    continue
                place = batch.header.place
                walk.sequence, walk.crc = place.sequence, batch.header.crc
                walk.offset += batch.header.padded_bytes
                if place.sequence > verified:
                    self._kit.tally.done_bytes += walk.offset - counted
                counted = walk.offset
                yield batch
            if segment.last_sequence > verified and walk.sequence >= segment.last_sequence:
                self._kit.tally.done_bytes += max(end - counted, 0)
        finally:
            self._kit.drop_ahead()
            for file in files.values():
                file.close()

    # -- headers and files -------------------------------------------------------------------------

    def _open(self, segment: SegmentState, verified: int) -> dict[str, File]:
        """Every member's file of a segment whose header is right by now."""
        present = self._present(segment)
        if segment.last_sequence > verified:
            self._check_headers(segment, present)
        path = segment_path(segment.segment)
        files: dict[str, File] = {}
        for drive, member in self._kit.members.items():
            if drive in present:
                files[drive] = open_for_reading(member.volume, path)
        return files

    def _present(self, segment: SegmentState) -> set[str]:
        """The members that have the whole file, once those that lack it were given it."""
        members = self._kit.members
        path = segment_path(segment.segment)
        present = set()
        for drive, member in members.items():
            found = member.volume.stat(path)
            if found is not None and found.size_bytes == self._size_bytes:
                present.add(drive)
        for drive in sorted(set(members) - present):
            if not self._is_current(segment):
                raise Recycled
            self._kit.tally.of(drive).missing_files += 1
            self._kit.bad(drive)
            mend = self._give(drive, sorted(present), segment)
            self._kit.settle(drive, mend)
            if mend is Mend.MENDED:
                present.add(drive)
        return present

    def _give(self, drive: str, sources: list[str], segment: SegmentState) -> Mend:
        """Have a member that lacks a segment get it from one that does not."""
        kit = self._kit
        if not sources:
            return Mend.FAILED
        number, generation = segment.segment, segment.generation
        return kit.commit(lambda: kit.mender.segment(drive, sources[0], number, generation))

    def _check_headers(self, segment: SegmentState, drives: set[str]) -> None:
        kit = self._kit
        wanted = kit.mender.header_bytes(segment.segment, segment.generation)
        path = segment_path(segment.segment)
        members = kit.members
        files = {d: open_for_reading(members[d].volume, path) for d in drives if d in members}
        try:
            found = kit.read(files, 0, len(wanted))
        finally:
            for file in files.values():
                file.close()
        for drive in sorted(drive for drive, data in found.items() if data != wanted):
            if not self._is_current(segment):
                raise Recycled
            kit.tally.of(drive).bad_segments += 1
            kit.bad(drive)
            kit.settle(drive, self._write_header(drive, segment))

    def _write_header(self, drive: str, segment: SegmentState) -> Mend:
        kit = self._kit
        return kit.commit(lambda: kit.mender.header(drive, segment.segment, segment.generation))

    def _is_current(self, segment: SegmentState) -> bool:
        kit = self._kit
        return kit.commit(lambda: kit.mender.is_current(segment.segment, segment.generation))

    # -- batches -----------------------------------------------------------------------------------

    def _next(self, walk: _Walk) -> DecodedBatch | None:
        """The batch at hand, good on every drive or counted where it is not; None if lost."""
        drives = set(walk.files)
        if walk.sequence < walk.verified:
            drives = {min(drives)}
        length = self._length(walk, drives)
        if length is not None:
            copies = [self._slice(walk, drive, length) for drive in sorted(drives)]
            if all(copy == copies[0] for copy in copies[1:]):
                batch = self._verified(walk, copies[0])
                if batch is not None:
                    return batch
        return self._judge(walk)

    def _length(self, walk: _Walk, drives: set[str]) -> int | None:
        """Of the batch at hand, with its bytes in the window; None if no header verifies."""
        self._fill(walk, drives, BATCH_HEADER_BYTES)
        for drive in sorted(drives):
            length = self._header_length(walk, self._slice(walk, drive, BATCH_HEADER_BYTES))
            if length is not None and walk.offset + length <= walk.end:
                self._fill(walk, drives, length)
                return length
        return None

    def _fill(self, walk: _Walk, drives: set[str], length: int) -> None:
        stop = walk.offset + length
        is_there = set(walk.window) == drives and walk.base <= walk.offset
        if is_there and all(walk.base + len(data) >= stop for data in walk.window.values()):
            return
        files = {drive: walk.files[drive] for drive in drives}
        self._go_on(walk, files)
        held = min((len(data) for data in walk.window.values()), default=0)
        step = PIECE_BYTES * self._kit.depth
        if held < length:
            wanted = min(max(length, step), walk.end - walk.offset)
            walk.window = self._kit.read(files, walk.offset, wanted)
            held = wanted
        follows = walk.offset + held
        if self._kit.depth > 1 and follows < walk.end:
            size = min(step, walk.end - follows)
            walk.ahead = self._kit.read_ahead(files, follows, size)

    def _go_on(self, walk: _Walk, files: Mapping[str, File]) -> None:
        """Let the window begin here, with what was read ahead behind what is left of it."""
        left = walk.offset - walk.base
        ahead, walk.ahead = walk.ahead, None
        rest = {drive: data[left:] for drive, data in walk.window.items()} if left >= 0 else {}
        walk.base, walk.window = walk.offset, {}
        if ahead is None or set(rest) != set(files):
            return
        more = ahead.result()
        if all(walk.offset + len(data) == ahead.offset for data in rest.values()):
            walk.window = {drive: rest[drive] + more[drive] for drive in rest}

    def _slice(self, walk: _Walk, drive: str, length: int) -> bytes:
        at = walk.offset - walk.base
        return walk.window[drive][at : at + length]

    def _header_length(self, walk: _Walk, data: bytes) -> int | None:
        try:
            header = decode_header(data)
        except Damaged:
            return None
        place, segment = header.place, walk.segment
        own = (self._kit.state.mirror_bytes, segment.segment, segment.generation, walk.offset)
        if (place.mirror_id, place.segment, place.generation, place.offset) != own:
            return None
        return header.padded_bytes

    def _verified(self, walk: _Walk, data: bytes) -> DecodedBatch | None:
        """A batch that is exactly what must lie here, its padding included."""
        if self._header_length(walk, data) != len(data):
            return None
        try:
            batch = decode_batch(data)
        except Damaged:
            return None
        sequence = batch.header.place.sequence
        if sequence != walk.sequence + 1 and not (walk.is_first and sequence <= walk.sequence):
            return None
        if walk.crc and batch.header.place.previous_crc != walk.crc:
            return None
        unused = data[BATCH_HEADER_BYTES + batch.header.payload_bytes :]
        return batch if unused.count(0) == len(unused) else None

    def _judge(self, walk: _Walk) -> DecodedBatch | None:
        """Something is wrong here: read it again from every drive, and tell right from wrong."""
        walk.window = {}
        if self._length(walk, set(walk.files)) is None:
            return None
        heads = {drive: self._slice(walk, drive, BATCH_HEADER_BYTES) for drive in walk.files}
        lengths = {drive: self._header_length(walk, head) for drive, head in heads.items()}
        longest = min(max(filter(None, lengths.values())), walk.end - walk.offset)
        self._fill(walk, set(walk.files), longest)
        copies = {
            drive: self._slice(walk, drive, lengths[drive] or longest)
            for drive in sorted(walk.files)
        }
        batches = {drive: self._verified(walk, data) for drive, data in copies.items()}
        good = next((batch for batch in batches.values() if batch is not None), None)
        if good is None:
            ways = put_together(list(copies.values()))
            good = next(filter(None, (self._verified(walk, data) for data in ways)), None)
        if good is None:
            return None
        if any(batch is not None and batch.data != good.data for batch in batches.values()):
            return None  # two histories: neither is to be believed over the other
        for drive, batch in batches.items():
            if batch is None:
                self._mend(walk, drive, good)
        walk.window = {}
        return good

    def _mend(self, walk: _Walk, drive: str, good: DecodedBatch) -> None:
        kit, segment = self._kit, walk.segment
        if not self._is_current(segment):
            raise Recycled
        kit.tally.of(drive).bad_batches += 1
        kit.bad(drive)
        place = (segment.segment, segment.generation, walk.offset)
        kit.settle(drive, kit.commit(lambda: kit.mender.batch(drive, place, good.data)))

    # -- losses ------------------------------------------------------------------------------------

    def _skip(self, walk: _Walk) -> None:
        """Nothing good lies here: go on at the next whole batch of any drive."""
        if not self._is_current(walk.segment):
            raise Recycled
        found = self._find_later(walk)
        if found is None:
            self._lose(walk, walk.end, walk.segment.last_sequence)
        else:
            place = found.header.place
            self._lose(walk, place.offset, place.sequence - 1)

    def _lose(self, walk: _Walk, end: int, sequence: int) -> None:
        segment = walk.segment
        lost = LostRange(segment.segment, segment.generation, walk.offset, end)
        damage = Damage(*lost[:3], end - walk.offset, walk.sequence + 1, sequence, "")
        if lost not in self._kit.lost:
            self._kit.lost.append(lost)
            is_known = any(known.covers(damage) for known in self._accepted)
            if sequence > walk.verified and not is_known:
                for drive in self._kit.members:
                    self._kit.tally.of(drive).bad_batches += 1
                    self._kit.tally.of(drive).unrepairable += 1
                    self._kit.bad(drive)
        walk.offset, walk.sequence, walk.crc, walk.window = end, sequence, 0, {}

    def _find_later(self, walk: _Walk) -> DecodedBatch | None:
        """The first whole batch behind the one at hand on any drive."""
        for start in range(walk.offset + BLOCK_BYTES, walk.end, PIECE_BYTES):
            length = min(PIECE_BYTES, walk.end - start)
            for offset in self._beginnings(walk, start, length):
                ahead = _Walk(walk.segment, walk.files, walk.end, offset, 0, 0)
                size = self._length(ahead, set(walk.files))
                for drive in sorted(walk.files) if size is not None else ():
                    batch = _decoded(self._slice(ahead, drive, size or 0))
                    if batch is not None and batch.header.place.sequence > walk.sequence:
                        return batch
        return None

    def _beginnings(self, walk: _Walk, start: int, length: int) -> list[int]:
        """Where on any drive a batch seems to begin."""
        found = set()
        for data in self._kit.read(walk.files, start, length).values():
            at = data.find(BATCH_MAGIC)
            while at >= 0:
                if at % BLOCK_BYTES == 0:
                    found.add(start + at)
                at = data.find(BATCH_MAGIC, at + 1)
        return sorted(found)


def _decoded(data: bytes) -> DecodedBatch | None:
    try:
        return decode_batch(data)
    except Damaged:
        return None
