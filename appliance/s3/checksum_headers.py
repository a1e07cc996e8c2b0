"""Checksums in headers, answers and part lists.

Owns the names ``x-amz-checksum-*`` and ``Checksum*`` and what a request may say with them. Refuses
unknown algorithms and kinds an algorithm does not have. The bytes themselves are compared where
they are read: in the body and in the object layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from appliance.core.checksums import (
    Checksum,
    ChecksumAlgorithm,
    ChecksumKind,
    allowed_kind,
    decode,
    default_kind,
)
from appliance.core.errors import InvalidInput, S3Error
from appliance.s3.request import Request
from appliance.s3.xml import element

CHECKSUM_HEADERS: Final[Mapping[str, ChecksumAlgorithm]] = {
    algorithm.header: algorithm for algorithm in ChecksumAlgorithm
}
_ELEMENTS: Final[Mapping[ChecksumAlgorithm, str]] = {
    algorithm: f"Checksum{algorithm.value}" for algorithm in ChecksumAlgorithm
}
_RESPONSE_NAMES: Final[Mapping[ChecksumAlgorithm, str]] = {
    algorithm: algorithm.header for algorithm in ChecksumAlgorithm
}


def algorithm_of(name: str) -> ChecksumAlgorithm:
    """The algorithm of a header's value, in any case; raises ``InvalidRequest``."""
    try:
        return ChecksumAlgorithm(name.strip().upper())
    except ValueError as error:
        message = (
            "Checksum algorithm provided is unsupported. Please try again with any of the valid"
            " types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]"
        )
        raise S3Error("InvalidRequest", message) from error


def requested_algorithm(request: Request) -> ChecksumAlgorithm | None:
    """``x-amz-checksum-algorithm``, of copies and new uploads."""
    name = request.headers.get("x-amz-checksum-algorithm")
    return algorithm_of(name) if name else None


def requested_kind(request: Request) -> ChecksumKind | None:
    """``x-amz-checksum-type``; raises ``InvalidRequest`` for one that does not exist."""
    name = request.headers.get("x-amz-checksum-type")
    if not name:
        return None
    try:
        return ChecksumKind(name.strip().upper())
    except ValueError as error:
        message = "Value for x-amz-checksum-type header is invalid."
        raise S3Error("InvalidRequest", message) from error


def requested_checksum(request: Request) -> tuple[ChecksumAlgorithm, ChecksumKind] | None:
    """Algorithm and kind a new upload asks for; raises ``InvalidRequest`` for a pair S3 lacks."""
    algorithm = requested_algorithm(request)
    kind = requested_kind(request)
    if algorithm is None:
        if kind is not None:
            message = "The x-amz-checksum-type header can only be used with"
            raise S3Error("InvalidRequest", f"{message} the x-amz-checksum-algorithm header.")
        return None
    kind = kind or default_kind(algorithm)
    if not allowed_kind(algorithm, kind):
        message = f"The {kind.value} checksum type cannot be used with the"
        raise S3Error("InvalidRequest", f"{message} {algorithm.value.lower()} checksum algorithm.")
    return algorithm, kind


def declared_checksum(request: Request) -> tuple[ChecksumAlgorithm, str] | None:
    """The one ``x-amz-checksum-<algorithm>`` header; raises ``InvalidRequest`` for several."""
    found = [name for name in CHECKSUM_HEADERS if name in request.headers]
    if len(found) > 1:
        message = "Expecting a single x-amz-checksum- header. Multiple checksum Types are not"
        raise S3Error("InvalidRequest", f"{message} allowed.")
    if not found:
        return None
    algorithm = CHECKSUM_HEADERS[found[0]]
    return algorithm, request.headers[found[0]]


def part_checksum(texts: Mapping[str, str]) -> tuple[ChecksumAlgorithm, str] | None:
    """The first ``Checksum*`` among a part's elements; raises ``InvalidRequest`` for no digest."""
    for algorithm, name in _ELEMENTS.items():
        value = texts.get(name)
        if value:
            try:
                decode(algorithm, value)
            except InvalidInput as error:
                message = f"Value for {name} is invalid."
                raise S3Error("InvalidRequest", message) from error
            return algorithm, value
    return None


def checksum_elements(checksum: Checksum | None, *, with_kind: bool = True) -> str:
    """``ChecksumX`` and ``ChecksumType``, nothing for none."""
    if checksum is None:
        return ""
    kind = element("ChecksumType", checksum.kind.value) if with_kind else ""
    return element(_ELEMENTS[checksum.algorithm], checksum.value) + kind


def checksum_response(checksum: Checksum | None) -> dict[str, str]:
    """The headers that carry a checksum, none for none."""
    if checksum is None:
        return {}
    return {
        _RESPONSE_NAMES[checksum.algorithm]: checksum.value,
        "x-amz-checksum-type": checksum.kind.value,
    }


def wants_checksum(request: Request) -> bool:
    """``x-amz-checksum-mode: ENABLED``."""
    return request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED"
