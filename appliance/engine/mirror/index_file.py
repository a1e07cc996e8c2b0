"""The index's database file: its schema, how it is opened, and which file of a directory it is.

Owns the SQL schema and SQLite's settings. Refuses a database of another format or with a wrong
page checksum (``Damaged``). Every page carries a checksum (SQLite's cksumvfs), verified on each
read from the file, so that bit rot under the index is found instead of served.

The index is derived: writes to it are not flushed one by one. SQLite's write-ahead log makes any
crash leave a prefix of the applied batches; ``Index.checkpoint`` flushes.
"""

from __future__ import annotations

import errno
import functools
import os
from typing import Final

import apsw
import apsw.sqlite_extra

from appliance.core.errors import Damaged, DriveFault
from appliance.core.ports import Volume

FORMAT: Final = 2
PAGE_BYTES: Final = 4096
CHECKSUM_BYTES: Final = 8
BUSY_MS: Final = 5000
_VFS: Final = "cksmvfs"
_PREFIX: Final = "index-"
_BUILDING: Final = "building-"
_SUFFIX: Final = ".db"
CONDEMNED: Final = ".bad"
"""Behind the name of an index that was found damaged."""

_SCHEMA: Final = f"""
CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE partitions (id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE);
CREATE TABLE records (
    partition INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, version INTEGER NOT NULL,
    charges BLOB NOT NULL, place BLOB NOT NULL, PRIMARY KEY (partition, key)) WITHOUT ROWID;
CREATE TABLE counters (
    partition INTEGER NOT NULL, name BLOB NOT NULL, amount INTEGER NOT NULL,
    PRIMARY KEY (partition, name)) WITHOUT ROWID;
CREATE TABLE requests (sequence INTEGER PRIMARY KEY, outcomes BLOB NOT NULL);
CREATE TABLE segments (segment INTEGER PRIMARY KEY, live_bytes INTEGER NOT NULL);
CREATE TABLE tombstones (segment INTEGER PRIMARY KEY, bytes INTEGER NOT NULL);
CREATE TABLE blobs (
    blob_id BLOB PRIMARY KEY, size_bytes INTEGER NOT NULL, partition INTEGER NOT NULL,
    key BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE released (
    blob_id BLOB PRIMARY KEY, size_bytes INTEGER NOT NULL, time_ns INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX released_by_time ON released (time_ns);
CREATE TABLE position (
    only INTEGER PRIMARY KEY CHECK (only = 1), sequence INTEGER NOT NULL,
    incarnation BLOB NOT NULL, crc INTEGER NOT NULL, segment INTEGER NOT NULL,
    generation INTEGER NOT NULL, offset INTEGER NOT NULL, end INTEGER NOT NULL);
PRAGMA user_version = {FORMAT};
"""


_ERROR_NUMBERS: Final = (
    (apsw.IOError, errno.EIO),
    (apsw.FullError, errno.ENOSPC),
    (apsw.CantOpenError, errno.EACCES),
    (apsw.PermissionsError, errno.EACCES),
    (apsw.ReadOnlyError, errno.EACCES),
    (apsw.BusyError, errno.EBUSY),
)


class _Translation:
    """A context manager without state: made once for an operation, entered for every read."""

    __slots__ = ("_operation",)

    def __init__(self, operation: str) -> None:
        self._operation = operation

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None:
            return
        operation = self._operation
        if isinstance(error, apsw.CorruptError | apsw.NotADBError):
            raise Damaged(f"the index is damaged: {operation}: {error}") from error
        if getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_DATA:
            raise Damaged(f"the index is damaged: {operation}: wrong page checksum") from error
        for kind, number in _ERROR_NUMBERS:
            if isinstance(error, kind):
                raise DriveFault("index", operation, number, str(error)) from error


@functools.cache
def translated(operation: str) -> _Translation:
    """SQLite's errors as ours: ``Damaged`` for wrong contents, ``DriveFault`` for the device."""
    return _Translation(operation)


@functools.cache
def _checksums() -> str:
    """The name of the checksumming VFS; loaded once for the process."""
    loader = apsw.Connection(":memory:")
    loader.enable_load_extension(True)
    apsw.sqlite_extra.load(loader, "cksumvfs")
    loader.close()
    return _VFS


def connect(path: str, *, write: bool, create: bool = False, cache_bytes: int) -> apsw.Connection:
    """A connection with our settings. Readers need no write permission, neither on the file nor on
    its directory, as long as the store has it open. Raises ``Damaged``, ``DriveFault``."""
    flags = apsw.SQLITE_OPEN_READONLY
    if write:
        flags = apsw.SQLITE_OPEN_READWRITE
    if create:
        flags |= apsw.SQLITE_OPEN_CREATE
    with translated("opening it"):
        connection = apsw.Connection(path, flags=flags, vfs=_checksums())
        try:
            connection.set_busy_timeout(BUSY_MS)
            if create:
                connection.reserve_bytes("main", CHECKSUM_BYTES)
                connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA cache_size = -{cache_bytes // 1024}")
            if write:
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute("PRAGMA wal_autocheckpoint = 0")
            if create:
                connection.execute(f"BEGIN; {_SCHEMA} COMMIT")
            elif os.stat(path).st_size % PAGE_BYTES:
                # SQLite reads what is missing as zeros, and cksumvfs checks whole pages alone.
                raise Damaged("the index is damaged: its file ends within a page")
            found = connection.pragma("user_version")
            if found != FORMAT:
                raise Damaged(f"the index has format {found}; this program knows {FORMAT}")
        except BaseException:
            connection.close()
            raise
    return connection


def newest_index(volume: Volume) -> str | None:
    """The name of the index in a directory: the one with the highest number. None if there is
    none. Raises ``DriveFault``."""
    names = [name for name in volume.names("") if _number(name, _PREFIX) is not None]
    return names[-1] if names else None


def building_name(volume: Volume) -> str:
    """The name for an index that is being rebuilt: its number is above all others."""
    numbers = [
        number
        for name in volume.names("")
        for prefix in (_PREFIX, _BUILDING)
        if (number := _number(name.removesuffix(CONDEMNED), prefix)) is not None
    ]
    return f"{_BUILDING}{max(numbers, default=0) + 1:08x}{_SUFFIX}"


def publish(volume: Volume, building: str) -> str:
    """Make a closed, checkpointed rebuild the index; the older one stays for readers that still
    have it open until ``remove_others``. Atomic and durable. Returns the new name.

    A fresh name per index, because a name used twice could meet the other one's write-ahead log.
    """
    name = building.replace(_BUILDING, _PREFIX, 1)
    volume.rename(building, name)
    volume.flush_directory("")
    return name


def remove_others(volume: Volume, keep: str) -> None:
    """Unlink every other index, finished or not. Raises ``DriveFault``."""
    for name in volume.names(""):
        if name.startswith((_PREFIX, _BUILDING)) and not name.startswith(keep):
            volume.unlink(name)


def remove_unpublished(volume: Volume) -> None:
    """Unlink what an earlier life was building, or showed to readers. Raises ``DriveFault``."""
    for name in volume.names(""):
        if name.startswith(_BUILDING):
            volume.unlink(name)


def _number(name: str, prefix: str) -> int | None:
    digits = name.removeprefix(prefix).removesuffix(_SUFFIX)
    if f"{prefix}{digits}{_SUFFIX}" != name or len(digits) != 8:
        return None
    try:
        return int(digits, 16)
    except ValueError:
        return None
