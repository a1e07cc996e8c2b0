"""A directory as the place where exported objects go.

Owns what lies there::

    buckets/<bucket>/<path>   the objects; ``core.exportnames`` says how keys become paths
    buckets.jsonl             one line a bucket: owner, creation, tags
    manifest.jsonl            one line an object: key, path, size, ETag, metadata, tags, times
    unreadable.jsonl          one line for each that could not be read, and why; only if there are

Refuses a directory that holds anything else. Invariant: a file under ``buckets`` is whole and on
stable storage; it carries its object's time of modification, by which, with its size, a later run
knows it again. The lists are replaced when a run ends, never before.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from appliance.core.errors import Refused, Unreachable
from appliance.core.exportnames import path_of_key
from appliance.daemon.export_target import Told
from appliance.objects.content import OpenObject
from appliance.objects.export import StoredBucket, StoredObject, describe_bucket
from appliance.system.files import flush_file_system

BUCKETS: Final = "buckets"
INCOMING: Final = "incoming.part"
LISTS: Final = ("buckets", "manifest", "unreadable")
_SECOND_NS: Final = 1_000_000_000
_ONE_PATH: Final = frozenset(
    {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.EILSEQ}
)


class ExportDirectory:
    """One run's target, in a process that does nothing else: it blocks the event loop."""

    def __init__(self, root: Path) -> None:
        """Makes the directory. Raises ``Refused``, ``Unreachable``."""
        self._root: Final = root
        self._lists: Final[dict[str, IO[str]]] = {}
        with _whole(root):
            root.mkdir(parents=True, exist_ok=True)
            ours = {BUCKETS, INCOMING, *(_list(each) for each in LISTS)}
            ours |= {f"{name}.part" for name in ours}
            foreign = sorted({entry.name for entry in root.iterdir()} - ours)
            if foreign:
                raise Refused(
                    f"cannot export to {root}: {foreign[0]!r} is in it, which no export made;"
                    " give an empty directory, or that of an earlier export"
                )
            (root / BUCKETS).mkdir(exist_ok=True)
            for name in LISTS:
                self._lists[name] = (root / f"{_list(name)}.part").open("w", encoding="utf-8")

    async def bucket(self, bucket: StoredBucket) -> None:
        """See ``Target``."""
        self.note("buckets", describe_bucket(bucket))

    def where(self, found: StoredObject) -> str:
        """See ``Target``."""
        return f"{found.bucket}/{path_of_key(found.key, is_folder=found.is_folder)}"

    async def has(self, found: StoredObject, opened: OpenObject) -> bool:
        """By size and time of modification."""
        try:
            there = os.lstat(self._place(found))
        except OSError:
            return False
        times = {opened.info.modified_ns}
        if there.st_mtime_ns % _SECOND_NS == 0:  # a file system without fractions
            times.add(opened.info.modified_ns - opened.info.modified_ns % _SECOND_NS)
        return there.st_size == opened.info.size_bytes and there.st_mtime_ns in times

    async def store(self, found: StoredObject, opened: OpenObject, told: Told) -> None:
        """See ``Target``: whole under its path, and durable, or not there."""
        place, incoming = self._place(found), self._root / INCOMING
        times = (opened.info.modified_ns, opened.info.modified_ns)
        try:
            with incoming.open("wb") as file:
                async for piece in opened.read():
                    file.write(piece)
                    told(file.tell())
                file.flush()
                os.utime(file.fileno(), ns=times)
                os.fsync(file.fileno())
            place.parent.mkdir(parents=True, exist_ok=True)
            incoming.rename(place)
        except OSError as error:
            if error.errno in _ONE_PATH:
                raise Refused(f"cannot write {place}: {error.strerror}") from error
            raise _unreachable(self._root, error) from error
        finally:
            with contextlib.suppress(OSError):
                incoming.unlink(missing_ok=True)

    def note(self, name: str, line: dict[str, Any]) -> None:
        """See ``Target``."""
        with _whole(self._root):
            self._lists[name].write(json.dumps(line, ensure_ascii=False) + "\n")

    async def finish(self) -> None:
        """See ``Target``; everything is durable on return."""
        with _whole(self._root):
            for name, file in self._lists.items():
                file.flush()
                os.fsync(file.fileno())
                empty = file.tell() == 0
                file.close()
                part, whole = self._root / f"{_list(name)}.part", self._root / _list(name)
                if name == "unreadable" and empty:
                    part.unlink()
                    whole.unlink(missing_ok=True)
                else:
                    part.rename(whole)
            flush_file_system(self._root)

    async def close(self) -> None:
        """See ``Target``; without ``finish`` the earlier lists stay."""
        for name, file in self._lists.items():
            with contextlib.suppress(OSError):
                file.close()
                (self._root / f"{_list(name)}.part").unlink(missing_ok=True)

    def _place(self, found: StoredObject) -> Path:
        return self._root / BUCKETS / self.where(found)


def _list(name: str) -> str:
    return f"{name}.jsonl"


@contextlib.contextmanager
def _whole(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unreachable(root, error) from error


def _unreachable(root: Path, error: OSError) -> Unreachable:
    return Unreachable(
        f"cannot export to {root}: {error.strerror or error}; put that right and run the same"
        " command again: it goes on where this one ended"
    )
