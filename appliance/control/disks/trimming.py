"""Giving free space back to the drives: once a week, and sooner when much was freed at once.

Owns when, and at what pace. Refuses to hurry: it rests longer than the device works, for clients'
sake. Invariant: a drive that cannot be told, or does not answer, is no fault here; nobody waits for
this but itself. What was done is not remembered over a restart: to do it again is harmless.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import Final

from appliance.control.disks.bay import Bay
from appliance.control.disks.reality import Reality
from appliance.core.errors import ApplianceError, DriveFault
from appliance.core.ports import Clock, Space

LOOK_EVERY_S: Final = 60.0
FIRST_AFTER_S: Final = 3600.0
"""After a drive was first seen: not in the middle of a start."""
PIECE_S_MAX: Final = 600.0
RESTS_FOR: Final = 3.0
"""So many times as long as a piece took."""
AGAIN_AFTER_S: Final = 86_400.0
"""At the earliest, after much was freed."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrimPolicy:
    """``every_s``: 0 for never. ``freed_percent``: of the drive's size, freed since the last time,
    is reason enough."""

    every_s: float = 7 * 86_400.0
    freed_percent: float = 10.0


@dataclass(slots=True)
class _Known:
    """A drive since it was first seen, or last trimmed."""

    due_s: float
    not_before_s: float
    free_least_bytes: int


class TrimWatch:
    """Which drives are due. Pure."""

    def __init__(self, policy: TrimPolicy) -> None:
        self._policy = policy
        self._known: dict[str, _Known] = {}

    def due(self, drive_id: str, space: Space, now_s: float) -> bool:
        """Whether a drive is to be trimmed now; then it counts as done."""
        policy = self._policy
        if not policy.every_s:
            return False
        known = self._known.get(drive_id)
        if known is None:
            first_s = now_s + FIRST_AFTER_S
            self._known[drive_id] = _Known(first_s, first_s, space.free_bytes)
            return False
        known.free_least_bytes = min(known.free_least_bytes, space.free_bytes)
        freed = space.free_bytes - known.free_least_bytes
        much = freed * 100 >= policy.freed_percent * space.total_bytes
        if now_s < known.due_s and not (much and now_s >= known.not_before_s):
            return False
        self._known[drive_id] = _Known(
            now_s + policy.every_s, now_s + AGAIN_AFTER_S, space.free_bytes
        )
        return True

    def forget_but(self, drives: set[str]) -> None:
        """Those that went away begin anew when they come back."""
        self._known = {drive: known for drive, known in self._known.items() if drive in drives}


class Trimming:
    """Used from one event loop."""

    def __init__(self, reality: Reality, bay: Bay, clock: Clock, policy: TrimPolicy) -> None:
        self._reality = reality
        self._bay = bay
        self._clock = clock
        self._watch = TrimWatch(policy)
        self._keeper: asyncio.Task[None] | None = None
        self._under_way: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Look regularly from now on."""
        self._keeper = asyncio.create_task(self._keep(), name="trimming")

    async def close(self) -> None:
        """Stop looking; a piece that is under way ends by itself. Idempotent."""
        tasks = [*self._under_way.values(), *([self._keeper] if self._keeper else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._keeper = None

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.look()
            except ApplianceError as error:
                _log.warning("free space is not given back for now: %s", error)

    async def look(self) -> None:
        """Begin what is due."""
        present = set(self._reality.present)
        self._watch.forget_but(present)
        for drive_id in present - self._under_way.keys():
            try:
                space = await self._reality.blocking(partial(self._bay.space, drive_id))
            except DriveFault:
                continue  # whoever serves it will say what is wrong
            if self._watch.due(drive_id, space, self._clock.monotonic_s()):
                task = asyncio.create_task(self._trim(drive_id), name=f"trim {drive_id}")
                self._under_way[drive_id] = task
                task.add_done_callback(partial(self._ended, drive_id))

    def _ended(self, drive_id: str, _task: asyncio.Task[None]) -> None:
        del self._under_way[drive_id]

    async def _trim(self, drive_id: str) -> None:
        """All of a drive, piece by piece."""
        given = 0
        try:
            for piece in await self._reality.blocking(partial(self._bay.pieces, drive_id)):
                began_s = self._clock.monotonic_s()
                call = partial(self._bay.trim, drive_id, *piece)
                bytes_given = await self._reality.blocking(call, deadline_s=PIECE_S_MAX)
                if bytes_given is None:
                    return
                given += bytes_given
                await asyncio.sleep(RESTS_FOR * (self._clock.monotonic_s() - began_s))
        except DriveFault as fault:
            _log.info("drive %s: free space is not given back for now: %s", drive_id, fault)
            return
        _log.info("drive %s: %d MiB are free and were given back", drive_id, given // 1024**2)
