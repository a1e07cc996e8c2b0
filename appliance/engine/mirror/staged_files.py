"""The files of one staged blob: made on each drive, given up, dropped.

Owns what must be dropped if no commit takes the blob, and that a file is closed only when no call
on it runs. Refuses to make a file that would leave the log less than the reserve. Invariant: what
drops here runs in the threads of the drive the file is on.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections import deque
from concurrent.futures import Executor
from dataclasses import dataclass, field

from appliance.core.errors import DriveFault
from appliance.core.ports import File, Volume


@dataclass(eq=False, slots=True)
class StagingMember:
    """One in-sync drive as the gateway sees it. ``gone`` is done once it no longer is one."""

    drive: str
    generation: int
    volume: Volume
    threads: Executor
    gone: asyncio.Future[None]


@dataclass(slots=True)
class Copy:
    """The blob's file on one drive while it is written."""

    member: StagingMember
    generation: int
    file: File


@dataclass(slots=True)
class Trace:
    """What must be dropped if no commit takes the blob; shared with its finalizer."""

    path: str
    graveyard: deque[Trace]
    copies: list[Copy] = field(default_factory=list)
    settled: bool = False

    def bury(self) -> None:
        """For finalizers, which run wherever the collector strikes: takes no lock. Whoever owns the
        graveyard drops what lies in it."""
        self.graveyard.append(self)

    def drop(self) -> None:
        """Close and unlink in the drives' threads. Any thread; never raises."""
        if self.settled:
            return
        self.settled = True
        for copy in list(self.copies):
            self.give_up(copy)

    def forget(self, copy: Copy) -> None:
        """Count on this copy no longer."""
        self.copies = [other for other in self.copies if other is not copy]

    def give_up(self, copy: Copy) -> None:
        """Remove one drive's copy, in that drive's threads. No call on it may be running."""
        self.forget(copy)
        with contextlib.suppress(RuntimeError):  # the threads are gone: start-up collects
            copy.member.threads.submit(_remove, copy, self.path)


def drop_later(trace: Trace, flight: asyncio.Task[None]) -> None:
    """For the end of the last call under way: drop everything."""
    if not flight.cancelled():
        flight.exception()  # nobody waits for the outcome of what is dropped
    trace.drop()


def remove_later(trace: Trace, copy: Copy, future: asyncio.Future[None]) -> None:
    """For the end of the last call on a copy that counts no longer."""
    if not future.cancelled():
        future.exception()  # reported already, or of a drive that is gone
    trace.give_up(copy)


def create(volume: Volume, path: str, length: int | None, reserve_bytes: int) -> File:
    """The file on one drive, with its room if its length is known. Raises ``DriveFault``, ENOSPC
    too when the reserve would not be left. In the drive's threads."""
    if volume.space().free_bytes - (length or 0) < reserve_bytes:
        raise DriveFault(volume.name, f"making {path}", errno.ENOSPC, "the reserve is reached")
    file = volume.open(path, write=True, create=True, direct=True)
    if length is not None:
        try:
            file.allocate(length)
        except DriveFault:
            file.close()
            volume.unlink(path)
            raise
    return file


def discard(member: StagingMember, trace: Trace, future: asyncio.Future[File]) -> None:
    """For the end of a ``create`` nobody waits for any more."""
    if not future.cancelled() and future.exception() is None:
        trace.give_up(Copy(member, member.generation, future.result()))


def _remove(copy: Copy, path: str) -> None:
    copy.file.close()
    with contextlib.suppress(DriveFault):  # adopted meanwhile, or the drive is gone
        copy.member.volume.unlink(path)
