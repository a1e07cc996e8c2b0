"""The seams: what the layers above are handed instead of reaching for it.

The real ones live in ``runtime`` and ``system``, the simulated ones in ``tests``. A seam states
durability on return, idempotence and thread; nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

T = TypeVar("T")
Buffer: TypeAlias = bytes | bytearray | memoryview


class Clock(Protocol):
    """Time. Any thread."""

    def now_ns(self) -> int:
        """Wall clock, nanoseconds since 1970 UTC. May jump; never orders anything."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never run backwards."""
        ...

    def sleep_s(self, seconds: float) -> None:
        """Block the calling thread. Never called on an event loop."""
        ...


class Entropy(Protocol):
    """Randomness. Any thread."""

    def token(self, size_bytes: int) -> bytes:
        """Bytes nobody can guess (a seeded generator in simulations)."""
        ...


@dataclass(frozen=True, slots=True)
class FileStat:
    """What ``Volume.stat`` tells: size in bytes, and whether it is a directory."""

    size_bytes: int
    is_directory: bool


@dataclass(frozen=True, slots=True)
class Space:
    """Room on a volume, in bytes."""

    total_bytes: int
    free_bytes: int


class File(Protocol):
    """An open file on one drive. Blocking; one thread at a time unless only reading.

    Every method raises ``DriveFault`` with the errno. After a fault on write or flush nothing
    written since the last good flush may be trusted, and the call must not be retried.
    """

    def read_at(self, offset: int, length: int, *, past_cache: bool = False) -> bytes:
        """Bytes at ``offset``; shorter only at the end of the file."""
        ...

    def read_cached(self, offset: int, length: int) -> bytes | None:
        """The same bytes if they are in memory; None, at once, if the drive would have to be asked
        or nobody can tell."""
        ...

    def write_at(self, offset: int, data: Buffer) -> None:
        """Write all of ``data``. Durable on return only if the file was opened ``durable``. Memory
        that is aligned to a page spares a ``direct`` file a copy."""
        ...

    def flush(self) -> None:
        """Data and size of this file are on stable storage on return (fdatasync)."""
        ...

    def allocate(self, length: int) -> None:
        """Reserve room for ``length`` bytes without changing the size seen by readers."""
        ...

    def truncate(self, length: int) -> None:
        """Set the size. Not durable until ``flush``."""
        ...

    def size_bytes(self) -> int: ...

    def close(self) -> None:
        """Idempotent; never raises."""
        ...


class Volume(Protocol):
    """One drive's directory tree: the only way the engine touches a drive.

    Paths are relative, ``/`` separated. Blocking; any thread. All methods raise ``DriveFault``
    (``errno.ENOENT``, ``EEXIST``, ``ENOSPC``, ``EIO``, ...).
    """

    @property
    def name(self) -> str:
        """How messages and traces call it."""
        ...

    def open(
        self,
        path: str,
        *,
        write: bool = False,
        create: bool = False,
        durable: bool = False,
        direct: bool = False,
    ) -> File:
        """Open a file. ``create`` demands that it does not exist yet. ``durable``: each write is on
        stable storage when it returns (O_DSYNC, and O_DIRECT where the file system has it: offsets
        and lengths must then be multiples of 4,096). ``direct``: the same without the first half,
        for much that is written and flushed once."""
        ...

    def make_directory(self, path: str) -> None:
        """Create with parents; idempotent. Durable after ``flush_directory`` of each parent."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Atomic, replaces ``target``. Durable after ``flush_directory`` of both parents."""
        ...

    def take_over(self, path: str) -> None:
        """The file belongs to this process from now on, and nobody may open it for writing any
        more. As far as this process has the privilege; no error without it."""
        ...

    def unlink(self, path: str) -> None: ...

    def names(self, path: str) -> list[str]:
        """Names in a directory, sorted."""
        ...

    def stat(self, path: str) -> FileStat | None:
        """None if it does not exist."""
        ...

    def flush_directory(self, path: str) -> None:
        """Names in ``path`` are on stable storage on return (fsync of the directory)."""
        ...

    def space(self) -> Space: ...

    def close(self) -> None:
        """Idempotent; never raises."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one lane's call came to: exactly one of ``value`` and ``fault`` counts."""

    value: object = None
    fault: Exception | None = None


class Lanes(Protocol):
    """Runs blocking calls on several drives side by side, one writer thread per drive.

    The simulated one runs them one after the other in a seeded order, so that every interleaving of
    the drives can be replayed.
    """

    def run(
        self, calls: Mapping[str, Callable[[], object]], *, deadline_s: float
    ) -> Mapping[str, Outcome]:
        """Call each on its drive's lane and wait for all. A call that is not back by the deadline
        yields ``DriveTimeout`` (and its lane stays busy); only ``DriveFault`` is caught."""
        ...

    def drop(self, drive: str) -> None:
        """Leave a lane to the call that hangs in it; the drive's next call gets a fresh one. Only
        for a drive that failed and came back on a fresh mount."""
        ...


@dataclass(frozen=True, slots=True)
class Credential:
    """What a gateway may know of the account behind an access key."""

    access_key: str
    secret_key: str
    user_id: str
    display_name: str
    contract: str
    bucket_prefix: str = ""
    frozen: bool = False

    def __repr__(self) -> str:
        """Without the secret, so that no log line can carry it."""
        return f"Credential({self.access_key!r}, user_id={self.user_id!r})"


@dataclass(frozen=True, slots=True)
class Owner:
    """An S3 canonical user as shown in listings."""

    user_id: str
    display_name: str


class KeyStore(Protocol):
    """How the S3 front learns secrets it is entitled to. Implemented over IPC to the control role;
    results are cached for a few seconds, so a frozen key stops working within that time."""

    async def credential(self, access_key: str) -> Credential | None:
        """None for an unknown or revoked key."""
        ...

    async def contract_key(self, contract: str) -> bytes:
        """The contract's 256-bit key. Raises ``NotFound`` once it is destroyed."""
        ...

    async def owner(self, contract: str, user_id: str) -> Owner | None:
        """The account of this contract behind a canonical user id; None for any other id."""
        ...


class Progress(Protocol):
    """Where long work reports how far it is. Any thread, cheap."""

    def __call__(self, done: int, total: int) -> None: ...


__all__: Sequence[str] = (
    "Buffer",
    "Clock",
    "Credential",
    "Entropy",
    "File",
    "FileStat",
    "KeyStore",
    "Lanes",
    "Outcome",
    "Owner",
    "Progress",
    "Space",
    "Volume",
)
