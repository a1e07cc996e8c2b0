"""Byte ranges of reads and of copied parts.

Owns the reading of ``Range`` and ``x-amz-copy-source-range``. Invariant: a ``ByteRange`` lies
within the object and is not empty, but for the copy of a whole empty object.

Reference: RFC 9110 section 14; AWS ignores a range it cannot read and answers the whole object.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from appliance.core.errors import InvalidInput, S3Error

_RANGE: Final = re.compile(
    r"\s*bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", re.ASCII | re.IGNORECASE
)
_COPY_RANGE: Final = re.compile(r"bytes=(\d{1,19})-(\d{1,19})", re.ASCII)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """``length`` bytes from ``start``."""

    start: int
    length: int

    def content_range(self, size_bytes: int) -> str:
        """The Content-Range header of the answer."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{size_bytes}"


class Unsatisfiable(InvalidInput):
    """The range is well formed but has no byte of the object: 416."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(f"the range has no byte of an object of {size_bytes} bytes")
        self.size_bytes: Final = size_bytes


def parse_range(header: str | None, size_bytes: int) -> ByteRange | None:
    """The range of a read, or None for the whole object (no header, several ranges, or nonsense).

    Raises ``Unsatisfiable``; a range on an empty object always is.
    """
    found = _RANGE.fullmatch(header) if header is not None else None
    if found is None:
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    if not first:
        length = min(int(last), size_bytes)
        if length == 0:
            raise Unsatisfiable(size_bytes)
        return ByteRange(size_bytes - length, length)
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size_bytes:
        raise Unsatisfiable(size_bytes)
    end = min(int(last), size_bytes - 1) if last else size_bytes - 1
    return ByteRange(start, end - start + 1)


def parse_copy_range(header: str | None, size_bytes: int) -> ByteRange:
    """The bytes of a source that a copied part takes; all of them without a header.

    Stricter than a read: raises ``S3Error`` InvalidArgument unless it is ``bytes=first-last``, and
    InvalidRange when it reaches past the end.
    """
    if header is None:
        return ByteRange(0, size_bytes)
    found = _COPY_RANGE.fullmatch(header)
    if found is None or int(found[1]) > int(found[2]):
        raise S3Error(
            "InvalidArgument",
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first"
            " and last are the zero-based offsets of the first and last bytes to copy",
            fields={"ArgumentName": "x-amz-copy-source-range", "ArgumentValue": header},
        )
    start, end = int(found[1]), int(found[2])
    if end >= size_bytes:
        raise S3Error(
            "InvalidRange",
            f"Range specified is not valid for source object of size: {size_bytes}",
        )
    return ByteRange(start, end - start + 1)
