"""A world: one simulated machine with the model of what it must hold, and copies of its index.

Owns the model, which is the oracle's memory and lies outside the machine: what was acknowledged,
and what may be there instead while a commit is under way. Invariant: the model never learns of an
outcome before the store has answered.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

from appliance.core.errors import ApplianceError
from appliance.engine.interface import Charge
from appliance.engine.mirror.format import encode_charges
from appliance.engine.mirror.messages import CommitOrder, Order, Staged
from appliance.engine.mirror.state import Stopped
from tests.crash.history import PARTITION, Contents, Kept, contents_of
from tests.crash.images import Image
from tests.crash.machine import DRIVES, WITNESS, Machine
from tests.crash.moments import RecordedLanes, Recorder
from tests.crash.simulated import SimulatedClock

SEGMENT_BYTES: Final = 64 * 1024
KEYS: Final = [b"key-%02d" % number for number in range(8)]
FILLER: Final = b"filler"
SIZES: Final = (None, 0, 300, 700, 2_000, 9_000, 12_000)
STAGED_BYTES: Final = (30_000, 70_000)

IndexFiles = Mapping[str, bytes]
_SHARED_MEMORY: Final = "-shm"


class Note(NamedTuple):
    """What a moment remembers of its world."""

    acked: Contents
    pending: tuple[Contents, ...]
    last_order: CommitOrder | None
    written_by: Mapping[bytes, int]
    in_sync: frozenset[str]
    deed: str
    is_quiet: bool
    index_copies: int
    now_ns: int
    injected: bool
    rotten: frozenset[str]


@dataclass(frozen=True, slots=True)
class Stand:
    """A machine that is switched off, and all that is known of it: where runs may begin."""

    images: Mapping[str, Image]
    index: IndexFiles
    acked: Contents
    pending: tuple[Contents, ...]
    last_order: CommitOrder | None
    written_by: Mapping[bytes, int]
    request_number: int
    number: int
    away: str
    rotten: frozenset[str]
    now_ns: int
    must_start: bool
    """Whether it must serve though one of its drives, or W, fails now."""


@dataclass(slots=True)
class Model:
    """``acked``: what must be there. ``pending``: what may be there instead. ``written_by``: the
    sequence of the batch that last put or deleted each key."""

    acked: Contents = field(default_factory=dict)
    pending: tuple[Contents, ...] = ()
    last_order: CommitOrder | None = None
    written_by: Mapping[bytes, int] = field(default_factory=dict)
    request_number: int = 0

    @property
    def allowed(self) -> list[Contents]:
        """What a recovered machine may hold."""
        return [self.acked, *self.pending]

    def settle(self, found: Contents) -> None:
        """This is what is there, and what must stay."""
        self.acked, self.pending = found, ()


class World:
    """One machine and all that is known of it."""

    def __init__(self, seed: int | str, directory: Path, stand: Stand | None = None) -> None:
        """A new machine, or one that goes on from a ``stand``. Not switched on yet."""
        self.rng: Final = random.Random(f"world {seed}")
        self.machine: Final = _machine(f"machine {seed}", directory, stand)
        self.model: Final = Model()
        self.index_copies: Final[list[IndexFiles]] = []
        self.deed = ""
        self.is_quiet = True
        """Whether no member is leaving or joining, and nobody stopped."""
        self.injected = False
        """Whether the fault of this run has struck."""
        self.rotten: frozenset[str] = frozenset()
        """Drives whose bytes may not verify for now."""
        self.away: str = ""
        self.under_fire = False
        """Whether a fault is put in while it runs: then commits come one by one, because some may
        be refused, and nothing else rots."""
        disks = {**self.machine.disks, WITNESS: self.machine.witness}
        self.is_survivable = True
        """Whether the mirror must go on in spite of the fault that struck."""
        self.recorder: Final = Recorder(disks, self._note)
        self._in_sync = frozenset(DRIVES)
        self._number = 0
        if stand is not None:
            self._take(stand)

    def _take(self, stand: Stand) -> None:
        self.model.acked, self.model.pending = stand.acked, stand.pending
        self.model.last_order, self.model.written_by = stand.last_order, stand.written_by
        self.model.request_number, self._number = stand.request_number, stand.number
        self.away, self.rotten = stand.away, stand.rotten
        if not stand.must_start:
            self._in_sync = frozenset()
        if stand.away:
            self.machine.disks[stand.away].pull()

    def stand(self) -> Stand:
        """Switch off now, in peace: nothing that the drives' caches hold is lost."""
        machine = self.machine
        machine.drop_store()
        disks = {**machine.disks, WITNESS: machine.witness}
        images = {name: disk.frozen().everything() for name, disk in disks.items()}
        stand = self.stand_at(self._note(), images, read_files(machine.index_directory))
        return replace(stand, away=self.away, must_start=not self.away)

    def stand_at(self, note: Note, images: Mapping[str, Image], index: IndexFiles) -> Stand:
        """What a crash left of the machine; all drives are there when it is switched on again."""
        return Stand(
            images,
            index,
            note.acked,
            note.pending,
            note.last_order,
            note.written_by,
            self.model.request_number,
            self._number,
            "",
            note.rotten,
            note.now_ns + 1_000_000_000,
            must_start=note.is_quiet and note.in_sync == frozenset(DRIVES),
        )

    def _note(self) -> Note:
        model, store = self.model, self.machine.store
        return Note(
            model.acked,
            model.pending,
            model.last_order,
            model.written_by,
            # Who is about to leave may lack what is acknowledged from now on.
            frozenset() if store is None else frozenset(store.members) - {self.away},
            self.deed,
            self.is_quiet,
            len(self.index_copies),
            self.machine.clock.peek_ns(),
            self.injected,
            self.rotten,
        )

    def in_sync(self) -> frozenset[str]:
        """Who surely has all that is acknowledged: as far as is known while it is closed."""
        store = self.machine.store
        if store is not None:
            self._in_sync = frozenset(store.members) - {self.away}
        return self._in_sync

    def open(self) -> None:
        """Open the store, recorded. Raises what a refused start raises."""
        self.machine.open(lanes=RecordedLanes(self.machine.rng, self.recorder))
        self.is_quiet = True
        self.copy_index()

    def reopen(self) -> bool:
        """Start again, as a service does that stopped. False: it cannot be for now."""
        self.in_sync()
        self.machine.drop_store()
        self.is_quiet = False
        try:
            self.open()
            self.settle()
        except ApplianceError:
            return False
        return True

    def settle(self) -> None:
        """What was under way is there now, or it never will be: read which. Raises
        ``AssertionError`` if neither the one nor the other is there."""
        with self.machine.reader() as reader:
            found = contents_of(reader)
        assert found in self.model.allowed, f"neither old nor new: {sorted(found)}"
        self.model.settle(found)

    def copy_index(self) -> None:
        """Keep the index as it lies there now."""
        self.index_copies.append(read_files(self.machine.index_directory))

    # -- commits -------------------------------------------------------------------------------

    def commit(self, count: int = 1) -> None:
        """So many random commits in one call of the store."""
        after, orders, states = self.model.acked, [], []
        for _ in range(1 if self.under_fire else count):
            order, after = self._random_order(after)
            orders.append(order)
            states.append(after)
        self.send(orders, states)

    def fill(self, size_bytes: int) -> None:
        """Put so many bytes under one and the same key."""
        self._number += 1
        kept = Kept(b"filler %d" % self._number, self.rng.randbytes(size_bytes), 0)
        order = Order(FILLER, b"0:" + kept.value, b"", kept.blob)
        self.send([self._order([order])], [{**self.model.acked, FILLER: kept}])

    def delete_all(self) -> None:
        """Delete every key in one commit."""
        if self.model.acked:
            orders = [Order(key, None) for key in sorted(self.model.acked)]
            self.send([self._order(orders)], [{}])

    def send(self, orders: list[CommitOrder], states: list[Contents]) -> None:
        """Commit, and believe what the store answers. Raises ``Stopped``."""
        store, model = self.machine.store, self.model
        assert store is not None, "it is open"
        model.pending = tuple(states)
        outcomes = store.commit(orders)
        for order, state, outcome in zip(orders, states, outcomes, strict=True):
            if not isinstance(outcome, int):
                assert self.under_fire, f"refused without a reason: {outcome}"
                continue
            model.acked, model.last_order = state, order
            sequences = dict.fromkeys((one.key for one in order.orders), outcome >> 16)
            model.written_by = {**model.written_by, **sequences}
        model.pending = ()
        self.copy_index()

    def _order(self, orders: list[Order]) -> CommitOrder:
        self.model.request_number += 1
        request_id = self.model.request_number.to_bytes(16, "big")
        return CommitOrder(PARTITION.encode(), request_id, orders, [], [])

    def _random_order(self, before: Contents) -> tuple[CommitOrder, Contents]:
        after = dict(before)
        orders = []
        for key in self.rng.sample(KEYS, self.rng.choice((1, 1, 1, 2, 3))):
            if key in after and self.rng.random() < 0.25:
                orders.append(Order(key, None))
                del after[key]
            else:
                orders.append(self._put(key, before, after))
        return self._order(orders), after

    def _put(self, key: bytes, before: Contents, after: Contents) -> Order:
        self._number += 1
        charge = self.rng.randint(0, 5)
        value = b"value %d" % self._number
        charges = encode_charges([Charge(b"n", charge)]) if charge else b""
        stored = b"%d:%s" % (charge, value)
        old = before.get(key)
        if old is not None and old.blob is not None and key in after and self.rng.random() < 0.2:
            after[key] = Kept(value, old.blob, charge)
            return Order(key, stored, charges, keep=key)
        if self.rng.random() < 0.15:
            data = self.rng.randbytes(self.rng.choice(STAGED_BYTES))
            after[key] = Kept(value, data, charge)
            return Order(key, stored, charges, self._stage(data))
        size = self.rng.choice(SIZES)
        body = None if size is None else self.rng.randbytes(size)
        after[key] = Kept(value, body, charge)
        return Order(key, stored, charges, body)

    def _stage(self, data: bytes) -> Staged:
        return self.machine.stage(data)

    # -- drives --------------------------------------------------------------------------------

    def leave(self, drive: str, *, pulled: bool) -> None:
        """A drive goes away: pulled while nobody looks, or taken away in good order."""
        store = self.machine.store
        assert store is not None, "it is open"
        self.away, self.is_quiet = drive, False
        if pulled:
            self.machine.disks[drive].pull()
            self.commit()
        else:
            store.lose(drive, "taken away")
            self.machine.disks[drive].pull()
        self.is_quiet = True

    def come_back(self, *, blank: bool = False) -> None:
        """The drive that is away returns, or a new one in its place, and is brought in sync."""
        store, machine = self.machine.store, self.machine
        assert store is not None, "it is open"
        disk = machine.disks[self.away]
        disk.insert(machine.rng)
        if blank:
            disk.restore_image({"": None})
        self.is_quiet = False
        store.add_outsider(disk.mount())
        resync = store.begin_resync(self.away)
        try:
            resync.copy()
            self.commit()
            while not store.finish_resync(resync):
                resync.copy()
        except Stopped:
            raise
        except ApplianceError:
            store.abandon_resync(resync)
            raise
        self.away, self.is_quiet = "", True


def _machine(seed: str, directory: Path, stand: Stand | None) -> Machine:
    if stand is None:
        return Machine(seed, directory, segment_size_bytes=SEGMENT_BYTES)
    write_files(directory / "index", stand.index)
    return Machine.holding(seed, directory, stand.images, SimulatedClock(stand.now_ns))


def read_files(directory: Path) -> IndexFiles:
    """The files of an index's directory, but for the shared memory of SQLite, which the first one
    to open the database makes anew."""
    files = {}
    with os.scandir(directory) as found:
        for entry in found:
            if not entry.name.endswith(_SHARED_MEMORY):
                with open(entry.path, "rb", buffering=0) as file:
                    files[entry.name] = file.read()
    return files


def write_files(directory: Path, files: IndexFiles) -> None:
    """Make a directory hold these files and nothing else."""
    place = str(directory)
    if os.path.isdir(place):
        for name in os.listdir(place):
            os.unlink(f"{place}/{name}")
    else:
        os.makedirs(place)
    for name, data in files.items():
        with open(f"{place}/{name}", "xb", buffering=0) as file:
            file.write(data)
