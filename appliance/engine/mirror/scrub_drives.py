"""How a scrub reaches the drives: on lanes of its own, each call under a deadline of its own.

Owns the scrub's lanes. Refuses to go on, by raising what a drive raised, when that is no single bad
spot. Invariant: whatever a scrub wants of a drive is wanted here, so that a drive that hangs stalls
the scrub alone, and that for one deadline; of whoever hangs it is said that it does.

One thread at a time.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from appliance.core.errors import DriveFault, DriveTimeout
from appliance.core.ports import Lanes, Volume
from appliance.engine.mirror.format import BLOCK_BYTES
from appliance.engine.mirror.member import Member
from appliance.engine.mirror.segment import segment_path
from appliance.engine.mirror.state import MirrorState

T = TypeVar("T")

PROBE: Final = "probe"
"""Its lane is a fresh one: the others may hang."""


class ScrubDrives:
    """The members' drives as the scrub meets them."""

    def __init__(self, state: MirrorState, lanes: Lanes) -> None:
        self._state = state
        self._lanes = lanes

    def together(self, calls: Mapping[str, Sequence[Callable[[], T]]]) -> dict[str, list[T | None]]:
        """Make each drive's calls, all at once; None where a drive could not read. Raises
        ``DriveFault`` for anything but a bad spot."""
        results: dict[str, list[T | None]] = {}
        for drive, outcomes in self._run(calls).items():
            results[drive] = []
            for value, fault in outcomes:
                if fault is not None and not fault.is_bad_spot:
                    raise fault
                results[drive].append(None if fault is not None else value)
        return results

    def on(self, drive: str, call: Callable[[], Any]) -> Any:
        """One call: its result. Raises what it raised, ``DriveTimeout``."""
        ((value, fault),) = self._run({drive: [call]})[drive]
        if fault is not None:
            raise fault
        return value

    def silent(self, members: Mapping[str, Member]) -> dict[str, DriveFault]:
        """Those of the members that do not answer although another one does: asked for a block of
        the log past the cache, all at once."""
        path = segment_path(self._state.planner.tail.segment)
        probes = {
            _lane(drive, PROBE): partial(_read_block, member.volume, path)
            for drive, member in members.items()
        }
        deadline_s = self._state.settings.deadline_s
        outcomes = self._lanes.run(probes, deadline_s=deadline_s)
        late: dict[str, DriveFault] = {
            drive: _late(drive, deadline_s)
            for drive in members
            if isinstance(outcomes[_lane(drive, PROBE)].fault, DriveTimeout)
        }
        return late if len(late) < len(probes) else {}

    def _run(
        self, calls: Mapping[str, Sequence[Callable[[], T]]]
    ) -> dict[str, list[tuple[T | None, DriveFault | None]]]:
        deadline_s = self._state.settings.deadline_s
        lanes = {
            _lane(drive, number): call
            for drive, made in calls.items()
            for number, call in enumerate(made)
        }
        outcomes = self._lanes.run(lanes, deadline_s=deadline_s)
        found: dict[str, list[tuple[T | None, DriveFault | None]]] = {}
        for drive, made in calls.items():
            found[drive] = []
            for number in range(len(made)):
                outcome = outcomes[_lane(drive, number)]
                fault = outcome.fault
                assert fault is None or isinstance(fault, DriveFault), "lanes catch nothing else"
                if isinstance(fault, DriveTimeout):
                    fault = _late(drive, deadline_s)
                found[drive].append((outcome.value, fault))  # type: ignore[arg-type]  # its call's
        return found


def _lane(drive: str, number: object) -> str:
    return f"scrub {number} of {drive}"


def _late(drive: str, deadline_s: float) -> DriveTimeout:
    """Of the drive, whatever its lane is called."""
    detail = f"it did not answer the scrub within {deadline_s:g} s"
    return DriveTimeout(drive, "a read", errno.ETIMEDOUT, detail)


def _read_block(volume: Volume, path: str) -> None:
    file = volume.open(path, direct=True)
    try:
        file.read_at(0, BLOCK_BYTES, past_cache=True)
    finally:
        file.close()
