"""The five checksums of S3: their names, digests, and how those of parts make one of the object.

Owns the vocabulary (algorithm, kind, value) and the arithmetic. Refuses nothing by itself except a
value that is not a digest of its algorithm. Invariant: a ``Checksum``'s raw digest has exactly the
size its algorithm gives.

Reference: AWS S3 User Guide, "Checking object integrity" (composite and full-object checksums).
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from awscrt import checksums as crt

from appliance.core.errors import InvalidInput
from appliance.core.ports import Buffer


class ChecksumAlgorithm(enum.Enum):
    """As written in ``x-amz-checksum-algorithm``; headers carry the lower-case name."""

    CRC32 = "CRC32"
    CRC32C = "CRC32C"
    CRC64NVME = "CRC64NVME"
    SHA1 = "SHA1"
    SHA256 = "SHA256"

    @property
    def header(self) -> str:
        """The header or trailer that carries a value, for example ``x-amz-checksum-crc32``."""
        return f"x-amz-checksum-{self.value.lower()}"

    @property
    def size_bytes(self) -> int:
        """Length of the raw digest."""
        return _SIZES_BYTES[self]


class ChecksumKind(enum.Enum):
    """Whether a multipart checksum is of the parts' digests or of the whole object's bytes."""

    COMPOSITE = "COMPOSITE"
    FULL_OBJECT = "FULL_OBJECT"


_SIZES_BYTES: Final = {
    ChecksumAlgorithm.CRC32: 4,
    ChecksumAlgorithm.CRC32C: 4,
    ChecksumAlgorithm.CRC64NVME: 8,
    ChecksumAlgorithm.SHA1: 20,
    ChecksumAlgorithm.SHA256: 32,
}


@dataclass(frozen=True, slots=True)
class Checksum:
    """A checksum as S3 shows it: base64, a composite one followed by ``-`` and its part count."""

    algorithm: ChecksumAlgorithm
    value: str
    kind: ChecksumKind = ChecksumKind.FULL_OBJECT


class Hasher(Protocol):
    """Takes bytes in order and gives their digest. One thread at a time."""

    def update(self, data: Buffer, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc:
    """A CRC of awscrt as a hasher; digests are big-endian, as in S3's base64 values."""

    def __init__(self, step: Callable[[bytes, int], int], size_bytes: int) -> None:
        self._step: Final = step
        self._size_bytes: Final = size_bytes
        self._value = 0

    def update(self, data: Buffer, /) -> None:
        """Take the next bytes."""
        self._value = self._step(data, self._value)  # type: ignore[arg-type]

    def digest(self) -> bytes:
        """The CRC of everything taken so far."""
        return self._value.to_bytes(self._size_bytes, "big")


_MAKERS: Final[dict[ChecksumAlgorithm, Callable[[], Hasher]]] = {
    ChecksumAlgorithm.CRC32: lambda: _Crc(crt.crc32, 4),
    ChecksumAlgorithm.CRC32C: lambda: _Crc(crt.crc32c, 4),
    ChecksumAlgorithm.CRC64NVME: lambda: _Crc(crt.crc64nvme, 8),
    ChecksumAlgorithm.SHA1: lambda: hashlib.sha1(usedforsecurity=False),
    ChecksumAlgorithm.SHA256: hashlib.sha256,
}

_COMBINERS: Final[dict[ChecksumAlgorithm, Callable[[int, int, int], int]]] = {
    ChecksumAlgorithm.CRC32: crt.combine_crc32,
    ChecksumAlgorithm.CRC32C: crt.combine_crc32c,
    ChecksumAlgorithm.CRC64NVME: crt.combine_crc64nvme,
}


def hasher(algorithm: ChecksumAlgorithm) -> Hasher:
    """A fresh hasher."""
    return _MAKERS[algorithm]()


def default_kind(algorithm: ChecksumAlgorithm) -> ChecksumKind:
    """What a multipart upload gets when it names only the algorithm."""
    if algorithm is ChecksumAlgorithm.CRC64NVME:
        return ChecksumKind.FULL_OBJECT
    return ChecksumKind.COMPOSITE


def allowed_kind(algorithm: ChecksumAlgorithm, kind: ChecksumKind) -> bool:
    """CRC64NVME is full-object only, the SHAs are composite only."""
    if kind is ChecksumKind.COMPOSITE:
        return algorithm is not ChecksumAlgorithm.CRC64NVME
    return algorithm in _COMBINERS


def encode(digest: bytes) -> str:
    """A raw digest as S3 writes it."""
    return base64.b64encode(digest).decode("ascii")


def decode(algorithm: ChecksumAlgorithm, value: str) -> bytes:
    """The raw digest of a base64 ``value``. Raises ``InvalidInput`` when it is none."""
    try:
        digest = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"{value!r} is not base64") from error
    if len(digest) != algorithm.size_bytes:
        raise InvalidInput(f"a {algorithm.value} has {algorithm.size_bytes} bytes")
    return digest


def composite(algorithm: ChecksumAlgorithm, digests: Sequence[bytes]) -> bytes:
    """The digest of the parts' digests."""
    whole = hasher(algorithm)
    for digest in digests:
        whole.update(digest)
    return whole.digest()


def combined(algorithm: ChecksumAlgorithm, parts: Sequence[tuple[bytes, int]]) -> bytes:
    """The digest of the parts' bytes in a row, from each part's (digest, size in bytes).

    Only for CRCs (``allowed_kind`` FULL_OBJECT); needs none of the bytes.
    """
    combine = _COMBINERS[algorithm]
    value = 0
    for digest, size_bytes in parts:
        value = combine(value, int.from_bytes(digest, "big"), size_bytes)
    return value.to_bytes(algorithm.size_bytes, "big")
