"""How the object layer's records look as values: msgpack arrays, the format number first.

Owns the codecs of buckets, objects, uploads and parts. An object's value has what listings show up
front and the rest (``details``) as packed bytes inside, decoded only when asked for. Refuses a
format it does not know. Invariant: what is decoded encodes to the same bytes.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgpack

from appliance.core.access import Acl, BucketRules, Ownership, PublicBlock
from appliance.core.checksums import Checksum, ChecksumAlgorithm, ChecksumKind, encode
from appliance.core.errors import DataLost
from appliance.core.etag import format_etag
from appliance.core.partlayout import Run
from appliance.core.ports import Owner
from appliance.core.recordkeys import key_of_record
from appliance.engine.interface import Record
from appliance.objects.aclformat import (
    pack_acl,
    pack_owner,
    pack_ownership,
    unpack_acl,
    unpack_owner,
    unpack_ownership,
)
from appliance.objects.model import (
    NO_ATTRIBUTES,
    NULL_VERSION,
    STANDARD,
    Attributes,
    Bucket,
    ListedObject,
    ObjectInfo,
)

FORMAT: Final = 1
# Numbers stored on the drives; never renumber.
_ALGORITHM_NUMBERS: Final = {
    ChecksumAlgorithm.CRC32: 1,
    ChecksumAlgorithm.CRC32C: 2,
    ChecksumAlgorithm.CRC64NVME: 3,
    ChecksumAlgorithm.SHA1: 4,
    ChecksumAlgorithm.SHA256: 5,
}
_ALGORITHMS: Final = {number: algorithm for algorithm, number in _ALGORITHM_NUMBERS.items()}
_KIND_NUMBERS: Final = {ChecksumKind.FULL_OBJECT: 0, ChecksumKind.COMPOSITE: 1}
_KINDS: Final = {number: kind for kind, number in _KIND_NUMBERS.items()}


class Kind(enum.IntEnum):
    """What an object record stands for."""

    PLAIN = 0
    IN_PARTS = 1
    DELETE_MARKER = 2


class Versioning(enum.IntEnum):
    """Whether a bucket keeps old versions."""

    NEVER = 0
    ENABLED = 1
    SUSPENDED = 2


def _unpack(value: bytes, what: str) -> list[Any]:
    fields: list[Any] = msgpack.unpackb(value)
    if fields[0] != FORMAT:
        raise _unknown_format(what, fields[0])
    return fields


def _unknown_format(what: str, found: object) -> DataLost:
    return DataLost(f"cannot read a {what} record of format {found!r}: upgrade first")


def _pack(fields: list[Any]) -> bytes:
    packed: bytes = msgpack.packb(fields)
    return packed


@dataclass(frozen=True, slots=True)
class BucketRecord:
    """The value of ``b/<name>``."""

    owner: Owner
    created_ns: int
    region: str = ""
    versioning: Versioning = Versioning.NEVER
    acl: Acl | None = None
    ownership: Ownership | None = None
    block: PublicBlock | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The value."""
        return _pack(
            [
                FORMAT,
                self.created_ns,
                pack_owner(self.owner),
                self.region,
                int(self.versioning),
                pack_acl(self.acl),
                pack_ownership(self.ownership),
                None if self.block is None else self.block.value,
                dict(self.tags),
            ]
        )

    @classmethod
    def decode(cls, value: bytes) -> BucketRecord:
        """Raises ``DataLost`` for a format it does not know."""
        _, created_ns, owner, region, versioning, acl, ownership, block, tags = _unpack(
            value, "bucket"
        )
        return cls(
            Owner(*owner),
            created_ns,
            region,
            Versioning(versioning),
            unpack_acl(acl),
            unpack_ownership(ownership),
            None if block is None else PublicBlock(block),
            tags,
        )

    def show(self, name: str) -> Bucket:
        """As callers see it."""
        return Bucket(name, self.owner, self.created_ns, self.region)

    def rules(self, contract: str, *, public_access: bool) -> BucketRules:
        """As decisions see it; without public access everything public is blocked."""
        block = PublicBlock.EVERYTHING
        if public_access:
            block = self.block or PublicBlock.NOTHING
        return BucketRules(contract, self.owner, self.acl, self.ownership, block)


class StoredChecksum(NamedTuple):
    """A digest, of how many parts if composite, and whether the client gave it."""

    algorithm: ChecksumAlgorithm
    kind: ChecksumKind
    digest: bytes
    declared: bool

    def show(self, parts: int = 0) -> Checksum:
        """As callers see it; ``parts`` counts those of a composite one."""
        value = encode(self.digest)
        if self.kind is ChecksumKind.COMPOSITE and parts:
            value = f"{value}-{parts}"
        return Checksum(self.algorithm, value, self.kind)

    def pack(self) -> list[Any]:
        """As it stands in a value."""
        return [
            _ALGORITHM_NUMBERS[self.algorithm],
            _KIND_NUMBERS[self.kind],
            self.digest,
            self.declared,
        ]

    @classmethod
    def unpack(cls, packed: Sequence[Any]) -> StoredChecksum:
        """From a value."""
        algorithm, kind, digest, declared = packed
        return cls(_ALGORITHMS[algorithm], _KINDS[kind], digest, declared)


def _pack_attributes(attributes: Attributes) -> list[Any]:
    return [
        attributes.content_type,
        dict(attributes.headers),
        dict(attributes.metadata),
        dict(attributes.tags),
    ]


class ObjectRecord(NamedTuple):
    """The value of one version. ``owner`` is None when it is the bucket's.

    ``write_id`` is the key salt of a plain object's blob; for an object in parts it is the upload
    its part records lie under. ``runs`` is empty when the part table was too long to keep.
    """

    kind: Kind
    size_bytes: int
    modified_ns: int
    md5: bytes
    write_id: bytes
    parts: int = 0
    owner: Owner | None = None
    checksum: StoredChecksum | None = None
    version_id: str = ""
    attributes: Attributes = NO_ATTRIBUTES
    runs: Sequence[Run] = ()
    acl: Acl | None = None

    @property
    def etag(self) -> str:
        """The entity tag, unquoted."""
        return format_etag(self.md5, self.parts)

    def encode(self) -> bytes:
        """The value."""
        storage_class = self.attributes.storage_class
        runs = [tuple(run) for run in self.runs]
        details = [*_pack_attributes(self.attributes), runs, pack_acl(self.acl)]
        return _pack(
            [
                FORMAT,
                int(self.kind),
                self.size_bytes,
                self.modified_ns,
                self.md5,
                self.parts,
                pack_owner(self.owner),
                "" if storage_class == STANDARD else storage_class,
                self.checksum.pack() if self.checksum else None,
                self.version_id,
                self.write_id,
                _pack(details),
            ]
        )

    @classmethod
    def decode(cls, value: bytes) -> ObjectRecord:
        """Raises ``DataLost`` for a format it does not know."""
        fields = _unpack(value, "object")
        content_type, headers, metadata, tags, runs, acl = msgpack.unpackb(fields[11])
        return cls(
            kind=Kind(fields[1]),
            size_bytes=fields[2],
            modified_ns=fields[3],
            md5=fields[4],
            write_id=fields[10],
            parts=fields[5],
            owner=unpack_owner(fields[6]),
            checksum=StoredChecksum.unpack(fields[8]) if fields[8] else None,
            version_id=fields[9],
            attributes=Attributes(content_type, headers, metadata, tags, fields[7] or STANDARD),
            runs=tuple(Run(*run) for run in runs),
            acl=unpack_acl(acl),
        )

    def show(self, key: str, owner: Owner, *, is_versioned: bool = False) -> ObjectInfo:
        """As callers see it."""
        checksum = self.checksum
        return ObjectInfo(
            key=key,
            size_bytes=self.size_bytes,
            etag=self.etag,
            modified_ns=self.modified_ns,
            owner=owner,
            version_id=self.version_id or NULL_VERSION,
            attributes=self.attributes,
            checksum=checksum.show(self.parts) if checksum else None,
            parts=self.parts,
            is_delete_marker=self.kind is Kind.DELETE_MARKER,
            is_versioned=is_versioned,
            checksum_declared=checksum is not None and checksum.declared,
        )


def list_entries(
    records: Sequence[Record], root_bytes: int, rules: BucketRules, *, is_latest: bool
) -> list[ListedObject]:
    """The records of a page as listings show them, behind a root of so many bytes: the front of
    their values, without the details. One loop, because a page has a thousand."""
    entries: list[ListedObject] = []
    unpack = msgpack.unpackb
    for key, value, _, _ in records:
        fields = unpack(value)
        if fields[0] != FORMAT:
            raise _unknown_format("object", fields[0])
        _, kind, size_bytes, modified_ns, md5, parts, owner, storage_class, checksum = fields[:9]
        algorithm = checksum_kind = None
        if checksum is not None:
            algorithm, checksum_kind = _ALGORITHMS[checksum[0]], _KINDS[checksum[1]]
        entries.append(
            ListedObject(
                key_of_record(key, root_bytes),
                size_bytes,
                f"{md5.hex()}-{parts}" if parts else md5.hex(),
                modified_ns,
                rules.owner_of(Owner(*owner)) if owner else rules.owner,
                storage_class or STANDARD,
                algorithm,
                checksum_kind,
                fields[9] or NULL_VERSION,
                is_latest,
                kind == Kind.DELETE_MARKER,
            )
        )
    return entries


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """The value of an unfinished upload. Without an algorithm the default one is computed. Owner
    and access list are those of the object it becomes; ``owner`` None is the bucket's."""

    initiated_ns: int
    initiator: Owner
    attributes: Attributes
    checksum: tuple[ChecksumAlgorithm, ChecksumKind] | None = None
    owner: Owner | None = None
    acl: Acl | None = None

    def encode(self) -> bytes:
        """The value."""
        checksum = self.checksum
        return _pack(
            [
                FORMAT,
                self.initiated_ns,
                pack_owner(self.initiator),
                [_ALGORITHM_NUMBERS[checksum[0]], _KIND_NUMBERS[checksum[1]]] if checksum else None,
                self.attributes.storage_class,
                _pack(_pack_attributes(self.attributes)),
                pack_owner(self.owner),
                pack_acl(self.acl),
            ]
        )

    @classmethod
    def decode(cls, value: bytes) -> UploadRecord:
        """Raises ``DataLost`` for a format it does not know."""
        _, initiated_ns, initiator, checksum, storage_class, details, owner, acl = _unpack(
            value, "upload"
        )
        content_type, headers, metadata, tags = msgpack.unpackb(details)
        return cls(
            initiated_ns,
            Owner(*initiator),
            Attributes(content_type, headers, metadata, tags, storage_class),
            (_ALGORITHMS[checksum[0]], _KINDS[checksum[1]]) if checksum else None,
            unpack_owner(owner),
            unpack_acl(acl),
        )


@dataclass(frozen=True, slots=True)
class PartRecord:
    """The value of a part; its blob has the bytes. ``digests`` has the upload's algorithm first,
    and the one the client declared when that is another."""

    size_bytes: int
    modified_ns: int
    md5: bytes
    write_id: bytes
    digests: Sequence[tuple[ChecksumAlgorithm, bytes]]

    def encode(self) -> bytes:
        """The value."""
        digests = [[_ALGORITHM_NUMBERS[a], digest] for a, digest in self.digests]
        return _pack([FORMAT, self.size_bytes, self.modified_ns, self.md5, self.write_id, digests])

    @classmethod
    def decode(cls, value: bytes) -> PartRecord:
        """Raises ``DataLost`` for a format it does not know."""
        _, size_bytes, modified_ns, md5, write_id, digests = _unpack(value, "part")
        pairs = tuple((_ALGORITHMS[number], digest) for number, digest in digests)
        return cls(size_bytes, modified_ns, md5, write_id, pairs)

    def digest(self, algorithm: ChecksumAlgorithm) -> bytes | None:
        """The digest by this algorithm, if it was computed."""
        for found, digest in self.digests:
            if found is algorithm:
                return digest
        return None


def object_size_bytes(value: bytes) -> int:
    """The size in an object's value."""
    size_bytes: int = _unpack(value, "object")[2]
    return size_bytes


def part_size_bytes(value: bytes) -> int:
    """The size in a part's value."""
    return PartRecord.decode(value).size_bytes
