"""Where exported objects go, whatever that is.

Owns the seam. A target is used by one task; a failure on one object leaves nothing of it behind.
"""

from __future__ import annotations

from typing import Any, Protocol

from appliance.objects.content import OpenObject
from appliance.objects.export import StoredBucket, StoredObject


class Target(Protocol):
    """A directory, or another S3 endpoint."""

    async def bucket(self, bucket: StoredBucket) -> None:
        """Its objects follow. Raises ``Refused``, ``Unreachable``."""
        ...

    def where(self, found: StoredObject) -> str:
        """How the manifest calls the object's place."""
        ...

    async def has(self, found: StoredObject, opened: OpenObject) -> bool:
        """Whether an earlier run left exactly this there."""
        ...

    async def store(self, found: StoredObject, opened: OpenObject, told: Told) -> None:
        """Write the object; durable as far as the target promises on return. Raises what reading
        it raises, ``Refused`` for this one object, ``Unreachable`` when nothing more can go."""
        ...

    def note(self, name: str, line: dict[str, Any]) -> None:
        """One line more in the list of buckets, of objects (manifest), or of the unreadable."""
        ...

    async def finish(self) -> None:
        """All objects were offered; the lists are those of this run from now on."""
        ...

    async def close(self) -> None:
        """Idempotent."""
        ...


class Told(Protocol):
    """Told how many bytes of an object went out."""

    def __call__(self, size_bytes: int) -> None: ...
