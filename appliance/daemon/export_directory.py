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
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Any, Final

from appliance.core.errors import Refused, Unreachable

BUCKETS: Final = "buckets"
INCOMING: Final = "incoming.part"
LISTS: Final = ("buckets", "manifest", "unreadable")
_SECOND_NS: Final = 1_000_000_000
_ONE_PATH: Final = frozenset(
    {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.EILSEQ}
)


class ExportDirectory:
    """One run's target. Blocking; one thread."""

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

    def has(self, path: str, size_bytes: int, modified_ns: int) -> bool:
        """Whether an earlier run left exactly this there."""
        try:
            found = os.lstat(self._place(path))
        except OSError:
            return False
        times = {modified_ns}
        if found.st_mtime_ns % _SECOND_NS == 0:
            times.add(modified_ns - modified_ns % _SECOND_NS)  # a file system without fractions
        return found.st_size == size_bytes and found.st_mtime_ns in times

    async def store(self, path: str, pieces: AsyncIterator[bytes], modified_ns: int) -> int:
        """Write an object's bytes under their path; how many there were. Durable on return. What
        ``pieces`` raises leaves nothing behind. Raises ``Refused`` if this one path cannot be,
        ``Unreachable``."""
        place, incoming = self._place(path), self._root / INCOMING
        size_bytes = 0
        try:
            with incoming.open("wb") as file:
                async for piece in pieces:
                    file.write(piece)
                    size_bytes += len(piece)
                file.flush()
                os.utime(file.fileno(), ns=(modified_ns, modified_ns))
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
        return size_bytes

    def note(self, name: str, line: dict[str, Any]) -> None:
        """One line more in a list."""
        with _whole(self._root):
            self._lists[name].write(json.dumps(line, ensure_ascii=False) + "\n")

    def finish(self) -> None:
        """The lists become those of this run; everything is durable on return."""
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
            os.sync()

    def close(self) -> None:
        """Idempotent; without ``finish`` the earlier lists stay."""
        for name, file in self._lists.items():
            with contextlib.suppress(OSError):
                file.close()
                (self._root / f"{_list(name)}.part").unlink(missing_ok=True)

    def _place(self, path: str) -> Path:
        return self._root / BUCKETS / path


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
