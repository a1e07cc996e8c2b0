"""Reading one drive's log from end to end, telling a torn tail from corruption.

Owns the rule: *a batch that does not verify is a torn tail only if no later sequence exists in its
segment or in any newer one*; otherwise it is damage, which the other drive may repair and which is
never truncated away. Invariant: every batch yielded is verified whole, at its place, and follows
its predecessor by sequence and CRC; a gap in the sequence is either a recycled segment, which the
manifests prove, or reported.

A manifest begins every segment and names all used ones with their last sequence. So a segment that
is missing or ends early is told from one whose generation went up because it was recycled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from appliance.core.errors import Damaged
from appliance.core.ports import File, Volume
from appliance.engine.mirror.format import (
    BATCH_HEADER_BYTES,
    BATCH_MAGIC,
    BLOCK_BYTES,
    BatchHeader,
    DecodedBatch,
    Kind,
    ManifestEntry,
    decode_batch,
    decode_header,
    decode_manifest,
)
from appliance.engine.mirror.planner import Tail
from appliance.engine.mirror.segment import (
    FIRST_OFFSET,
    SegmentState,
    SegmentTable,
    decode_segment_header,
    segment_ids,
    segment_path,
)
from appliance.engine.mirror.window import Window

WINDOW_BYTES: Final = 1024 * 1024
SURVEY_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Damage:
    """A part of the log this drive lacks although it was written. ``length`` 0: no bytes of this
    drive belong to it (the file is missing, or a chain breaks). Sequences are those lost here;
    ``last_sequence`` 0 if not known."""

    segment: int
    generation: int
    offset: int
    length: int
    first_sequence: int
    last_sequence: int
    reason: str

    def overlaps(self, other: Damage) -> bool:
        """Whether both take something from the same place."""
        if self.segment != other.segment:
            return False
        if self.length == 0 or other.length == 0:
            return True
        return (
            self.offset < other.offset + other.length and other.offset < self.offset + self.length
        )


@dataclass(slots=True)
class _Found:
    """A segment as surveyed: its state, and the manifest its first batch carries, if any."""

    state: SegmentState
    first_offset: int = FIRST_OFFSET
    """Where the batch lies that ``state.first_sequence`` names: behind damage, or at the start."""
    manifest: tuple[int, dict[int, ManifestEntry]] | None = None


class LogScan:
    """Iterate once, to the end. Then ``tail``, ``torn`` and ``table`` say where and how it ended.

    Raises ``DriveFault`` when the drive itself fails.
    """

    def __init__(
        self,
        volume: Volume,
        mirror_id: bytes,
        segment_size_bytes: int,
        after: Tail | None,
        *,
        records: bool = True,
    ) -> None:
        """Without ``records`` batches are verified all the same, but carry no entries, which is
        most of the work."""
        self._records = records
        self._volume = volume
        self._mirror_id = mirror_id
        self._size_bytes = segment_size_bytes
        self._after = after or Tail()
        self._damage: list[Damage] = []
        self._found: dict[int, _Found] = {}
        self._next_segment = 1
        self._listed: dict[int, ManifestEntry] = {}
        self._ends: dict[int, int] = {}
        self._bad_blocks: set[tuple[int, int]] = set()
        self.tail = self._after
        """Where the next batch goes, once the scan is exhausted."""
        self.torn = False
        """Whether a batch at the tail was begun and is not whole."""

    def __iter__(self) -> Iterator[DecodedBatch | Damage]:
        self._survey()
        self._read_manifests(self._used())
        used = self._used()
        yield from self._damage
        for number, state in enumerate(used):
            follower = used[number + 1] if number + 1 < len(used) else None
            yield from self._segment(state, follower)
        self._look_for_torn_start()

    @property
    def table(self) -> SegmentTable:
        """The segments of this drive, with what the walk learnt of their ends."""
        states = [
            replace(found.state, last_sequence=self._ends.get(segment, 0))
            for segment, found in self._found.items()
        ]
        return SegmentTable(states, next_segment=self._next_segment, listed=self._listed)

    def _used(self) -> list[SegmentState]:
        """The segments that hold something, from old to new."""
        states = (found.state for found in self._found.values())
        return sorted((s for s in states if s.first_sequence), key=lambda s: s.first_sequence)

    def _window(self, file: File, segment: int, piece_bytes: int) -> Window:
        return Window(file, segment, self._size_bytes, self._bad_blocks, piece_bytes)

    def _survey(self) -> None:
        for segment in segment_ids(self._volume):
            self._next_segment = max(self._next_segment, segment + 1)
            file = self._volume.open(segment_path(segment))
            try:
                self._survey_segment(segment, self._window(file, segment, SURVEY_BYTES))
            finally:
                file.close()

    def _survey_segment(self, segment: int, window: Window) -> None:
        try:
            header = decode_segment_header(window.read(0, BLOCK_BYTES))
            if (header.mirror_id, header.segment) != (self._mirror_id, segment):
                raise Damaged("cannot read a segment's header: it belongs elsewhere")
        except Damaged as damage:
            self._damage.append(Damage(segment, 0, 0, BLOCK_BYTES, 0, 0, str(damage)))
            return
        state = SegmentState(segment, header.generation)
        found = self._found[segment] = _Found(state)
        batch = self._verified(window, state, FIRST_OFFSET, records=True)  # for its manifest
        if batch is None:
            batch = self._find_later(window, state, FIRST_OFFSET + BLOCK_BYTES, 0)
        if batch is None:
            return
        found.state = replace(state, first_sequence=batch.header.place.sequence)
        found.first_offset = batch.header.place.offset
        first = batch.entries[0].record if batch.entries else None
        if first is not None and first.kind is Kind.MANIFEST:
            manifest = decode_manifest(first)
            found.manifest = (
                manifest.next_segment,
                {entry.segment: entry for entry in manifest.entries},
            )

    def _read_manifests(self, used: list[SegmentState]) -> None:
        """Take the newest manifest's word for what must be there."""
        for state in reversed(used):
            manifest = self._found[state.segment].manifest
            if manifest is not None:
                next_segment, self._listed = manifest
                self._next_segment = max(self._next_segment, next_segment)
                break
        for entry in self._listed.values():
            found = self._found.get(entry.segment)
            if found is None:
                reason = "the segment is missing"
            elif found.state.generation < entry.generation:
                # What it holds was void before the log entered it again.
                found.state = replace(found.state, first_sequence=0)
                reason = "the segment is of an older generation"
            elif found.state.generation == entry.generation and not found.state.first_sequence:
                reason = "the segment is empty"
            else:
                continue
            if any(damage.segment == entry.segment for damage in self._damage):
                continue
            self._damage.append(
                Damage(
                    entry.segment,
                    entry.generation,
                    0,
                    0,
                    entry.first_sequence,
                    entry.last_sequence,
                    reason,
                )
            )

    def _segment(
        self, state: SegmentState, follower: SegmentState | None
    ) -> Iterator[DecodedBatch | Damage]:
        """Walk one segment, or skip it if all of it lies before the start of the scan."""
        start = FIRST_OFFSET
        if state.first_sequence <= self._after.sequence:
            yield from self._bad_start(state)
            if state.segment != self._after.segment:
                last = follower.first_sequence - 1 if follower is not None else 0
                self._ends[state.segment] = self._expected_end(state, follower) or last
                return
            start = self._after.offset
        elif state.first_sequence <= self.tail.sequence:
            reason = "the segment overlaps the log before it: it is of another history"
            yield Damage(state.segment, state.generation, 0, 0, state.first_sequence, 0, reason)
            return
        file = self._volume.open(segment_path(state.segment))
        try:
            yield from self._walk(self._window(file, state.segment, WINDOW_BYTES), state, start)
        finally:
            file.close()
        self._ends[state.segment] = self.tail.sequence
        expected = self._expected_end(state, follower)
        if expected is not None and expected > self.tail.sequence:
            offset = self.tail.offset if self.tail.segment == state.segment else start
            yield Damage(
                state.segment,
                state.generation,
                offset,
                self._size_bytes - offset,
                self.tail.sequence + 1,
                expected,
                "the segment ends early",
            )
            self._ends[state.segment] = expected
            self.tail = replace(self.tail, sequence=expected, crc=0)

    def _bad_start(self, state: SegmentState) -> Iterator[Damage]:
        """A segment before the start of the scan is not walked, but its first batch was looked at:
        the table rests on it, and with it everything that walks the log later."""
        length = self._found[state.segment].first_offset - FIRST_OFFSET
        if length:
            last = state.first_sequence - 1
            reason = "the first batch does not verify, and later ones do"
            yield Damage(state.segment, state.generation, FIRST_OFFSET, length, last, last, reason)

    def _expected_end(self, state: SegmentState, follower: SegmentState | None) -> int | None:
        """The sequence a segment that is not the last must end with, if that is known."""
        entry = self._listed.get(state.segment)
        if entry is not None and entry.generation == state.generation and entry.last_sequence:
            return entry.last_sequence
        if follower is None or self._found[follower.segment].first_offset != FIRST_OFFSET:
            return None  # what is missing between them may have lain at the follower's start
        return follower.first_sequence - 1

    def _walk(
        self, window: Window, state: SegmentState, start: int
    ) -> Iterator[DecodedBatch | Damage]:
        offset = start
        boundary = offset == FIRST_OFFSET
        while True:
            batch = self._verified(window, state, offset)
            if batch is not None and self._follows(batch.header, boundary=boundary):
                self.tail = Tail.after(batch)
                boundary = False
                yield batch
                offset = self.tail.offset
                continue
            later = batch
            if later is None or later.header.place.sequence <= self.tail.sequence + 1:
                later = self._find_later(
                    window, state, offset + BLOCK_BYTES, self.tail.sequence + 1
                )
            if later is None:
                self.torn = self.torn or self._is_begun(window, state, offset)
                return
            place = later.header.place
            listed = self._listed.get(state.segment)
            first = listed.first_sequence if listed is not None and boundary else 0
            yield Damage(
                state.segment,
                state.generation,
                offset,
                place.offset - offset,
                max(first, self.tail.sequence + 1),
                place.sequence - 1,
                "a batch does not verify, and later ones do",
            )
            self.tail = Tail(
                place.sequence - 1, place.previous_crc, state.segment, state.generation, offset
            )
            offset = place.offset
            boundary = False

    def _follows(self, header: BatchHeader, *, boundary: bool) -> bool:
        """Whether a batch continues the log. At a segment's start the sequence may jump: segments
        between may have been recycled, and the manifest tells whether they were."""
        sequence = header.place.sequence
        if sequence == self.tail.sequence + 1:
            return self.tail.crc in {0, header.place.previous_crc} or self.tail.sequence == 0
        return boundary and sequence > self.tail.sequence

    def _header_at(self, window: Window, state: SegmentState, offset: int) -> BatchHeader | None:
        """The verified header of a batch that belongs exactly here, or None."""
        try:
            header = decode_header(window.read(offset, BATCH_HEADER_BYTES))
        except Damaged:
            return None
        place = header.place
        own = (place.mirror_id, place.segment, place.generation, place.offset)
        return header if own == (self._mirror_id, state.segment, state.generation, offset) else None

    def _verified(
        self, window: Window, state: SegmentState, offset: int, *, records: bool | None = None
    ) -> DecodedBatch | None:
        header = self._header_at(window, state, offset)
        if header is None:
            return None
        try:
            data = window.read(offset, header.padded_bytes)
            return decode_batch(data, records=self._records if records is None else records)
        except Damaged:
            return None

    def _find_later(
        self, window: Window, state: SegmentState, offset: int, above: int
    ) -> DecodedBatch | None:
        """The first whole batch at or behind ``offset`` with a sequence of more than ``above``."""
        while offset < self._size_bytes:
            data = window.read(offset, min(WINDOW_BYTES, self._size_bytes - offset))
            for at in range(0, len(data), BLOCK_BYTES):
                if data.startswith(BATCH_MAGIC, at):
                    batch = self._verified(window, state, offset + at)
                    if batch is not None and batch.header.place.sequence > above:
                        return batch
            offset += max(len(data), BLOCK_BYTES)
        return None

    def _is_begun(self, window: Window, state: SegmentState, offset: int) -> bool:
        """Whether the next batch was begun here and did not become whole."""
        header = self._header_at(window, state, offset)
        return header is not None and header.place.sequence == self.tail.sequence + 1

    def _look_for_torn_start(self) -> None:
        """A batch that was to begin a new segment may be torn too."""
        for found in self._found.values():
            if found.state.first_sequence == 0 and not self.torn:
                file = self._volume.open(segment_path(found.state.segment))
                try:
                    window = self._window(file, found.state.segment, SURVEY_BYTES)
                    self.torn = self._is_begun(window, found.state, FIRST_OFFSET)
                finally:
                    file.close()
