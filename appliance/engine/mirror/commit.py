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

from collections.abc import Callable, Sequence
from typing import TypeAlias

from appliance.core.errors import (
    Conflict,
    DataLost,
    EngineError,
    InvalidInput,
    LimitExceeded,
    MembershipChanged,
    NoSpace,
)
from appliance.engine.mirror.adoption import BlobKeeper
from appliance.engine.mirror.completion import complete
from appliance.engine.mirror.format import (
    COMMITS_PER_BATCH_MAX,
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
from appliance.engine.mirror.state import MirrorState

CommitOutcome: TypeAlias = int | EngineError | InvalidInput
"""The version, or why not."""


class Committer:
    """Writes batches. Committer thread only."""

    def __init__(
        self,
        state: MirrorState,
        blobs: BlobKeeper,
        room: RoomKeeper,
        read_inline: Callable[[Location], bytes],
        *,
        segment_size_bytes: int,
    ) -> None:
        self._state = state
        self._blobs = blobs
        self._room = room
        self._read_inline = read_inline
        self._segment_size_bytes = segment_size_bytes
        self._commit_bytes_max = batch_bytes_max(segment_size_bytes)
        self._target_bytes = min(state.settings.batch_target_bytes, self._commit_bytes_max)
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

    def write_start(self) -> None:
        """The first batch of this incarnation."""
        self._write([LogRecord(Kind.START, b"", b"")])

    # -- one batch -----------------------------------------------------------------------------

    def _commit_some(self, commits: Sequence[CommitOrder]) -> list[CommitOutcome]:
        """One batch out of as many commits as it may hold."""
        state = self._state
        judge = Judge(state.index, state.planner.next_sequence, self._read_inline)
        puts_fit = self._room.admits_puts(self._segment_size_bytes)
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
            except (DataLost, InvalidInput) as refusal:
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

    # -- the log -------------------------------------------------------------------------------

    def _write(self, records: Sequence[LogRecord]) -> None:
        """One batch on every in-sync drive, then in the index. Raises ``Stopped``."""
        batch = self._build(records)
        self._append(batch)
        state = self._state
        state.planner.advance(batch)
        state.index.apply(batch)
        state.counts.batches += 1
        state.counts.batch_bytes += len(batch.data)

    def _build(self, records: Sequence[LogRecord]) -> DecodedBatch:
        state = self._state
        while True:
            built = state.planner.build(
                records,
                epoch=state.votes.epoch.number,
                incarnation=state.incarnation,
                time_ns=state.clock.now_ns(),
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
