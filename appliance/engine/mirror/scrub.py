"""The scrub of one mirror: everything on every drive is read, judged by checksum, and mended.

Owns the order of a run: the log, with it the proof of the index, then blob files, which only an
index that is proven says who owns. Refuses
nothing; what it cannot finish it leaves to the next attempt, which goes on at the cursor.
Invariant: on a mirror without a fault not a byte of any drive is changed.

Needs no key: everything is judged as it lies, encrypted. Runs on a thread of its own beside the
committer, reads past the page cache at the pace of its throttle, and changes something only by
short commands to the committer (``mend``), so that it never meets a recycle, an adoption or a
release half done.

Crash points: the cursor is saved after what it passes, so a crash only reads some of it again; the
index that is built beside is dropped by the next run, or published whole (see ``mend``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final

from appliance.core.errors import Damaged, DriveTimeout
from appliance.engine.mirror.assembled import Assembly
from appliance.engine.mirror.blob import file_bytes
from appliance.engine.mirror.index import IndexReader
from appliance.engine.mirror.index_view import IndexView
from appliance.engine.mirror.planner import Tail
from appliance.engine.mirror.scrub_blobs import BlobScrub
from appliance.engine.mirror.scrub_index import (
    Building,
    damage_of,
    differences,
    names_in,
)
from appliance.engine.mirror.scrub_kit import Goal, Kit, ScrubMeans
from appliance.engine.mirror.scrub_log import LogScrub
from appliance.engine.mirror.state import MirrorState

ATTEMPTS: Final = 3
"""At a proof of the index, when segments are freed under pressure before they were read."""
NEAR_BATCHES: Final = 64
"""So few behind the log's end the index is compared; while it is, it may not shorten its log."""
ROUNDS_MAX: Final = 100
PAGE: Final = 1000

PROVEN: Final = "proven equal to the log"
REBUILT: Final = "was wrong, built anew"


class Scrub:
    """One run, or the rest of one."""

    def __init__(
        self,
        state: MirrorState,
        means: ScrubMeans,
        assembly: Assembly,
        sweep: Callable[[str], dict[str, int]],
    ) -> None:
        """``sweep``, for the committer, drops what nobody owns in a directory of blobs and tells
        how many files on which drive."""
        self._kit = Kit(state, means)
        self._directory = assembly.index_directory
        self._path = assembly.index_path
        self._sweep = sweep
        self.wrong_index: Damaged | None = None
        """Set when the index was put aside: the store must be opened anew."""

    def run(self) -> bool:
        """Until the end: whether that was reached. Not if the index turned out wrong: then the rest
        is for a run on the one that was built anew. Raises ``DriveFault`` and ``Unavailable``: it
        goes on later."""
        kit = self._kit
        try:
            self._count()
            if not kit.tally.cursor.log_done:
                self._log()
                kit.tally.cursor = dataclasses.replace(kit.tally.cursor, log_done=True)
            if self.wrong_index is None:
                self._blobs()
        except Damaged as damage:
            self._put_aside(damage)
        except DriveTimeout as late:
            kit.blame(late)
            raise
        return self.wrong_index is None

    def reopen_store(self) -> None:
        """After ``wrong_index``: have the store stop, so that the next start takes the other one.
        Raises ``Stopped``."""
        self._kit.commit(self._stop)

    def _stop(self) -> None:
        """On the committer."""
        state = self._kit.state
        state.check_running()
        raise state.stop(str(self.wrong_index))

    def _blobs(self) -> None:
        """Only now, for what an unproven index does not name might be somebody's."""
        kit = self._kit
        kit.tally.phase = "blobs"
        is_sure = kit.tally.index.startswith((PROVEN, REBUILT))
        reader = IndexReader(kit.state.index.path)
        try:
            BlobScrub(kit, reader, self._sweep if is_sure else None).run()
        finally:
            reader.close()

    def _count(self) -> None:
        """What there is still to read, of one copy: the log may have become another one since."""
        kit = self._kit
        cursor, left = kit.tally.cursor, 0
        reader = IndexReader(kit.state.index.path)
        try:
            after = bytes.fromhex(cursor.blob)
            while page := reader.blob_ids(after, PAGE):
                left += sum(file_bytes(size_bytes) for _, size_bytes in page)
                after = page[-1][0]
        finally:
            reader.close()
        goal, size_bytes = kit.goal(), kit.state.segment_size_bytes
        for segment in goal.used():
            if not cursor.log_done and segment.last_sequence > cursor.sequence:
                left += goal.end_of(segment, size_bytes)
        kit.tally.total_bytes = kit.tally.done_bytes + left

    def _log(self) -> None:
        """The log, and the index out of it."""
        kit = self._kit
        kit.tally.phase = "log"
        for _ in range(ATTEMPTS):
            building = Building(self._directory, self._path, kit.state.mirror_bytes)
            try:
                kit.state.unread_after = 0
                if self._attempt(building):
                    return
            finally:
                kit.state.unread_after = None
                if self.wrong_index is None:
                    building.discard()
        kit.tally.index = "not proven: log segments were freed before they could be read"

    def _attempt(self, building: Building) -> bool:
        """Whether the log was read without a gap."""
        kit = self._kit
        kit.lost.clear()
        log = LogScrub(kit)
        log.learn_losses()
        goal = kit.goal()
        log.check_free(goal)
        first_end = goal.tail.sequence
        after = self._follow(log, building, goal, Tail(), first_end)
        for _ in range(ROUNDS_MAX):
            goal = kit.goal()
            if goal.tail.sequence - after.sequence <= NEAR_BATCHES or log.gap:
                break
            after = self._follow(log, building, goal, after, first_end)
        if kit.lost:
            self._name_lost()
            return True
        if log.gap:
            return False
        live = IndexView(kit.state.index.path)
        try:
            assert live.ends_with is not None, "an open store has written a batch"
            until = live.ends_with.sequence
            self._follow(log, building, kit.goal(), after, first_end, until)
            if kit.lost:
                self._name_lost()
            elif not log.gap:
                self._compare(live, building)
        finally:
            live.close()
        return not log.gap

    def _follow(
        self,
        log: LogScrub,
        building: Building,
        goal: Goal,
        after: Tail,
        first_end: int,
        until: int | None = None,
    ) -> Tail:
        """Read on to the goal, or to sequence ``until``. Up to ``first_end`` the log may lack
        segments that were freed before; behind it every sequence is there."""
        kit = self._kit
        end = goal.tail.sequence if until is None else until
        sequence = after.sequence
        try:
            for batch in log.walk(goal, after, end, kit.tally.cursor.sequence):
                found = batch.header.place.sequence
                if found > first_end and found != sequence + 1 and not kit.lost:
                    log.gap = True
                kit.state.unread_after = sequence = found
                building.add(batch)
                if building.is_full:
                    with kit.throttle.piece(0):
                        building.flush()
                    self._passed(sequence)
        finally:
            self._passed(sequence)
        return goal.tail

    def _passed(self, sequence: int) -> None:
        cursor = self._kit.tally.cursor
        if sequence > cursor.sequence:
            self._kit.tally.cursor = dataclasses.replace(cursor, sequence=sequence)

    def _name_lost(self) -> None:
        """What lies in the parts no drive has."""
        kit = self._kit
        view = IndexView(kit.state.index.path)
        try:
            for name in names_in(view, kit.lost):
                kit.tally.name_lost(name)
        finally:
            view.close()
        kit.tally.index = "not proven: parts of the log are lost"

    def _compare(self, live: IndexView, building: Building) -> None:
        kit = self._kit
        kit.tally.phase = "index"
        building.finish()
        built = IndexView(building.path)
        try:
            found = differences(live, built, kit.progress)
        finally:
            built.close()
        if not found:
            kit.tally.index = PROVEN
            return
        kit.tally.index = f"{REBUILT}: {'; '.join(found)}"
        kit.commit(lambda: kit.mender.replace_index(self._directory, building.name))
        self.wrong_index = damage_of(found)

    def _put_aside(self, damage: Damaged) -> None:
        """The live index does not verify: the next start builds it anew, and its proof begins
        anew too."""
        kit = self._kit
        kit.tally.cursor = dataclasses.replace(kit.tally.cursor, log_done=False)
        kit.commit(lambda: kit.mender.put_aside(self._directory))
        self.wrong_index = damage
