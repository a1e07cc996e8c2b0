"""What readers report as bad: each report is proven before anything is done about it.

Owns which reports are being looked at. Invariant: one report is looked at once at a time, and
nothing is written, or given up, on a reader's word alone.

Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from appliance.core.errors import Damaged, DriveFault
from appliance.engine.mirror.committer_thread import Command
from appliance.engine.mirror.index import IndexReader
from appliance.engine.mirror.reader import INDEX
from appliance.engine.mirror.store import Store
from appliance.runtime.complaints import Complaints

_log = logging.getLogger(__name__)


class Suspects:
    """Takes reports of bad copies, and of a bad index."""

    def __init__(self, put: Callable[[Command], None]) -> None:
        """``put`` hands a command to the committer."""
        self._put = put
        self._loop = asyncio.get_running_loop()
        self._under_way: set[tuple[str, bytes]] = set()
        self._complaints = Complaints(_log)
        """Of repairs: the committer's thread."""

    def report(self, store: Store, drive: str, place: bytes) -> None:
        """A reader found something bad at a drive's place, or in the index."""
        report = (drive, place)
        if report in self._under_way:
            return
        self._under_way.add(report)
        if drive == INDEX:
            path = store.view().index_path
            checking = self._loop.run_in_executor(None, index_damage, path)
            checking.add_done_callback(lambda done: self._checked(report, done))
            return

        def answer(result: object, error: Exception | None) -> None:
            self._loop.call_soon_threadsafe(self._under_way.discard, report)
            if error is not None:
                text = f"a bad copy on drive {drive} cannot be repaired: {error}"
                self._complaints.say(drive, text)
            elif result:
                self._complaints.over(drive)
                _log.warning("a bad copy on drive %s was repaired", drive)

        self._put(Command(lambda store: store.repair(drive, place), answer))

    def _checked(self, report: tuple[str, bytes], done: asyncio.Future[Damaged | None]) -> None:
        self._under_way.discard(report)
        damage = done.result()
        if damage is None:
            return

        def condemn(store: Store) -> None:
            raise store.condemn_index(damage)

        self._put(Command(condemn, lambda _result, error: _log.error("%s", error)))


def index_damage(path: str) -> Damaged | None:
    """What is wrong with an index, on a connection of its own. Reads all of it. Blocking."""
    try:
        reader = IndexReader(path)
        try:
            wrong = reader.check()
        finally:
            reader.close()
    except Damaged as damage:
        return damage
    except DriveFault as fault:
        _log.warning("the index cannot be checked: %s", fault)
        return None
    return Damaged(f"the index is damaged: {wrong[0]}") if wrong else None
