"""What crosses from a gateway to the store: a commit as plain lists, and who the members are.

Owns the form of these messages. ``decode_commit`` refuses, with ``InvalidInput``, whatever a
well-behaved client cannot have sent: the store does not trust a gateway's arithmetic. Lists and
numbers only, so that the message fits msgpack and costs little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from dataclasses import fields as fields_of
from typing import Any, Final, NamedTuple

from appliance.core.alerts import Alert
from appliance.core.errors import Damaged, InvalidInput
from appliance.engine.interface import (
    BATCH_OPERATIONS_MAX,
    KEY_BYTES_MAX,
    VALUE_BYTES_MAX,
    Batch,
    Expect,
    ExpectEmpty,
    Health,
    MemberHealth,
    MirrorState,
    Presence,
    Put,
    Question,
)
from appliance.engine.mirror.blob import BLOB_ID_BYTES
from appliance.engine.mirror.format import decode_charges, encode_charges
from appliance.engine.mirror.staging import InlineBlob, StagedBlob

PARTITION_BYTES_MAX: Final = 255
INLINE_BYTES_MAX: Final = 1024 * 1024
"""No inline limit may be configured above this."""

_ABSENT, _PRESENT, _VERSION, _EMPTY = range(4)


class Staged(NamedTuple):
    """A staged blob: ``stamps`` maps a drive to its membership generation at open and at flush."""

    blob_id: bytes
    size_bytes: int
    directory: str
    stamps: Mapping[str, Sequence[int]]


class Order(NamedTuple):
    """One operation. ``value`` None: delete. ``charges`` are encoded."""

    key: bytes
    value: bytes | None
    charges: bytes = b""
    blob: bytes | Staged | None = None
    keep: bytes | None = None


class Demand(NamedTuple):
    """One expectation: a state of ``key``, or (kind ``_EMPTY``) emptiness of [key, other)."""

    kind: int
    key: bytes
    other: Any = None

    @property
    def is_empty_range(self) -> bool:
        """Whether it speaks of a range."""
        return self.kind == _EMPTY

    def holds(self, version: int | None) -> bool:
        """Whether a record at ``version`` (None: no record) is as expected."""
        if self.kind == _VERSION:
            return bool(version == self.other)
        return (version is None) == (self.kind == _ABSENT)


class CommitOrder(NamedTuple):
    """One commit as the store takes it."""

    partition: bytes
    request_id: bytes
    orders: Sequence[Order]
    demands: Sequence[Demand]
    limits: Sequence[tuple[bytes, int]]


@dataclass(frozen=True, slots=True)
class MemberView:
    """One drive as gateways see it. ``generation`` changes whenever the drive (re)joins: what was
    staged under another one does not count."""

    drive: str
    path: str
    generation: int
    in_sync: bool


@dataclass(frozen=True, slots=True)
class MembersView:
    """The mirror as gateways see it. ``index_path`` changes when the index was built anew."""

    mirror_id: bytes
    index_path: str
    inline_limit_bytes: int
    members: Sequence[MemberView]
    read_only_reason: str = ""
    reserve_bytes: int = 0
    lost: str = ""
    """A part of the log that no drive has, until that is accepted."""

    def encode(self) -> list[Any]:
        """As plain lists."""
        members = [[m.drive, m.path, m.generation, m.in_sync] for m in self.members]
        return [
            self.mirror_id,
            self.index_path,
            self.inline_limit_bytes,
            members,
            self.read_only_reason,
            self.reserve_bytes,
            self.lost,
        ]

    def with_paths(self, paths: Mapping[str, str]) -> MembersView:
        """The same, telling where each drive is mounted; drives without a path are left out."""
        members = [replace(m, path=paths[m.drive]) for m in self.members if m.drive in paths]
        return replace(self, members=members)

    @classmethod
    def decode(cls, message: Any) -> MembersView:
        """Inverse of ``encode``; further fields of a newer store are ignored, and what an
        older one does not tell has its default."""
        mirror_id, index_path, limit, members, *more = message[:7]
        views = [MemberView(*m[:4]) for m in members]
        return cls(mirror_id, index_path, limit, views, *more)


def encode_health(health: Health) -> dict[str, Any]:
    """As a plain map."""
    fields = asdict(health)
    fields["state"] = health.state.value
    fields["question"] = health.question.value
    fields["members"] = [asdict(member) for member in health.members]
    fields["alerts"] = [[alert.when_ns, alert.text] for alert in health.alerts]
    return fields


def decode_health(message: Any) -> Health:
    """Inverse of ``encode_health``; further fields of a newer store are ignored."""
    known = {field.name for field in fields_of(Health)}
    kept = {name: value for name, value in message.items() if name in known}
    kept["state"] = MirrorState(kept["state"])
    asked = {question.value for question in Question}
    kept["question"] = Question(kept["question"] if kept.get("question") in asked else "")
    inner = {field.name for field in fields_of(MemberHealth)}
    kept["members"] = [
        MemberHealth(**{name: value for name, value in member.items() if name in inner})
        for member in kept["members"]
    ]
    kept["alerts"] = [Alert(*alert[:2]) for alert in kept.get("alerts", ())]
    return Health(**kept)


def encode_commit(partition: str, batch: Batch, request_id: bytes) -> list[Any]:
    """A checked batch as plain lists. Raises ``InvalidInput`` for a blob of another engine or one
    that has an owner already."""
    operations: list[list[Any]] = []
    for operation in batch.operations:
        if not isinstance(operation, Put):
            operations.append([operation.key])
            continue
        blob = operation.blob
        if blob is None:
            sent: Any = None
        elif not isinstance(blob, InlineBlob | StagedBlob):
            raise InvalidInput("the blob was written by another engine")
        elif blob.adopted:
            raise InvalidInput("the blob belongs to another record already")
        elif isinstance(blob, InlineBlob):
            sent = blob.data
        else:
            stamps = {drive: list(pair) for drive, pair in blob.stamps.items()}
            sent = [blob.blob_id, blob.size_bytes, blob.directory, stamps]
        charges = encode_charges(operation.charges) if operation.charges else b""
        operations.append([operation.key, operation.value, charges, sent, operation.keep_blob_of])
    return [
        partition.encode(),
        request_id,
        operations,
        [_encode_demand(demand) for demand in batch.expectations],
        [[limit.counter, limit.maximum] for limit in batch.limits],
    ]


def _encode_demand(demand: Expect | ExpectEmpty) -> list[Any]:
    if isinstance(demand, ExpectEmpty):
        return [_EMPTY, demand.start, demand.end]
    if isinstance(demand.state, Presence):
        return [_PRESENT if demand.state is Presence.PRESENT else _ABSENT, demand.key]
    return [_VERSION, demand.key, demand.state]


def decode_commit(message: Any) -> CommitOrder:
    """The commit a client sent. Raises ``InvalidInput``."""
    try:
        partition, request_id, operations, demands, limits = message
        order = CommitOrder(
            partition,
            request_id,
            [_decode_order(fields) for fields in operations],
            [Demand(*fields) for fields in demands],
            [(counter, maximum) for counter, maximum in limits],
        )
        _check(order)
    except (TypeError, ValueError, AttributeError, IndexError, Damaged) as error:
        raise InvalidInput(f"cannot read a commit: {error}") from error
    return order


def _decode_order(fields: Sequence[Any]) -> Order:
    if len(fields) == 1:
        return Order(fields[0], None)
    key, value, charges, blob, keep = fields
    if blob is not None and not isinstance(blob, bytes):
        blob = Staged(*blob)
    return Order(key, value, charges, blob, keep)


def _check(commit: CommitOrder) -> None:
    commit.partition.decode()
    if not 1 <= len(commit.partition) <= PARTITION_BYTES_MAX:
        raise InvalidInput("cannot commit: the partition's name is empty or too long")
    if len(commit.request_id) != 16 or len(commit.orders) > BATCH_OPERATIONS_MAX:
        raise InvalidInput("cannot commit: bad request id, or too many operations")
    keys = {order.key for order in commit.orders}
    if len(keys) != len(commit.orders):
        raise InvalidInput("cannot commit: a key appears in more than one operation")
    for key, value, charges, blob, keep in commit.orders:
        if charges:
            decode_charges(charges)
        if not 1 <= len(key) <= KEY_BYTES_MAX:
            raise InvalidInput("cannot commit: a key is empty or too long")
        if value is not None and len(value) > VALUE_BYTES_MAX:
            raise InvalidInput("cannot commit: a value is too long")
        if blob is not None:
            _check_blob(blob)
            if keep is not None:
                raise InvalidInput("cannot commit: a put has a blob and keeps one")
    _check_kept(commit)


def _check_kept(commit: CommitOrder) -> None:
    kept = [(order.key, order.keep) for order in commit.orders if order.keep is not None]
    if not kept:
        return
    deleted = {order.key for order in commit.orders if order.value is None}
    if len({keep for _, keep in kept}) != len(kept):
        raise InvalidInput("cannot commit: two puts keep the same blob")
    if any(keep != key and keep not in deleted for key, keep in kept):
        raise InvalidInput("cannot commit: a kept blob's record is not deleted")


def _check_blob(blob: bytes | Staged) -> None:
    if isinstance(blob, bytes):
        if len(blob) > INLINE_BYTES_MAX:
            raise InvalidInput("cannot commit: an inline blob is too large")
        return
    if len(blob.blob_id) != BLOB_ID_BYTES or blob.size_bytes < 1:
        raise InvalidInput("cannot commit: a staged blob's id or size is wrong")
    if not blob.directory or "/" in blob.directory or blob.directory.startswith("."):
        raise InvalidInput("cannot commit: a staging directory's name is wrong")
    if not all(len(stamp) == 2 for stamp in blob.stamps.values()):
        raise InvalidInput("cannot commit: a staged blob's stamps are wrong")
