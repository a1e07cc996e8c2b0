"""The drives of an open mirror, and calls on several of them at once.

Owns what is open on each drive and what is counted about it. Invariant: a call is either back from
a drive or that drive is failed; only when no drive at all answers does the caller wait on, because
a paused host must not eject healthy drives.

All methods belong to the store's committer thread.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from appliance.core.errors import DriveFault, DriveTimeout, Unavailable
from appliance.core.ports import Clock, Lanes, Volume
from appliance.engine.mirror.log import Log, LogReader
from appliance.engine.mirror.superblock import SuperblockFile

T = TypeVar("T")

HOLD_POLL_S: Final = 0.05
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(eq=False, slots=True)
class Member:
    """One present drive. ``generation`` changes whenever it (re)joins the in-sync set."""

    drive_id: str
    volume: Volume
    superblock: SuperblockFile
    log: Log
    reader: LogReader
    generation: int = 0
    repaired: int = 0

    @property
    def read_errors(self) -> int:
        """Since it was opened; those before are on its superblock, with which these go."""
        return self.superblock.read_errors

    @read_errors.setter
    def read_errors(self, count: int) -> None:
        self.superblock.read_errors = count

    @property
    def read_errors_ever(self) -> int:
        """Since the drive was claimed."""
        return self.superblock.read_errors_before + self.superblock.read_errors

    def close(self) -> None:
        """Give back what is open on the drive. Never raises."""
        self.volume.close()  # first: a call that hangs here must not find its way to other files
        self.close_files()

    def close_files(self) -> None:
        """All but the volume. Never raises."""
        self.log.close()
        self.reader.close()
        self.superblock.close()


def open_member(
    volume: Volume, drive_id: str, mirror_id: bytes, segment_size_bytes: int, generation: int
) -> Member:
    """Open what a member needs on its drive. Raises ``DriveFault``; ``Unavailable`` if it has no
    superblock, where one was seen before."""
    superblock = SuperblockFile.open(volume)
    if not isinstance(superblock, SuperblockFile):
        raise Unavailable(f"drive {volume.name}: its superblock cannot be opened")
    try:
        log = Log(volume, mirror_id, segment_size_bytes)
    except BaseException:
        superblock.close()
        raise
    reader = LogReader(volume, mirror_id)
    return Member(drive_id, volume, superblock, log, reader, generation)


@dataclass(slots=True)
class Answers:
    """What a call on several drives came to."""

    values: dict[str, object] = field(default_factory=dict)
    faults: dict[str, DriveFault] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        """Whether some drive had no room."""
        return any(fault.errno in FULL for fault in self.faults.values())

    @property
    def failed(self) -> dict[str, DriveFault]:
        """The faults but for those of drives that only have no room: they are whole."""
        return {name: fault for name, fault in self.faults.items() if fault.errno not in FULL}


class Calls:
    """Runs calls on the drives' lanes under a deadline."""

    def __init__(
        self, lanes: Lanes, clock: Clock, *, deadline_s: float, alert: Callable[[str], None]
    ) -> None:
        self._lanes = lanes
        self._clock = clock
        self.deadline_s: Final = deadline_s
        self.alert: Final = alert
        """Tells the operator."""

    def each(self, calls: Mapping[str, Callable[[], object]]) -> Answers:
        """Call each on its drive. A drive over its deadline counts as failed if another one
        answered; while none answers, hold."""
        answers = Answers()
        once = {name: _Once(call) for name, call in calls.items()}
        late = self._run(once, answers, self.deadline_s)
        if late and not answers.values:
            self._hold(once, late, answers)
        else:
            answers.faults.update(late)
        return answers

    def within(
        self, name: str, call: Callable[[], object], deadline_s: float | None = None
    ) -> DriveFault | None:
        """One call that may simply fail by its deadline: the witness, or a drive others can do
        without."""
        answers = Answers()
        deadline_s = self.deadline_s if deadline_s is None else deadline_s
        late = self._run({name: call}, answers, deadline_s)
        return late.get(name) or answers.faults.get(name)

    def on(self, name: str, call: Callable[[], T], deadline_s: float | None = None) -> T:
        """One call on a drive's lane: its result. Raises what it raised, or ``DriveTimeout``."""
        done: list[T] = []
        fault = self.within(name, lambda: done.append(call()), deadline_s)
        if fault is not None:
            raise fault
        return done[0]

    def renew(self, name: str) -> None:
        """A drive came back on a fresh mount: what may still hang on the old one is left behind."""
        self._lanes.drop(name)

    def _run(
        self,
        calls: Mapping[str, Callable[[], object]],
        answers: Answers,
        deadline_s: float,
    ) -> dict[str, DriveFault]:
        late: dict[str, DriveFault] = {}
        for name, outcome in self._lanes.run(calls, deadline_s=deadline_s).items():
            if outcome.fault is None:
                answers.values[name] = outcome.value
            elif isinstance(outcome.fault, DriveTimeout):
                late[name] = outcome.fault
            else:
                assert isinstance(outcome.fault, DriveFault), "lanes catch nothing else"
                answers.faults[name] = outcome.fault
        return late

    def _hold(
        self, calls: Mapping[str, _Once], late: dict[str, DriveFault], answers: Answers
    ) -> None:
        """Nobody answers: wait until a lane is free again; its call then tells what it came to.
        What held all of them up is over for the others too: they have their deadline from then on.
        """
        names = ", ".join(sorted(late))
        self.alert(f"no drive answers ({names}): writing is held until one does")
        end_s = float("inf")
        while late and self._clock.monotonic_s() < end_s:
            self._clock.sleep_s(HOLD_POLL_S)
            late = self._run({name: calls[name] for name in late}, answers, self.deadline_s)
            if answers.values and end_s == float("inf"):
                end_s = self._clock.monotonic_s() + self.deadline_s
                self.alert("drives answer again")
        answers.faults.update(late)


class Opening(Generic[T]):
    """Opens something on a lane. Given up, it closes what was opened, or is opened later by a call
    that hung, so that nothing stays open that nobody knows of."""

    def __init__(self, make: Callable[[], T], close: Callable[[T], None]) -> None:
        self._make = make
        self._close = close
        self._made: list[T] = []
        self._is_given_up = False

    def __call__(self) -> T:
        """On the lane."""
        made = self._make()
        self._made.append(made)
        if self._is_given_up:
            self._close(made)
        return made

    def give_up(self) -> None:
        """Nobody waits for it any more."""
        self._is_given_up = True
        for made in self._made:
            self._close(made)


class _Once:
    """A call that is made once; called again, it tells what it came to. Only on its lane."""

    __slots__ = ("_call", "_done", "_fault", "_value")

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._done = False
        self._value: object = None
        self._fault: DriveFault | None = None

    def __call__(self) -> object:
        if not self._done:
            try:
                self._value = self._call()
            except DriveTimeout:
                raise  # not back yet
            except DriveFault as fault:
                self._fault = fault
            self._done = True
        if self._fault is not None:
            raise self._fault
        return self._value
