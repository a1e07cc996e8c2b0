"""The drives while a mirror is opened: whoever asks one gets an answer, or learns that it hangs.

Owns volumes whose every call runs on the drive's lane under its deadline, so that the start may use
them as if they always answered. Refuses, with ``DriveTimeout``, to wait longer for a drive while
another one answers, and with ``NobodyAnswers`` while none does: then it may be the host that stood
still, and nothing is said of any drive. Invariant: a call is made only once the one before it, of
the same drive, is back; nothing follows one that hangs, so that all it can still do is that call.

Committer thread only, and only until the mirror is open: then members use their drives directly,
on lanes or threads of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from appliance.core.errors import DriveTimeout
from appliance.core.ports import Buffer, File, FileStat, Space, Volume
from appliance.engine.mirror.assembled import NobodyAnswers
from appliance.engine.mirror.member import Calls, Opening
from appliance.engine.mirror.superblock import read_superblock

T = TypeVar("T")


class Guard:
    """Over the drives of one attempt to open."""

    def __init__(self, calls: Calls, volumes: Sequence[Volume]) -> None:
        self._calls = calls
        self._plain = {volume.name: volume for volume in volumes}
        self._guarded = [GuardedVolume(self, volume) for volume in volumes]

    @property
    def volumes(self) -> Sequence[GuardedVolume]:
        """The drives, guarded."""
        return self._guarded

    def run(self, name: str, call: Callable[[], T]) -> T:
        """What the call gives, made on the drive's lane. Raises what it raises, ``DriveTimeout``,
        or ``NobodyAnswers``."""
        try:
            return self._calls.on(name, call)
        except DriveTimeout as late:
            others = [other for other in self._plain if other != name]
            if any(self._answers(other) for other in others):
                raise
            raise NobodyAnswers(f"no drive answers ({late}): trying again until one does") from late

    def opened(self, name: str, make: Callable[[], T], close: Callable[[T], None]) -> T:
        """Like ``run``, for what must be closed if nobody waits for it any more."""
        opening = Opening(make, close)
        try:
            return self.run(name, opening)
        except BaseException:
            opening.give_up()
            raise

    def closes(self, name: str, file: File) -> bool:
        """Close a file, unless its drive hangs. Whether it is closed."""
        return self._calls.within(name, file.close) is None

    def _answers(self, name: str) -> bool:
        """Whether another drive completes a read of its own, past the page cache, now that one is
        over its deadline."""
        return self._calls.within(name, partial(read_superblock, self._plain[name])) is None


def _close(file: File) -> None:
    file.close()


class GuardedVolume:
    """``core.ports.Volume`` over another one; see the module."""

    def __init__(self, guard: Guard, volume: Volume) -> None:
        self._guard = guard
        self._volume = volume
        self._files: set[File] = set()

    @property
    def name(self) -> str:
        """See ``core.ports.Volume``."""
        return self._volume.name

    def run(self, call: Callable[[], T]) -> T:
        """See ``Guard.run``."""
        return self._guard.run(self.name, call)

    def open(
        self,
        path: str,
        *,
        write: bool = False,
        create: bool = False,
        durable: bool = False,
        direct: bool = False,
    ) -> GuardedFile:
        """See ``core.ports.Volume``."""

        opening = partial(
            self._volume.open, path, write=write, create=create, durable=durable, direct=direct
        )
        file = self._guard.opened(self.name, opening, _close)
        self._files.add(file)
        return GuardedFile(self, file)

    def let_go(self, file: File) -> None:
        """Close a file of this drive. One that hangs in a call stays as it is until ``close``."""
        if file in self._files and self._guard.closes(self.name, file):
            self._files.discard(file)

    @property
    def is_in_use(self) -> bool:
        """Whether something could not be closed."""
        return bool(self._files)

    def make_directory(self, path: str) -> None:
        """See ``core.ports.Volume``."""
        self.run(partial(self._volume.make_directory, path))

    def rename(self, source: str, target: str) -> None:
        """See ``core.ports.Volume``."""
        self.run(partial(self._volume.rename, source, target))

    def take_over(self, path: str) -> None:
        """See ``core.ports.Volume``."""
        self.run(partial(self._volume.take_over, path))

    def unlink(self, path: str) -> None:
        """See ``core.ports.Volume``."""
        self.run(partial(self._volume.unlink, path))

    def names(self, path: str) -> list[str]:
        """See ``core.ports.Volume``."""
        return self.run(partial(self._volume.names, path))

    def stat(self, path: str) -> FileStat | None:
        """See ``core.ports.Volume``."""
        return self.run(partial(self._volume.stat, path))

    def flush_directory(self, path: str) -> None:
        """See ``core.ports.Volume``."""
        self.run(partial(self._volume.flush_directory, path))

    def space(self) -> Space:
        """See ``core.ports.Volume``."""
        return self.run(self._volume.space)

    def close(self) -> None:
        """Close the drive's volume, then whatever the start still has open on it. Any thread, for
        this may hang with the drive."""
        self._volume.close()  # first: a call that hangs must not find its way to other files
        for file in list(self._files):
            file.close()


class GuardedFile:
    """``core.ports.File`` over another one."""

    def __init__(self, volume: GuardedVolume, file: File) -> None:
        self._volume = volume
        self._file = file

    def read_at(self, offset: int, length: int, *, past_cache: bool = False) -> bytes:
        """See ``core.ports.File``."""
        return self._volume.run(partial(self._file.read_at, offset, length, past_cache=past_cache))

    def read_cached(self, offset: int, length: int) -> bytes | None:
        """See ``core.ports.File``: waits for no drive, and so for no lane."""
        return self._file.read_cached(offset, length)

    def write_at(self, offset: int, data: Buffer) -> None:
        """See ``core.ports.File``."""
        self._volume.run(partial(self._file.write_at, offset, data))

    def flush(self) -> None:
        """See ``core.ports.File``."""
        self._volume.run(self._file.flush)

    def allocate(self, length: int) -> None:
        """See ``core.ports.File``."""
        self._volume.run(partial(self._file.allocate, length))

    def truncate(self, length: int) -> None:
        """See ``core.ports.File``."""
        self._volume.run(partial(self._file.truncate, length))

    def size_bytes(self) -> int:
        """See ``core.ports.File``."""
        return self._volume.run(self._file.size_bytes)

    def close(self) -> None:
        """See ``core.ports.File``."""
        self._volume.let_go(self._file)
