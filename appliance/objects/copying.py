"""What copying an object and copying a part have in common.

Owns the view of one object's content as the body of another. Refuses a source whose conditions do
not hold, before anything of it is read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from appliance.core.checksums import ChecksumAlgorithm
from appliance.core.conditions import Verdict, evaluate_read
from appliance.core.errors import S3Error
from appliance.objects.model import CopySource, Declared, ObjectInfo


class CopyBody:
    """The content of an object as the body of another. It declares nothing: what it yields was
    authenticated when it was decrypted."""

    checksum_algorithm: ChecksumAlgorithm | None = None

    def __init__(self, content: AsyncIterator[bytes], size_bytes: int) -> None:
        self._content: Final = content
        self.size_bytes: int | None = size_bytes

    async def read(self) -> bytes:
        """The next piece."""
        return await anext(self._content, b"")

    def declared(self) -> Declared:
        """Nothing."""
        return Declared()


def check_source(source: CopySource, info: ObjectInfo) -> None:
    """Raises ``S3Error`` PreconditionFailed unless the copy source's conditions hold."""
    verdict = evaluate_read(source.condition, info.etag, info.modified_ns)
    if verdict is not Verdict.OK:
        raise S3Error("PreconditionFailed", "The copy source's preconditions did not hold")
