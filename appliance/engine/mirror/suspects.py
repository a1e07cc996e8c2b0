"""What readers report as bad: each report is proven before anything is done about it.

Owns which reports are being looked at. Invariant: one report is looked at once at a time, and
nothing is written, or given up, on a reader's word alone. No commit waits for the reading of a blob
file: one file of a mount is looked at at a time, on a thread of its own, and reports of others are
passed over meanwhile, for whoever reads them reports them again.

Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from appliance.core.errors import ApplianceError, Damaged, DriveFault
from appliance.core.ports import Volume
from appliance.engine.mirror.committer_thread import Command
from appliance.engine.mirror.index import IndexReader
from appliance.engine.mirror.place import FilePlace, decode_place
from appliance.engine.mirror.reader import INDEX
from appliance.engine.mirror.store import Store
from appliance.runtime.complaints import Complaints

_log = logging.getLogger(__name__)

Answer: TypeAlias = Callable[[object, Exception | None], None]


class Suspects:
    """Takes reports of bad copies, and of a bad index."""

    def __init__(self, put: Callable[[Command], None]) -> None:
        """``put`` hands a command to the committer."""
        self._put = put
        self._loop = asyncio.get_running_loop()
        self._under_way: set[tuple[str, bytes]] = set()
        self._looking: set[Volume] = set()
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
            self._post(self._under_way.discard, report)
            if error is not None:
                text = f"a bad copy on drive {drive} cannot be repaired: {error}"
                self._complaints.say(drive, text)
            elif result:
                self._complaints.over(drive)
                _log.warning("a bad copy on drive %s was repaired", drive)

        blob_id = _file_of(place)
        volume = store.members.get(drive)
        if not blob_id:
            self._put(Command(lambda store: store.repair(drive, place), answer))
        elif volume is None or volume in self._looking:
            self._under_way.discard(report)
        else:
            self._looking.add(volume)
            looking = partial(self._look, store, drive, blob_id, volume, answer)
            # A daemon, for one stuck in a dead drive must not hold up the exit.
            threading.Thread(target=looking, name=f"repair {drive}", daemon=True).start()

    def _look(
        self, store: Store, drive: str, blob_id: bytes, volume: Volume, answer: Answer
    ) -> None:
        """On a thread of its own."""
        try:
            finish = store.copy_for_repair(drive, blob_id)
        except ApplianceError as error:
            answer(None, error)
        else:
            if finish is None:
                answer(False, None)
            else:
                self._put(Command(lambda _store: finish(), answer))
        finally:
            self._post(self._looking.discard, volume)

    def _post(self, call: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and all of this over
            self._loop.call_soon_threadsafe(call, *arguments)

    def _checked(self, report: tuple[str, bytes], done: asyncio.Future[Damaged | None]) -> None:
        self._under_way.discard(report)
        damage = done.result()
        if damage is None:
            return

        def condemn(store: Store) -> None:
            raise store.condemn_index(damage)

        self._put(Command(condemn, lambda _result, error: _log.error("%s", error)))


def _file_of(place: bytes) -> bytes:
    """The blob a place names; empty for a record, or for what is no place."""
    try:
        where = decode_place(place)
    except Damaged:
        return b""
    return where.blob_id if isinstance(where, FilePlace) else b""


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
