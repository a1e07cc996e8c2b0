"""The words of the object layer: what callers hand in and get back.

Owns plain values only. Every refusal of this layer is an ``S3Error``; an engine's errors pass
through unchanged (``MembershipChanged`` included: the body would have to be sent again).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from appliance.core.checksums import Checksum, ChecksumAlgorithm, ChecksumKind
from appliance.core.conditions import ReadCondition, WriteCondition
from appliance.core.ports import Owner

NULL_VERSION: Final = "null"
STANDARD: Final = "STANDARD"
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated account; where a ``Caller | None`` is taken, None is anonymous."""

    user_id: str
    display_name: str
    contract: str
    bucket_prefix: str = ""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket as its owner sees it. ``region`` is the location constraint it was made with."""

    name: str
    owner: Owner
    created_ns: int
    region: str = ""


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """One page of a list. ``next_after`` is the position to go on behind, None at the end."""

    items: Sequence[Item]
    truncated: bool = False
    next_after: str | None = None


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a client says about an object besides its bytes.

    ``headers`` holds the system headers it sent, lower-case: cache-control, content-disposition,
    content-encoding, content-language, expires, x-amz-website-redirect-location. ``metadata`` holds
    the user's, lower-case names without ``x-amz-meta-``. Values come back as they came.
    """

    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    storage_class: str = STANDARD


NO_ATTRIBUTES: Final = Attributes()
NO_CONDITION: Final = ReadCondition()


@dataclass(frozen=True, slots=True)
class Declared:
    """What a client said its body is, known once the body ended: the raw Content-MD5, and the
    checksum of header or trailer as (algorithm, base64 as sent)."""

    md5: bytes | None = None
    checksum: tuple[ChecksumAlgorithm, str] | None = None


class Body(Protocol):
    """A request body as the front hands it over. Read by one task, once."""

    @property
    def size_bytes(self) -> int | None:
        """Decoded length, when known beforehand."""
        ...

    @property
    def checksum_algorithm(self) -> ChecksumAlgorithm | None:
        """Which checksum header is there or which trailer was announced."""
        ...

    async def read(self) -> bytes:
        """The next piece of any size, ``b""`` at the end. Raises ``S3Error`` on a bad signature, a
        short body or a wrong ``x-amz-content-sha256``."""
        ...

    def declared(self) -> Declared:
        """Only after the end."""
        ...


class ObjectInfo(NamedTuple):
    """One version of an object. ``parts`` is 0 unless it was uploaded in parts.

    ``checksum`` is there for every object; answer it only when the client asks for it
    (``x-amz-checksum-mode: ENABLED``) or declared one (``checksum_declared``).
    """

    key: str
    size_bytes: int
    etag: str
    modified_ns: int
    owner: Owner
    version_id: str = NULL_VERSION
    attributes: Attributes = NO_ATTRIBUTES
    checksum: Checksum | None = None
    parts: int = 0
    is_delete_marker: bool = False
    is_versioned: bool = False
    checksum_declared: bool = False


class ListedObject(NamedTuple):
    """One line of a listing: a key's current version, or in ``listing.versions`` any version."""

    key: str
    size_bytes: int
    etag: str
    modified_ns: int
    owner: Owner
    storage_class: str
    checksum_algorithm: ChecksumAlgorithm | None
    checksum_kind: ChecksumKind | None
    version_id: str
    is_latest: bool
    is_delete_marker: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of current objects. ``next_after`` is a key or a common prefix."""

    entries: Sequence[ListedObject]
    common_prefixes: Sequence[str]
    truncated: bool = False
    next_after: str | None = None


@dataclass(frozen=True, slots=True)
class VersionListing:
    """A page of versions and delete markers, interleaved as stored."""

    entries: Sequence[ListedObject]
    common_prefixes: Sequence[str]
    truncated: bool = False
    next_key_marker: str | None = None
    next_version_marker: str | None = None


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a delete did: the key, the version named or made, and whether that is a marker."""

    key: str
    version_id: str | None = None
    is_delete_marker: bool = False


@dataclass(frozen=True, slots=True)
class CopySource:
    """Where a copy reads, and under which conditions."""

    bucket: str
    key: str
    version_id: str | None = None
    condition: ReadCondition = NO_CONDITION


@dataclass(frozen=True, slots=True)
class Upload:
    """An unfinished multipart upload."""

    upload_id: str
    key: str
    initiated_ns: int
    owner: Owner
    initiator: Owner
    attributes: Attributes = NO_ATTRIBUTES
    checksum_algorithm: ChecksumAlgorithm | None = None
    checksum_kind: ChecksumKind | None = None


@dataclass(frozen=True, slots=True)
class UploadListing:
    """A page of unfinished uploads, by key and then by start."""

    uploads: Sequence[Upload]
    common_prefixes: Sequence[str]
    truncated: bool = False
    next_key_marker: str | None = None
    next_upload_marker: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A stored part, of an unfinished upload or of a finished object."""

    number: int
    size_bytes: int
    etag: str
    modified_ns: int
    checksum: Checksum | None = None


@dataclass(frozen=True, slots=True)
class PartListing:
    """A page of parts and the upload they belong to. ``next_after`` is a part number."""

    upload: Upload
    parts: Sequence[Part]
    truncated: bool = False
    next_after: int | None = None


@dataclass(frozen=True, slots=True)
class CompletedPart:
    """One line of a CompleteMultipartUpload request; the tag may be quoted."""

    number: int
    etag: str
    checksum: tuple[ChecksumAlgorithm, str] | None = None


__all__: Sequence[str] = (
    "NO_ATTRIBUTES",
    "NO_CONDITION",
    "NULL_VERSION",
    "STANDARD",
    "Attributes",
    "Body",
    "Bucket",
    "Caller",
    "Checksum",
    "ChecksumAlgorithm",
    "ChecksumKind",
    "CompletedPart",
    "CopySource",
    "Declared",
    "Deleted",
    "ListedObject",
    "Listing",
    "ObjectInfo",
    "Owner",
    "Page",
    "Part",
    "PartListing",
    "ReadCondition",
    "Upload",
    "UploadListing",
    "VersionListing",
    "WriteCondition",
)
