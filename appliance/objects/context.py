"""What every part of the object layer stands on: the seams, and the way to a bucket.

Owns the two small caches: which contract has a bucket name (only found names are kept), and for
writes the bucket's record for a moment. Refuses what ``core.access`` does not allow.

Invariant: a cached record is never trusted by itself. Reads fetch the bucket's record in the same
engine call as the object; writes expect the very version they decided on, so that a bucket deleted,
made anew or reconfigured meanwhile fails the commit and is looked up again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, Protocol

import msgpack

from appliance.core.access import Acl, Action, BucketRules, Item, is_allowed
from appliance.core.errors import NotFound, S3Error, Unavailable
from appliance.core.names import bucket_name_problem
from appliance.core.ports import Clock, Entropy, KeyStore, Owner
from appliance.core.recordkeys import bucket_key, registry_key
from appliance.engine.interface import (
    SYSTEM,
    Batch,
    Charge,
    Committed,
    Engine,
    Expect,
    ExpectEmpty,
    Limit,
    Operation,
    Partition,
    Put,
    Record,
)
from appliance.objects.limits import ObjectLimits
from appliance.objects.model import Caller
from appliance.objects.records import BucketRecord

BYTES_COUNTER: Final = b"bytes"
OBJECTS_COUNTER: Final = b"objects"
REQUEST_ID_BYTES: Final = 16
MISSING_RETRY_S: Final = 60
"""An operator decides about a loss, not a client's first retries."""


class QuotaSource(Protocol):
    """Where a contract's capacity comes from."""

    async def limit_bytes(self, contract: str) -> int | None:
        """The most bytes the contract may store, None for no limit. Cached by the source."""
        ...


@dataclass(frozen=True, slots=True)
class BucketView:
    """A bucket as one operation found it."""

    name: str
    contract: str
    record: BucketRecord
    version: int
    rules: BucketRules

    def check(self, caller: Caller | None, action: Action, item: Item | None = None) -> None:
        """Raises ``S3Error`` AccessDenied unless the caller may do that."""
        if not is_allowed(caller, action, self.rules, item):
            raise S3Error("AccessDenied", "Access Denied")

    def item(self, owner: Owner | None, acl: Acl | None = None) -> Item:
        """An object or upload in it, as decisions see it."""
        return Item(self.rules.owner_of(owner), acl)

    @property
    def partition(self) -> Partition:
        """Where its records are."""
        return Partition(self.contract)

    def unchanged(self) -> Expect:
        """What a commit must expect to rest on this view."""
        return Expect(bucket_key(self.name), self.version)


@dataclass(slots=True)
class Context:
    """The seams of one ``ObjectStore`` and what it remembers."""

    engine: Engine
    keys: KeyStore
    clock: Clock
    entropy: Entropy
    limits: ObjectLimits
    hashing: Executor
    quotas: QuotaSource | None
    public_access: bool
    _contracts: OrderedDict[str, str]
    _views: OrderedDict[str, tuple[float, BucketView]]

    def must_have_all(self) -> None:
        """Before a listing, for whoever copies it would delete what is not in it. Raises
        ``Unavailable``."""
        if missing := self.engine.missing():
            raise Unavailable(f"cannot list: {missing}", MISSING_RETRY_S)

    async def bucket(
        self, caller: Caller | None, name: str, action: Action, keys: Sequence[bytes] = ()
    ) -> tuple[BucketView, list[Record | None]]:
        """The bucket and the records of ``keys`` in its partition, read at one moment, for an
        action that needs no more than the bucket to be judged.

        Raises ``S3Error`` NoSuchBucket or AccessDenied.
        """
        view, records = await self.look(name, keys)
        view.check(caller, action)
        return view, records

    async def look(
        self, name: str, keys: Sequence[bytes] = ()
    ) -> tuple[BucketView, list[Record | None]]:
        """As ``bucket``, and nothing judged yet: the caller does that. Raises NoSuchBucket."""
        for _ in range(2):
            contract = self._contracts.get(name) or await self._lookup(name)
            wanted = [bucket_key(name), *keys]
            first, *rest = await self.engine.read(Partition(contract), wanted)
            if first is not None:
                view = self._view(name, contract, first)
                self._remember(view)
                return view, rest
            self.forget(name)
        raise no_such_bucket(name)

    def _view(self, name: str, contract: str, found: Record) -> BucketView:
        """The bucket as just read. A version is written once, so one that is remembered need not be
        decoded again."""
        known = self._views.get(name)
        if known is not None:
            view = known[1]
            if view.version == found.version and view.contract == contract:
                return view
        record = BucketRecord.decode(found.value)
        rules = record.rules(contract, public_access=self.public_access)
        return BucketView(name, contract, record, found.version, rules)

    async def bucket_for_write(
        self, caller: Caller | None, name: str, action: Action
    ) -> BucketView:
        """The bucket as of at most ``bucket_cache_s`` ago: enough to begin a write that expects it
        unchanged when it commits. What it was is no reason to refuse: then it is looked up."""
        known = self._views.get(name)
        if known is not None:
            read_at_s, view = known
            fresh = self.clock.monotonic_s() - read_at_s <= self.limits.bucket_cache_s
            if fresh and is_allowed(caller, action, view.rules):
                return view
        return (await self.bucket(caller, name, action))[0]

    def forget(self, name: str) -> None:
        """Drop what is remembered of a bucket."""
        self._contracts.pop(name, None)
        self._views.pop(name, None)

    def _remember(self, view: BucketView) -> None:
        self._views[view.name] = (self.clock.monotonic_s(), view)
        self._views.move_to_end(view.name)
        if len(self._views) > self.limits.bucket_cache_entries:
            self._views.popitem(last=False)

    async def _lookup(self, name: str) -> str:
        if bucket_name_problem(name, dots_allowed=True) is not None:
            raise no_such_bucket(name)
        [found] = await self.engine.read(SYSTEM, [registry_key(name)])
        if found is None:
            raise no_such_bucket(name)
        contract: str = msgpack.unpackb(found.value)[1]
        self._contracts[name] = contract
        if len(self._contracts) > self.limits.bucket_cache_entries:
            self._contracts.popitem(last=False)
        return contract

    async def contract_key(self, contract: str) -> bytes:
        """The key contents of the contract are sealed under."""
        try:
            return await self.keys.contract_key(contract)
        except NotFound as error:
            raise S3Error("AccountProblem", "The contract of this bucket has ended.") from error

    async def admit(
        self, view: BucketView, size_bytes: int, record_key: bytes, size_of: Callable[[bytes], int]
    ) -> None:
        """Refuse a body that cannot fit before it is sent; the commit decides exactly.

        What the record it replaces holds is given back, so its size (``size_of`` its value) counts;
        it is read only when the answer hangs on it. Raises ``S3Error`` QuotaExceeded.
        """
        for limit in await self.quota(view):
            counters = await self.engine.counters(view.partition)
            over = counters.get(limit.counter, 0) + size_bytes - limit.maximum
            if over <= 0:
                continue
            [replaced] = await self.engine.read(view.partition, [record_key])
            given_back = 0 if replaced is None else size_of(replaced.value)
            # Never larger than what it replaces, or fitting once that is gone.
            if size_bytes > given_back and over > given_back:
                raise S3Error("QuotaExceeded", fields={"MaximumBytes": str(limit.maximum)})

    async def quota(self, view: BucketView) -> Sequence[Limit]:
        """The limits every write of the contract's partition obeys."""
        if self.quotas is None:
            return ()
        maximum = await self.quotas.limit_bytes(view.contract)
        return () if maximum is None else (Limit(BYTES_COUNTER, maximum),)

    async def commit(
        self,
        partition: Partition,
        operations: Sequence[Operation],
        expectations: Sequence[Expect | ExpectEmpty] = (),
        limits: Sequence[Limit] = (),
    ) -> Committed:
        """One batch under a request id of its own."""
        request_id = self.entropy.token(REQUEST_ID_BYTES)
        return await self.engine.commit(
            partition, Batch(operations, expectations, limits, request_id)
        )


def open_context(
    engine: Engine,
    keys: KeyStore,
    clock: Clock,
    entropy: Entropy,
    limits: ObjectLimits,
    hashing: Executor,
    quotas: QuotaSource | None = None,
    *,
    public_access: bool = False,
) -> Context:
    """A context that remembers nothing yet."""
    return Context(
        engine,
        keys,
        clock,
        entropy,
        limits,
        hashing,
        quotas,
        public_access,
        OrderedDict(),
        OrderedDict(),
    )


def bucket_record(name: str, record: BucketRecord) -> Put:
    """The operation that stores a bucket's record, charged to its owner's count of buckets."""
    charge = Charge(buckets_counter(record.owner.user_id), 1)
    return Put(bucket_key(name), record.encode(), charges=[charge])


def buckets_counter(user_id: str) -> bytes:
    """Where it is counted how many buckets an account has."""
    return b"buckets/" + user_id.encode("utf-8")


def no_such_bucket(name: str) -> S3Error:
    """The refusal for a bucket that is not there."""
    return S3Error(
        "NoSuchBucket", "The specified bucket does not exist", fields={"BucketName": name}
    )
