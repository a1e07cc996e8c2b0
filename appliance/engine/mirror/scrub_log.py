"""A scrub of the log: every copy of every batch, read side by side and judged by its checksums.

Owns the judgement of log segments. Refuses to guess: of two copies that differ the one whose
checksums, identity, place in the chain and padding are right is right; where both are bad they are
put together block by block if that verifies; else the range is lost, and said so. Invariant: a
batch that is yielded verified, and every drive holds it, or was counted as failing.

A segment recycled meanwhile is no error: its generation says so, and it is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

from appliance.core.errors import Damaged
from appliance.core.ports import File
from appliance.engine.mirror.accepted import Loss, read_losses
from appliance.engine.mirror.format import (
    BATCH_HEADER_BYTES,
    BATCH_MAGIC,
    BLOCK_BYTES,
    BatchHeader,
    DecodedBatch,
    decode_batch,
    decode_header,
)
from appliance.engine.mirror.mend import Mend
from appliance.engine.mirror.planner import Tail
from appliance.engine.mirror.scan import Damage
from appliance.engine.mirror.scrub_kit import (
    PIECE_BYTES,
    Goal,
    Kit,
    LostRange,
    Recycled,
)
from appliance.engine.mirror.scrub_pieces import put_together
from appliance.engine.mirror.scrub_window import Window
from appliance.engine.mirror.segment import FIRST_OFFSET, SegmentState, segment_path


@dataclass(slots=True)
class _Walk:
    """A segment under way: where it is, and the bytes around."""

    segment: SegmentState
    window: Window
    offset: int
    sequence: int
    """Of the last batch; at the segment's start one less than its first may be."""
    crc: int
    verified: int = 0
    """Up to this sequence everything was compared, and counted, before."""

    @property
    def end(self) -> int:
        """Up to where batches may lie."""
        return self.window.end

    @property
    def drives(self) -> Set[str]:
        """Those that have the segment."""
        return self.window.files.keys()

    def fill(self, drives: Set[str], length: int) -> None:
        """Have so many bytes from here on."""
        self.window.fill(drives, self.offset, length)

    def slice(self, drive: str, length: int) -> bytes:
        """The bytes from here on, once they were filled."""
        return self.window.slice(drive, self.offset, length)

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
        for drive in self._kit.members:
            self._accepted |= read_losses(self._kit.volume(drive))

    def check_free(self, goal: Goal) -> None:
        """The headers of free segments: all that matters in them."""
        for segment in goal.segments:
            if not segment.first_sequence:
                try:
                    self._close(self._open(segment))
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
            walk = _Walk(segment, Window(self._kit, files, end), offset, before, crc, verified)
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
            self._close(files)

    def _close(self, files: Mapping[str, File]) -> None:
        self._kit.drop_ahead()
        for file in files.values():
            file.close()

    # -- headers and files -------------------------------------------------------------------------

    def _open(self, segment: SegmentState, verified: int = 0) -> dict[str, File]:
        """Every member's file of a segment whose header is right by now."""
        kit, path = self._kit, segment_path(segment.segment)
        files: dict[str, File] = {}
        try:
            for drive in self._present(segment):
                files[drive] = kit.open(drive, path)
            if not segment.last_sequence or segment.last_sequence > verified:
                self._check_headers(segment, files)
        except BaseException:
            self._close(files)
            raise
        return files

    def _present(self, segment: SegmentState) -> set[str]:
        """The members that have the whole file, once those that lack it were given it."""
        members = self._kit.members
        path = segment_path(segment.segment)
        present = set()
        for drive in members:
            found = self._kit.volume(drive).stat(path)
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

    def _check_headers(self, segment: SegmentState, files: Mapping[str, File]) -> None:
        kit = self._kit
        wanted = kit.mender.header_bytes(segment.segment, segment.generation)
        found = kit.read(files, 0, len(wanted))
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
        drives: Set[str] = walk.drives
        if walk.sequence < walk.verified:
            drives = {min(drives)}
        length = self._length(walk, drives)
        if length is not None:
            copies = [walk.slice(drive, length) for drive in sorted(drives)]
            if all(copy == copies[0] for copy in copies[1:]):
                batch = self._verified(walk, copies[0])
                if batch is not None:
                    return batch
        return self._judge(walk)

    def _length(self, walk: _Walk, drives: Set[str]) -> int | None:
        """Of the batch at hand, with its bytes in the window; None if no header verifies."""
        walk.fill(drives, BATCH_HEADER_BYTES)
        for drive in sorted(drives):
            length = self._header_length(walk, walk.slice(drive, BATCH_HEADER_BYTES))
            if length is not None and walk.offset + length <= walk.end:
                walk.fill(drives, length)
                return length
        return None

    def _header_length(self, walk: _Walk, data: bytes) -> int | None:
        try:
            header = decode_header(data)
        except Damaged:
            return None
        return header.padded_bytes if self._is_here(walk, header) else None

    def _is_here(self, walk: _Walk, header: BatchHeader) -> bool:
        place, segment = header.place, walk.segment
        own = (self._kit.state.mirror_bytes, segment.segment, segment.generation, walk.offset)
        return (place.mirror_id, place.segment, place.generation, place.offset) == own

    def _verified(self, walk: _Walk, data: bytes) -> DecodedBatch | None:
        """A batch that is exactly what must lie here, its padding included."""
        try:
            batch = decode_batch(data)
        except Damaged:
            return None
        if not self._is_here(walk, batch.header) or batch.header.padded_bytes != len(data):
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
        walk.window.drop()
        if self._length(walk, walk.drives) is None:
            return None
        heads = {drive: walk.slice(drive, BATCH_HEADER_BYTES) for drive in walk.drives}
        lengths = {drive: self._header_length(walk, head) for drive, head in heads.items()}
        longest = min(max(filter(None, lengths.values())), walk.end - walk.offset)
        walk.fill(walk.drives, longest)
        copies = {d: walk.slice(d, lengths[d] or longest) for d in sorted(walk.drives)}
        batches = {drive: self._verified(walk, data) for drive, data in copies.items()}
        good = next((batch for batch in batches.values() if batch is not None), None)
        if good is None:
            whole = [batch.data for batch in map(_decoded, copies.values()) if batch is not None]
            ways = [*whole, *put_together(list(copies.values()))]  # ``whole``: but for its padding
            good = next(filter(None, (self._verified(walk, data) for data in ways)), None)
        if good is None:
            return None
        if any(batch is not None and batch.data != good.data for batch in batches.values()):
            return None  # two histories: neither is to be believed over the other
        for drive, batch in batches.items():
            if batch is None:
                self._mend(walk, drive, good)
        walk.window.drop()
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
        walk.offset, walk.sequence, walk.crc = end, sequence, 0
        walk.window.drop()

    def _find_later(self, walk: _Walk) -> DecodedBatch | None:
        """The first whole batch behind the one at hand on any drive."""
        for start in range(walk.offset + BLOCK_BYTES, walk.end, PIECE_BYTES):
            length = min(PIECE_BYTES, walk.end - start)
            for offset in self._beginnings(walk, start, length):
                window = Window(self._kit, walk.window.files, walk.end)
                ahead = _Walk(walk.segment, window, offset, 0, 0)
                size = self._length(ahead, walk.drives)
                for drive in sorted(walk.drives) if size is not None else ():
                    batch = _decoded(ahead.slice(drive, size or 0))
                    if batch is not None and batch.header.place.sequence > walk.sequence:
                        return batch
        return None

    def _beginnings(self, walk: _Walk, start: int, length: int) -> list[int]:
        """Where on any drive a batch seems to begin."""
        found = set()
        for data in self._kit.read(walk.window.files, start, length).values():
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
