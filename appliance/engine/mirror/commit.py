"""The commit path: from orders to a batch that is durable on every in-sync drive.

Owns the order judge → adopt → log → index → answer. Refuses single commits by their error and goes
on with the others; stops the store when it can no longer tell what is durable. Invariant: an
outcome leaves only after the batch it rests on, its own or the one a refusal saw, is durable on
every in-sync drive under a valid epoch, and is in the index.

Crash points, in order: (1) before the log: blobs have final names at most; (2) the batch is on some
drives: recovery copies or drops it, nobody was answered; (3) before the index: recovery replays;
(4) before the answer: the request id finds the outcome.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from appliance.core.errors import (
    Conflict,
    DataLost,
    DriveFault,
    EngineError,
    InvalidInput,
    LimitExceeded,
    MembershipChanged,
    NoSpace,
    Unavailable,
)
from appliance.engine.mirror.adoption import BlobKeeper
from appliance.engine.mirror.blob import file_bytes
from appliance.engine.mirror.completion import complete
from appliance.engine.mirror.format import (
    COMMITS_PER_BATCH_MAX,
    BlobKind,
    DecodedBatch,
    Kind,
    Location,
    LogRecord,
    record_bytes,
)
from appliance.engine.mirror.judge import Judge, Judged
from appliance.engine.mirror.member import Member
from appliance.engine.mirror.messages import CommitOrder
from appliance.engine.mirror.planner import NeedSegment, batch_bytes_max
from appliance.engine.mirror.room import RoomKeeper
from appliance.engine.mirror.state import MirrorState, Stopped

CommitOutcome: TypeAlias = int | EngineError | InvalidInput
"""The version, or why not."""


def _read_into(found: list[LogRecord], member: Member, location: Location) -> None:
    found.append(member.reader.read(location))


class Committer:
    """Writes batches. Committer thread only."""

    def __init__(
        self,
        state: MirrorState,
        blobs: BlobKeeper,
        room: RoomKeeper,
        *,
        segment_size_bytes: int,
    ) -> None:
        self._state = state
        self._blobs = blobs
        self._room = room
        self._segment_size_bytes = segment_size_bytes
        self._commit_bytes_max = batch_bytes_max(segment_size_bytes)
        self._target_bytes = min(state.settings.batch_target_bytes, self._commit_bytes_max)
        self.relieve: Callable[[Callable[[], bool]], bool] = lambda _is_relieved: False
        """Makes room until it is relieved; whether that came to be."""
        self.unmarked = False
        """Whether the last batch is one that recovery could not tell from an unacknowledged one."""

    def commit(self, commits: Sequence[CommitOrder]) -> list[CommitOutcome]:
        """The outcome of each, in order. Raises ``Stopped``: then nothing is known of any."""
        self._state.check_running()
        outcomes: list[CommitOutcome] = []
        while len(outcomes) < len(commits):
            outcomes += self._commit_some(commits[len(outcomes) :])
        return outcomes

    def write_mark(self) -> None:
        """An empty batch, so that its predecessor is known to have been durable everywhere."""
        self._state.check_running()
        self._write([LogRecord(Kind.MARK, b"", b"")])
        self._state.counts.marks += 1
        self.unmarked = False

    def write_moved(self, records: Sequence[LogRecord]) -> None:
        """One batch of compaction's. It makes the one before it unambiguous; whether it was itself
        durable matters to nobody before a segment is freed."""
        self._state.check_running()
        self._write(records)
        self.unmarked = False

    def enter_segment(self) -> None:
        """Go on in a fresh segment, whose manifest no longer names what was freed."""
        self._state.check_running()
        self._write([LogRecord(Kind.MARK, b"", b"")], enter=True)
        self.unmarked = False

    def write_start(self) -> None:
        """The first batch of this incarnation."""
        self._write([LogRecord(Kind.START, b"", b"")])

    # -- one batch -----------------------------------------------------------------------------

    def _commit_some(self, commits: Sequence[CommitOrder]) -> list[CommitOutcome]:
        """One batch out of as many commits as it may hold."""
        state = self._state
        puts_fit = self._have_room(commits)
        judge = Judge(state.index, state.planner.next_sequence, self._read_inline)
        known: dict[bytes, int] = {}
        outcomes: list[CommitOutcome] = []
        records: list[LogRecord] = []
        size = 0
        for commit in commits[:COMMITS_PER_BATCH_MAX]:
            if (version := self._earlier(commit, known)) is not None:
                outcomes.append(version)
                continue
            try:
                judged = judge.judge(commit)
                added = self._admit(judged, puts_fit)
                if records and size + added > self._target_bytes:
                    break
                if judged.staged:
                    self._adopt(judged)
            except (Conflict, LimitExceeded, NoSpace, MembershipChanged) as refusal:
                outcomes.append(refusal)
                state.counts.refusals += 1
                continue
            except Stopped:
                raise
            except (DataLost, InvalidInput, Unavailable) as refusal:
                outcomes.append(refusal)
                continue
            judge.accept(judged)
            known[commit.request_id] = judged.version
            outcomes.append(judged.version)
            records += judged.records
            size += added
        if records:
            self._write(records)
            state.counts.commits += len(known)
            self.unmarked = True
        return outcomes

    def _have_room(self, commits: Sequence[CommitOrder]) -> bool:
        """Whether puts are admitted, after what is dead has made room for them if need be."""

        def admitted() -> bool:
            return self._room.admits_puts(self._segment_size_bytes)

        if not self._room.keeps_enough():
            # Deletes are admitted all the same; but what is kept for them must not run out.
            self.relieve(self._room.keeps_enough)
        if admitted():
            return True
        puts = any(order.value is not None for commit in commits for order in commit.orders)
        return puts and self.relieve(admitted)

    def _earlier(self, commit: CommitOrder, known: dict[bytes, int]) -> int | None:
        version = known.get(commit.request_id)
        if version is None:
            version = self._state.index.request_outcome(commit.request_id)
        return version

    def _admit(self, judged: Judged, puts_fit: bool) -> int:
        """The bytes its records take. Raises ``NoSpace``, ``InvalidInput``."""
        if not puts_fit and any(record.kind is Kind.PUT for record in judged.records):
            raise NoSpace("cannot store: the mirror's drives are full up to their reserve")
        size = sum(map(record_bytes, judged.records))
        if size > self._commit_bytes_max:
            raise InvalidInput(
                f"cannot commit: {size} bytes of records; one commit has at most "
                f"{self._commit_bytes_max}"
            )
        return size

    def _adopt(self, judged: Judged) -> None:
        """Raises ``MembershipChanged``, ``InvalidInput``, ``NoSpace``, or ``Stopped``."""
        self._blobs.check_unowned(self._state.index, judged.staged)
        staged = [complete(self._state, self._blobs, blob) for blob in judged.staged]
        answers = self._blobs.adopt(self._state.members, staged)
        self._state.lose(answers.failed)
        if answers.full:
            self._blobs.drop(self._state.members, [blob.blob_id for blob in staged])
            raise NoSpace("cannot store: a drive of the mirror has no room for the blob's name")
        if not all(answers.values[drive] for drive in self._state.members):
            self._blobs.drop(self._state.members, [blob.blob_id for blob in staged])
            raise MembershipChanged("cannot adopt: a staged file is gone; write the blob again")
        self._state.counts.adopted_bytes += sum(file_bytes(blob.size_bytes) for blob in staged)

    def _read_inline(self, location: Location) -> bytes:
        """Raises ``DataLost`` when every copy is bad, ``Unavailable`` when one cannot be read."""
        faults: list[DriveFault] = []
        for drive, member in list(self._state.members.items()):
            found: list[LogRecord] = []
            read = partial(_read_into, found, member, location)
            try:
                fault = self._state.calls.within(drive, read)
            except EngineError as error:
                fault = DriveFault(drive, "reading a record", errno.EILSEQ, str(error))
            if fault is not None:
                member.read_errors += 1
                faults.append(fault)
                continue
            assert found[0].blob_kind is BlobKind.INLINE, "the index said so"
            return found[0].blob
        if any(fault.errno != errno.EILSEQ for fault in faults):
            raise Unavailable(f"cannot read the blob that is to be kept now: {faults[-1]}")
        raise DataLost("no drive holds a valid copy of the blob that is to be kept")

    # -- the log -------------------------------------------------------------------------------

    def _write(self, records: Sequence[LogRecord], *, enter: bool = False) -> None:
        """One batch on every in-sync drive, then in the index. Raises ``Stopped``."""
        batch = self._build(records, enter=enter)
        self._append(batch)
        state = self._state
        state.planner.advance(batch)
        state.index.apply(batch)
        state.counts.batches += 1
        state.counts.batch_bytes += len(batch.data)

    def _build(self, records: Sequence[LogRecord], *, enter: bool = False) -> DecodedBatch:
        state = self._state
        while True:
            built = state.planner.build(
                records,
                epoch=state.votes.epoch.number,
                incarnation=state.incarnation,
                time_ns=state.clock.now_ns(),
                enter=enter,
            )
            if not isinstance(built, NeedSegment):
                return built
            if not self._room.prepare():
                raise state.stop("no room is left even for deletes; free space on its drives")

    def _append(self, batch: DecodedBatch) -> None:
        state = self._state
        names = self._blobs.take_touched()

        def appending(member: Member) -> Callable[[], object]:
            def call() -> None:
                for directory in names:
                    member.volume.flush_directory(directory)
                member.log.append(batch)

            return call

        answers = state.calls.each({d: appending(m) for d, m in state.members.items()})
        # On a fault this holds every answer back until the survivors' epoch is valid.
        state.lose(answers.faults)
