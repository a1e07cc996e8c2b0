"""Everything that is stored, object by object, for taking it away from here.

Owns the walk over all contracts, buckets and current objects of an engine, and what is told of
each besides its bytes. Judges nobody's rights: whoever has the keys is the operator. Refuses
nothing as a whole: an object that cannot be read is the caller's to name and to pass over.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from appliance.core.contracts import CONTRACT, CONTRACT_KEY, Contract, record_key
from appliance.core.errors import ApplianceError
from appliance.core.ports import Owner
from appliance.core.recordkeys import (
    after_prefix,
    escape,
    key_of_record,
    object_root,
)
from appliance.engine.interface import SYSTEM, Partition, Record
from appliance.objects.content import OpenObject
from appliance.objects.context import (
    BYTES_COUNTER,
    OBJECTS_COUNTER,
    BucketView,
    Context,
)
from appliance.objects.model import ObjectInfo
from appliance.objects.records import BucketRecord, Kind, ObjectRecord

STEP: Final = 1000
NOBODY: Final = Owner("", "")
UNDECODABLE: Final = (
    ApplianceError, ValueError, TypeError, LookupError, msgpack.UnpackException,
)  # fmt: skip
"""What decoding a record raises that is not what this version writes."""
_BUCKETS: Final = b"b/"
_OBJECTS: Final = b"o/"


@dataclass(frozen=True, slots=True)
class StoredContract:
    """A contract whose key is there. ``name`` is empty when its own record is not, or
    cannot be read."""

    contract_id: str
    name: str
    objects: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class StoredBucket:
    """A bucket with what its owner set. ``trouble`` says why its own record cannot be read, though
    objects of it are there; then its owner and settings are not known."""

    contract: str
    name: str
    view: BucketView
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object's current version. ``opened`` is None, and ``trouble`` says why, when not even its
    record can be read. ``is_folder``: other keys begin with its key and a slash. ``version``: the
    number of its record, by which reports name it that may not show keys."""

    bucket: str
    key: str
    is_folder: bool
    opened: OpenObject | None
    trouble: str = ""
    version: int = 0


async def contracts(context: Context) -> list[StoredContract]:
    """All contracts that have a key; one that was erased has none."""
    found = []
    for record in await _all(context, SYSTEM, CONTRACT_KEY):
        contract_id = record.key[len(CONTRACT_KEY) :].decode()
        [own] = await context.engine.read(SYSTEM, [record_key(CONTRACT, contract_id)])
        counters = await context.engine.counters(Partition(contract_id))
        found.append(
            StoredContract(
                contract_id,
                _contract_name(own),
                counters.get(OBJECTS_COUNTER, 0),
                counters.get(BYTES_COUNTER, 0),
            )
        )
    return found


def _contract_name(own: Record | None) -> str:
    try:
        return "" if own is None else Contract.decode(own.value).name
    except UNDECODABLE:
        return ""  # its id tells it apart


async def buckets(context: Context, contract: str) -> list[StoredBucket]:
    """A contract's buckets by name, also those of which only objects are left."""
    partition = Partition(contract)
    records = await _all(context, partition, _BUCKETS)
    by_name = {record.key[len(_BUCKETS) :].decode("ascii"): record for record in records}
    names = by_name.keys() | await _names_in_objects(context, partition)
    return [_bucket(contract, name, by_name.get(name)) for name in sorted(names)]


def _bucket(contract: str, name: str, record: Record | None) -> StoredBucket:
    trouble, version = "the bucket's own record is lost", 0
    decoded = BucketRecord(NOBODY, 0)
    if record is not None:
        version = record.version
        try:
            decoded, trouble = BucketRecord.decode(record.value), ""
        except UNDECODABLE as error:
            trouble = f"the bucket's own record cannot be read: {error}"
    rules = decoded.rules(contract, public_access=False)
    return StoredBucket(
        contract, name, BucketView(name, contract, decoded, version, rules), trouble
    )


async def _names_in_objects(context: Context, partition: Partition) -> set[str]:
    """The buckets that objects say they are in: one step of the walk a bucket."""
    names: set[str] = set()
    position, end = _OBJECTS, after_prefix(_OBJECTS)
    while first := await context.engine.scan(partition, position, end, 1):
        name = first[0].key[len(_OBJECTS) :].partition(b"/")[0].decode("ascii")
        names.add(name)
        position = after_prefix(object_root(name))
    return names


async def objects(context: Context, bucket: StoredBucket) -> AsyncIterator[StoredObject]:
    """A bucket's current objects in key order; delete markers and older versions are passed
    over."""
    root = object_root(bucket.name)
    before = None
    async for record in _walk(context, bucket.view.partition, root):
        key = key_of_record(record.key, len(root))
        if key == before:
            continue
        before = key
        folder = root + escape(key) + b"/"
        below = await context.engine.scan(bucket.view.partition, folder, after_prefix(folder), 1)
        try:
            decoded = ObjectRecord.decode(record.value)
        except UNDECODABLE as error:
            yield StoredObject(bucket.name, key, bool(below), None, str(error), record.version)
            continue
        if decoded.kind is not Kind.DELETE_MARKER:
            info = decoded.show(key, bucket.view.rules.owner_of(decoded.owner))
            opened = OpenObject(context, bucket.view, decoded, record, info)
            yield StoredObject(bucket.name, key, bool(below), opened, version=record.version)


def describe_bucket(bucket: StoredBucket) -> dict[str, Any]:
    """What a list of exported buckets says of one."""
    record = bucket.view.record
    return {
        "bucket": bucket.name,
        "contract": bucket.contract,
        "owner": _owner(record.owner),
        "created_ns": record.created_ns,
        "region": record.region,
        "versioning": record.versioning.name.lower(),
        "ownership": None if record.ownership is None else record.ownership.value,
        "tags": dict(record.tags),
        "trouble": bucket.trouble,
    }


def describe_object(info: ObjectInfo) -> dict[str, Any]:
    """What a list of exported objects says of one, besides where it is."""
    attributes, checksum = info.attributes, info.checksum
    return {
        "size": info.size_bytes,
        "etag": info.etag,
        "modified_ns": info.modified_ns,
        "parts": info.parts,
        "content_type": attributes.content_type,
        "headers": {name: as_text(value) for name, value in attributes.headers.items()},
        "metadata": {name: as_text(value) for name, value in attributes.metadata.items()},
        "tags": dict(attributes.tags),
        "storage_class": attributes.storage_class,
        "checksum": None
        if checksum is None
        else {
            "algorithm": checksum.algorithm.value,
            "kind": checksum.kind.value,
            "value": checksum.value,
        },
        "owner": _owner(info.owner),
    }


def as_text(value: str) -> str:
    """A stored header value, which holds one character a byte, as the text it is."""
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


def _owner(owner: Owner) -> Mapping[str, str]:
    return {"user_id": owner.user_id, "display_name": owner.display_name}


async def _all(context: Context, partition: Partition, prefix: bytes) -> list[Record]:
    return [record async for record in _walk(context, partition, prefix)]


async def _walk(context: Context, partition: Partition, prefix: bytes) -> AsyncIterator[Record]:
    position, end = prefix, after_prefix(prefix)
    while True:
        found = await context.engine.scan(partition, position, end, STEP)
        for record in found:
            yield record
        if len(found) < STEP:
            return
        position = found[-1].key + b"\x00"
