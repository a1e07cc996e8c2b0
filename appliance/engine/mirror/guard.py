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
from appliance.core.ports import File, Volume
from appliance.engine.mirror.assembled import NobodyAnswers
from appliance.engine.mirror.mediated import MediatedVolume
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

    def call(self, drive: str, operation: str, call: Callable[[], T]) -> T:
        """What the call gives, made on the drive's lane. Raises what it raises, ``DriveTimeout``,
        or ``NobodyAnswers``."""
        try:
            return self._calls.on(drive, call)
        except DriveTimeout as fault:
            text = f"it did not come back within {self._calls.deadline_s:g} s"
            late = DriveTimeout(drive, operation, fault.errno, text)
            others = [other for other in self._plain if other != drive]
            if any(self._answers(other) for other in others):
                raise late from fault
            raise NobodyAnswers(f"no drive answers ({late}): trying again until one does") from late

    def opened(
        self, drive: str, operation: str, make: Callable[[], T], close: Callable[[T], None]
    ) -> T:
        """Like ``call``, for what must be closed if nobody waits for it any more."""
        opening = Opening(make, close)
        try:
            return self.call(drive, operation, opening)
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


class GuardedVolume(MediatedVolume):
    """A drive whose calls a ``Guard`` makes. What is opened on it counts as the start's."""

    def __init__(self, guard: Guard, volume: Volume) -> None:
        super().__init__(volume, guard)
        self._guard = guard
        self._files: set[File] = set()

    def take_in(self, operation: str, opening: Callable[[], File]) -> File:
        """See ``MediatedVolume``."""
        file = self._guard.opened(self.name, operation, opening, _close)
        self._files.add(file)
        return file

    def let_go(self, file: File) -> None:
        """See ``MediatedVolume``. One that hangs in a call stays as it is until ``close``."""
        if file in self._files and self._guard.closes(self.name, file):
            self._files.discard(file)

    @property
    def is_in_use(self) -> bool:
        """Whether something could not be closed."""
        return bool(self._files)

    def close(self) -> None:
        """Close the drive's volume, then whatever the start still has open on it. Any thread, for
        this may hang with the drive."""
        self._volume.close()  # first: a call that hangs must not find its way to other files
        for file in list(self._files):
            file.close()
