"""The storage engine's interface: ordered records and blobs, nothing else.

A *partition* is a named, ordered key space and the unit of atomicity: one per contract and
``SYSTEM`` for the appliance itself. A *record* is a key, a small value, at most one blob, and the
charges it makes to its partition's counters while it lives.

- Keys are 1 to 4,096 bytes and ordered bytewise. Values are at most 64 KiB and live in the index,
  so that scans are cheap. Anything larger is a blob.
- A *blob* is immutable bytes owned by exactly one record. Small ones travel inside the commit and
  live in the log; large ones are staged beforehand and adopted by the commit. Which is which is the
  engine's business: callers write with ``blob_writer`` and read with ``blob_read``.
- Replacing or deleting a record releases its blob and takes back its charges, in the same commit.
  A counter is therefore always the exact sum of the charges of the living records.

Every engine passes ``tests/conformance``.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, NewType, Protocol, TypeAlias

from appliance.core.alerts import Alert
from appliance.core.ports import Buffer

Partition = NewType("Partition", str)
SYSTEM: Final = Partition("system")

KEY_BYTES_MAX: Final = 4096
VALUE_BYTES_MAX: Final = 64 * 1024
BATCH_OPERATIONS_MAX: Final = 20_480


class BlobRef(NamedTuple):
    """Where a committed blob is: opaque to callers, valid while its record lives (and readable for
    a grace period after). ``size_bytes`` is the length of what was written."""

    size_bytes: int
    place: bytes


class Record(NamedTuple):
    """A living record. ``version`` is the commit sequence that wrote it: unique per partition and
    key, rising."""

    key: bytes
    value: bytes
    version: int
    blob: BlobRef | None = None


class Charge(NamedTuple):
    """What a record adds to a counter of its partition while it lives."""

    counter: bytes
    amount: int


class Presence(enum.Enum):
    """What a commit may expect of a key."""

    ABSENT = "absent"
    PRESENT = "present"


@dataclass(frozen=True, slots=True)
class Expect:
    """The commit fails with ``Conflict`` unless the key is absent, present, or at this version."""

    key: bytes
    state: Presence | int


@dataclass(frozen=True, slots=True)
class ExpectEmpty:
    """The commit fails with ``Conflict(start)`` if any record lies in [start, end) before it,
    unless the same batch deletes it."""

    start: bytes
    end: bytes


class FinishedBlob(Protocol):
    """A blob that is written, durable as far as its engine promises, and not yet owned."""

    @property
    def size_bytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Put:
    """Write or replace a record. ``keep_blob_of`` moves the blob of another record, which the same
    batch must delete, to this one without copying; exclusive with ``blob``. Naming the put's own
    key keeps the blob of the record it replaces. ``Conflict`` if that record does not exist; a
    record without a blob has none to give."""

    key: bytes
    value: bytes
    blob: FinishedBlob | None = None
    charges: Sequence[Charge] = ()
    keep_blob_of: bytes | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a record; a missing one is no error (add an ``Expect`` where it should be)."""

    key: bytes


@dataclass(frozen=True, slots=True)
class Limit:
    """The commit fails with ``LimitExceeded`` if it raises the counter and leaves it above
    ``maximum``. A commit that lowers it, or leaves it, always passes."""

    counter: bytes
    maximum: int


Operation: TypeAlias = Put | Delete


@dataclass(frozen=True, slots=True)
class Batch:
    """All or nothing. A key appears in at most one operation.

    ``request_id``, 16 random bytes, makes a retry safe: the same id within the engine's window
    yields the first outcome and changes nothing again. A refused batch changed nothing, so it is
    not remembered: the same id may be tried again. Empty: a retry cannot be told from a new batch.
    """

    operations: Sequence[Operation]
    expectations: Sequence[Expect | ExpectEmpty] = ()
    limits: Sequence[Limit] = ()
    request_id: bytes = b""


@dataclass(frozen=True, slots=True)
class Committed:
    """The version every record put by the batch now has."""

    version: int


class BlobWriter(Protocol):
    """Takes one blob's bytes. Used by one task; exactly one of ``finish`` and ``abort`` ends it."""

    async def write(self, data: Buffer) -> None:
        """Append. Raises ``NoSpace``, ``ReadOnly``, ``Unavailable``."""
        ...

    async def finish(self) -> FinishedBlob:
        """Durable on all in-sync drives on return, except for a small blob, which becomes durable
        with its commit. Not yet owned: dropped if no commit adopts it."""
        ...

    async def abort(self) -> None:
        """Forget it. Idempotent; never raises."""
        ...


class MirrorState(enum.Enum):
    """What an operator must know at a glance."""

    IN_SYNC = "in sync"
    DEGRADED = "degraded"
    RESYNCING = "resyncing"
    READ_ONLY = "read-only"
    OFFLINE = "offline"


class Question(enum.Enum):
    """What only an operator can decide."""

    NONE = ""
    CHOOSE = "choose"
    """The drives' histories went apart: which one is right?"""
    FORCE = "force"
    """A voter that is away may know more: go on without it?"""
    LOSSES = "losses"
    """Records are lost on every drive: go on without them?"""
    RESUME = "resume"
    """It crashed again and again: take writes all the same?"""


@dataclass(frozen=True, slots=True)
class MemberHealth:
    """One drive of the mirror as the engine sees it. ``failed``: it left because a call on it
    failed, and was not brought back since. ``detached``: its history went its own way, or it is a
    clone; nobody writes to it."""

    drive_id: str
    in_sync: bool
    present: bool
    reason: str = ""
    read_errors: int = 0
    repaired: int = 0
    failed: bool = False
    detached: bool = False


@dataclass(frozen=True, slots=True)
class Health:
    """The engine's state. ``resync_done`` and ``resync_total`` are bytes, 0 when none runs;
    ``resync_drive`` is the one that is brought in; ``unreadable`` counts by partition the records
    that no drive could give when one was last brought in. ``question`` is what it waits for an
    operator to decide, ``choices`` are the drives to choose from with what is known of each;
    ``lost`` names records that no drive has, ``lost_more`` how many are not named. ``alerts`` are
    the latest, oldest first."""

    state: MirrorState
    reason: str = ""
    members: Sequence[MemberHealth] = ()
    epoch: int = 0
    sequence: int = 0
    total_bytes: int = 0
    free_bytes: int = 0
    resync_done: int = 0
    resync_total: int = 0
    resync_drive: str = ""
    resync_paused: bool = False
    unreadable: Mapping[str, int] = field(default_factory=dict)
    question: Question = Question.NONE
    choices: Mapping[str, str] = field(default_factory=dict)
    lost: Sequence[str] = ()
    lost_more: int = 0
    alerts: Sequence[Alert] = ()


class Engine(Protocol):
    """Called from one event loop; never blocks it. All methods may raise ``Unavailable``."""

    async def read(self, partition: Partition, keys: Sequence[bytes]) -> list[Record | None]:
        """The records of ``keys`` in order, from one snapshot that includes every commit that
        returned before the call."""
        ...

    async def scan(
        self,
        partition: Partition,
        start: bytes,
        end: bytes,
        limit: int,
        *,
        reverse: bool = False,
        blobs: bool = True,
    ) -> list[Record]:
        """Up to ``limit`` records in [start, end), ordered by key, from one such snapshot. Without
        ``blobs`` every record's ``blob`` is None: cheaper for listings."""
        ...

    async def commit(self, partition: Partition, batch: Batch) -> Committed:
        """Atomic, and durable on every in-sync drive on return. Raises ``Conflict``,
        ``LimitExceeded``, ``NoSpace``, ``ReadOnly``, ``MembershipChanged``. Cancelling the caller
        does not cancel a commit that was handed over."""
        ...

    def blob_writer(self, size_bytes: int | None = None) -> BlobWriter:
        """A writer for one blob. ``size_bytes`` is the length when known (room is reserved)."""
        ...

    def blob_read(
        self, blob: BlobRef, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """Verified chunks of the range, in order. A chunk whose checksum fails is answered from the
        other drive; raises ``DataLost`` when none has it, before any wrong byte is yielded."""
        ...

    async def counters(self, partition: Partition) -> Mapping[bytes, int]:
        """All counters that are not zero."""
        ...

    async def health(self) -> Health: ...

    def missing(self) -> str:
        """Why records that were stored may not be found: a part of the log is lost on every drive,
        and nobody has accepted that yet. Empty while all are there. Never raises."""
        ...

    async def close(self) -> None:
        """Idempotent."""
        ...
