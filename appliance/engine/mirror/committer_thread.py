"""The store's one thread: takes commits and commands from a queue, one batch after the other.

Owns the store object and its life: opened when it can be, closed and opened anew, with growing
pauses, after it stopped. Refuses commits with ``Unavailable`` while there is no open store: their
clients try again. Invariant: the store is touched by this thread alone, and every item taken from
the queue is answered.

No timers form batches: whatever came while one batch was written is the next one.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from appliance.core.errors import ApplianceError, Unavailable
from appliance.core.ports import Clock
from appliance.engine.mirror.assembled import NotYet
from appliance.engine.mirror.messages import CommitOrder
from appliance.engine.mirror.store import Store
from appliance.runtime.complaints import Complaints

TAKEN_AT_ONCE_MAX: Final = 4096
STEP_EVERY_S: Final = 1.0
PAUSE_FIRST_S: Final = 1.0
PAUSE_MAX_S: Final = 30.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit to be made."""

    order: CommitOrder
    answer: object


@dataclass(frozen=True, slots=True)
class Command:
    """Something to be done with the open store between two batches."""

    work: Callable[[Store], object]
    answer: Callable[[object, Exception | None], None]


Deliver: TypeAlias = Callable[[list[tuple[object, object]]], None]
"""Takes (answer, outcome) pairs of a batch; any thread."""


class CommitterThread:
    """The thread. Made, started and closed by the service."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        *,
        open_store: Callable[[], Store],
        deliver: Deliver,
        changed: Callable[[Store | None], None],
        mark_after_s: float,
        on_bug: Callable[[BaseException], None],
    ) -> None:
        """``open_store`` raises ``NotYet`` while drives are missing. ``changed`` is told the open
        store, or None once it is gone; ``on_bug`` of an error that is our own."""
        self._queue: queue.SimpleQueue[Commit | Command | None] = queue.SimpleQueue()
        self._clock = clock
        self._open_store = open_store
        self._deliver = deliver
        self._changed = changed
        self._mark_after_s = mark_after_s
        self._on_bug = on_bug
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._store: Store | None = None
        self._held: list[Commit] = []
        """Commits that wait for a drive to catch up; commands do not."""
        self._pause_s = PAUSE_FIRST_S
        self._step_at_s = 0.0
        self._complaints = Complaints(_log)
        self.reason = "the store is starting"
        self.failure: ApplianceError | None = None
        """Why the last attempt to open failed."""
        self._thread = threading.Thread(target=self._run, name=f"committer {name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def is_started(self) -> bool:
        """Whether ``start`` was called."""
        return self._thread.ident is not None

    def put(self, item: Commit | Command) -> None:
        """Hand over an item. Any thread."""
        self._queue.put(item)

    def try_open(self) -> None:
        """Something changed that may let the store open: do not wait for the pause to end."""
        self._wake.set()

    def end(self, timeout_s: float) -> bool:
        """Answer what was handed over, close the store, end. Whether that took no longer."""
        self._ending.set()
        self._wake.set()
        self._queue.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # -- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                if self._store is None:
                    self._try_open()
                else:
                    self._serve(self._store)
            if self._store is not None:
                self._serve(self._store)  # what was handed over before the end
            self._close_store("the store is ending")
            self._refuse_waiting()
        except BaseException as bug:  # noqa: BLE001 - the thread's outermost frame
            self._on_bug(bug)

    def _try_open(self) -> None:
        self._wake.clear()
        try:
            self._store = self._open_store()
        except NotYet as missing:
            self.reason = str(missing)
            pause_s = PAUSE_FIRST_S
        except ApplianceError as error:
            self.reason, self.failure = str(error), error
            self._complaints.say("opening", f"cannot open the mirror: {error}")
            pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, PAUSE_MAX_S)
        else:
            self.reason, self.failure = "", None
            self._complaints.over("opening")
            self._step_at_s = self._clock.monotonic_s()
            self._changed(self._store)
            return
        self._pause(pause_s)

    def _pause(self, pause_s: float) -> None:
        """Wait before the next attempt, answering meanwhile; less when something changes."""
        end_s = self._clock.monotonic_s() + pause_s
        while not self._wake.is_set() and self._clock.monotonic_s() < end_s:
            self._refuse_waiting()
            self._wake.wait(0.05)

    def _refuse_waiting(self) -> None:
        """Nobody waits for a store that is not there: clients try again themselves."""
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return
            if item is not None:
                self._refuse(item, self.reason or "the store is restarting")

    def _refuse(self, item: Commit | Command, reason: str) -> None:
        if isinstance(item, Commit):
            self._deliver([(item.answer, Unavailable(reason))])
        else:
            item.answer(None, Unavailable(reason))

    def _serve(self, store: Store) -> None:
        """One turn: everything that is waiting, or what idleness is for."""
        items = deque(self._due(store, self._take(store)))
        try:
            if not items and store.needs_mark and store.work_wait_s >= self._mark_after_s:
                store.mark()
            while items:
                self._work(store, items)
            if not store.stopped:
                store.work()
            may_step = store.read_only or not store.stopped
            if self._clock.monotonic_s() >= self._step_at_s and may_step:
                self._step_at_s = self._clock.monotonic_s() + STEP_EVERY_S
                store.step()
        except ApplianceError as error:
            if not store.stopped:
                # The index or a rule of the store itself failed: what is durable is for a fresh
                # start to find out.
                _log.exception("the store stops")
            # Taken together with what made it stop, and not begun.
            for item in items:
                self._refuse(item, str(error))
            if not store.read_only:
                self._close_store(str(error))
            return
        if store.stopped and not store.read_only:
            self._close_store(store.stopped)

    def _due(self, store: Store, taken: list[Commit | Command]) -> list[Commit | Command]:
        """What of all that waits may be done now, the commits in their order."""
        wait_s = store.commit_wait_s
        if not self._held and wait_s <= 0:
            return taken
        self._held += (item for item in taken if isinstance(item, Commit))
        due: list[Commit | Command] = [item for item in taken if isinstance(item, Command)]
        if wait_s <= 0 or self._ending.is_set():
            held, self._held = self._held, []
            due += held
        return due

    def _work(self, store: Store, items: deque[Commit | Command]) -> None:
        """Do, and take away, the commits in front, which make one batch, or the command there."""
        item = items.popleft()
        if isinstance(item, Command):
            self._command(store, item)
            return
        commits = [item]
        while items and isinstance(following := items[0], Commit):
            commits.append(following)
            items.popleft()
        self._commit(store, commits)

    def _take(self, store: Store) -> list[Commit | Command]:
        timeout_s = self._mark_after_s if store.needs_mark else STEP_EVERY_S
        timeout_s = min(timeout_s, store.work_wait_s)
        if self._held:
            timeout_s = min(timeout_s, store.commit_wait_s)
        if self._ending.is_set():
            timeout_s = 0.0  # what was handed over is there; nobody hands over any more
        try:
            first = self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return []
        items: list[Commit | Command] = [] if first is None else [first]
        while len(items) < TAKEN_AT_ONCE_MAX:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is not None:
                items.append(item)
        return items

    def _commit(self, store: Store, commits: Sequence[Commit]) -> None:
        if store.read_only:
            self._deliver([(commit.answer, store.refuse(commit.order)) for commit in commits])
            return
        try:
            outcomes = store.commit([commit.order for commit in commits])
        except ApplianceError as error:
            # Also when it goes on for reading alone: nobody knows what became of these.
            lost = Unavailable(str(error))
            self._deliver([(commit.answer, lost) for commit in commits])
            if not _reads_on(store):
                raise
            return
        self._pause_s = PAUSE_FIRST_S
        self._deliver(
            [(commit.answer, outcome) for commit, outcome in zip(commits, outcomes, strict=True)]
        )

    def _command(self, store: Store, command: Command) -> None:
        try:
            result = command.work(store)
        except ApplianceError as error:
            command.answer(None, error)
            if store.stopped and not store.read_only:
                raise
            return
        command.answer(result, None)

    def _close_store(self, reason: str) -> None:
        store, self._store = self._store, None
        if store is None:
            return
        self.reason = reason
        held, self._held = self._held, []
        for item in held:
            self._refuse(item, reason)
        self._changed(None)
        store.close()
        if not self._ending.is_set():
            pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, PAUSE_MAX_S)
            self._pause(pause_s)


def _reads_on(store: Store) -> bool:
    """Whether a store that stopped stays open for reading alone."""
    return bool(store.read_only)
