"""Every error the appliance raises on purpose, in one tree.

::

    ApplianceError                    base; str(error) is one sentence for a person
    ├── InvalidInput                  a caller's value is wrong; nothing was changed
    │   └── ConfigError               a configuration file or environment override is wrong
    ├── NotFound                      the named drive, mirror, account, ... does not exist
    ├── Refused                       understood, but a safety rule forbids it; says which
    ├── Unreachable                   another role, tool or privilege that is needed is not there
    ├── EngineError
    │   ├── Conflict                  an expectation of a commit did not hold
    │   ├── LimitExceeded             a counter would pass its limit
    │   ├── NoSpace                   the drives are full; nothing was changed
    │   ├── ReadOnly                  the mirror takes no writes now (reason; retry later)
    │   ├── Unavailable               the store is away or restarting (retry soon)
    │   ├── MembershipChanged         a staged blob does not match the members; write it again
    │   ├── Damaged                   one drive's bytes failed verification (ask the peer)
    │   └── DataLost                  no drive holds a valid copy of the bytes asked for
    ├── DriveFault                    an I/O call on a drive failed; carries the errno
    │   └── DriveTimeout              an I/O call passed the drive's deadline
    └── S3Error                       a request's refusal with its S3 code; the S3 front renders it

Rule: a class exists only where a caller acts differently on it. Adapters translate foreign
exceptions at the boundary with ``raise ... from``.
"""

from __future__ import annotations

from collections.abc import Mapping
from errno import EIO
from typing import Final


class ApplianceError(Exception):
    """Base of the tree. The message is a whole sentence: what happened, to what, what to do."""


class InvalidInput(ApplianceError):
    """A caller's value is wrong; nothing was changed."""


class ConfigError(InvalidInput):
    """A configuration value is wrong; names file, line, key and the allowed values."""


class NotFound(ApplianceError):
    """The named thing does not exist."""


class Refused(ApplianceError):
    """A safety rule forbids the operation; the message says which rule and what to do next."""


class Unreachable(ApplianceError):
    """A role, tool, port or privilege that is needed is not there."""


class EngineError(ApplianceError):
    """Base of what the storage engine reports."""


class Conflict(EngineError):
    """An expectation of a commit did not hold; nothing was changed."""

    def __init__(self, key: bytes) -> None:
        super().__init__(f"cannot commit: the record {key!r} is not as expected")
        self.key: Final = key


class LimitExceeded(EngineError):
    """A counter would pass its limit; nothing was changed."""

    def __init__(self, counter: bytes, limit: int) -> None:
        super().__init__(f"cannot commit: counter {counter!r} would pass its limit {limit}")
        self.counter: Final = counter
        self.limit: Final = limit


class NoSpace(EngineError):
    """The drives have no room left; nothing was changed."""


class ReadOnly(EngineError):
    """The mirror takes no writes now; the message says why. Retry after ``retry_after_s``."""

    def __init__(self, reason: str, retry_after_s: int = 10) -> None:
        super().__init__(reason)
        self.retry_after_s: Final = retry_after_s


class Unavailable(EngineError):
    """The store is away or restarting; the outcome of a commit in flight is found by a retry."""

    def __init__(self, reason: str, retry_after_s: int = 1) -> None:
        super().__init__(reason)
        self.retry_after_s: Final = retry_after_s


class MembershipChanged(EngineError):
    """A staged blob is not on every in-sync drive any more; the caller writes it again."""


class Damaged(EngineError):
    """Bytes read from one drive failed verification; the other drive may hold good ones."""


class DataLost(EngineError):
    """No drive holds a valid copy of the bytes asked for."""


class DriveFault(ApplianceError):
    """An I/O call on a drive failed. ``errno`` is the operating system's."""

    def __init__(self, drive: str, operation: str, errno: int, detail: str = "") -> None:
        super().__init__(f"drive {drive}: {operation} failed: {detail or f'errno {errno}'}")
        self.drive: Final = drive
        self.errno: Final = errno

    @property
    def is_bad_spot(self) -> bool:
        """Whether a drive that says this is whole otherwise: it answers, and only not for here."""
        return self.errno == EIO and not isinstance(self, DriveTimeout)


class DriveTimeout(DriveFault):
    """An I/O call passed the drive's deadline; its outcome is unknown."""


class S3Error(ApplianceError):
    """A refusal with its S3 code (``NoSuchKey``, ...).

    ``s3/errors.py`` holds the one table from code to HTTP status and default message. ``fields``
    are extra XML elements (``Region``, ``ServerTime``, ...), ``headers`` extra response headers.
    """

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        fields: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message or code)
        self.code: Final = code
        self.message: Final = message
        self.fields: Final = dict(fields or {})
        self.headers: Final = dict(headers or {})
