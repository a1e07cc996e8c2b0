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
_BUCKETS: Final = b"b/"


@dataclass(frozen=True, slots=True)
class StoredContract:
    """A contract whose key is there. ``name`` is empty when its own record is not."""

    contract_id: str
    name: str
    objects: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class StoredBucket:
    """A bucket with what its owner set."""

    contract: str
    name: str
    view: BucketView


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object's current version. ``opened`` is None, and ``trouble`` says why, when not even its
    record can be read. ``is_folder``: other keys begin with its key and a slash."""

    bucket: str
    key: str
    is_folder: bool
    opened: OpenObject | None
    trouble: str = ""


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
                "" if own is None else Contract.decode(own.value).name,
                counters.get(OBJECTS_COUNTER, 0),
                counters.get(BYTES_COUNTER, 0),
            )
        )
    return found


async def buckets(context: Context, contract: str) -> list[StoredBucket]:
    """A contract's buckets by name."""
    found = []
    for record in await _all(context, Partition(contract), _BUCKETS):
        name = record.key[len(_BUCKETS) :].decode("ascii")
        decoded = BucketRecord.decode(record.value)
        rules = decoded.rules(contract, public_access=False)
        view = BucketView(name, contract, decoded, record.version, rules)
        found.append(StoredBucket(contract, name, view))
    return found


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
        except (ApplianceError, ValueError, msgpack.UnpackException) as error:
            yield StoredObject(bucket.name, key, bool(below), None, str(error))
            continue
        if decoded.kind is not Kind.DELETE_MARKER:
            info = decoded.show(key, bucket.view.rules.owner_of(decoded.owner))
            opened = OpenObject(context, bucket.view, decoded, record, info)
            yield StoredObject(bucket.name, key, bool(below), opened)


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
