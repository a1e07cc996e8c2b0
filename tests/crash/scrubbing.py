"""Runs a scrub on a simulated machine, and what tests want to do to one while it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from appliance.core.errors import DataLost
from appliance.core.ports import Clock, Lanes
from appliance.core.scrubs import DriveScrub
from appliance.engine.interface import BlobRef
from appliance.engine.mirror.blob import blob_path
from appliance.engine.mirror.messages import Order
from appliance.engine.mirror.place import FilePlace, InlinePlace, decode_place
from appliance.engine.mirror.scrub import PROVEN, Scrub
from appliance.engine.mirror.scrub_kit import Committing, ScrubMeans
from appliance.engine.mirror.scrub_tally import Tally
from appliance.engine.mirror.segment import segment_path
from appliance.engine.mirror.store import Store
from appliance.engine.mirror.throttle import Activity, Throttle
from tests.crash.acts import blob_of, commit, delete, put
from tests.crash.history import PARTITION
from tests.crash.machine import Machine
from tests.crash.simulated import SerialLanes

LARGE = 150_000


class Interrupting(Throttle):
    """A throttle that lets a test do something before the pieces of a scrub."""

    def __init__(self, clock: Clock, before: Callable[[int], None] | None) -> None:
        super().__init__(clock, Activity(clock))
        self._before = before
        self.pieces = 0

    @contextmanager
    def piece(self, size_bytes: int) -> Iterator[None]:
        self.pieces += 1
        if self._before is not None:
            self._before(self.pieces)
        with super().piece(size_bytes):
            yield


@dataclass
class Scrubbed:
    """A scrub and what it found."""

    tally: Tally = field(default_factory=Tally)
    scrub: Scrub | None = None
    finished: bool = False
    pieces: int = 0

    def found(self, drive: str) -> DriveScrub:
        """Only what says something of faults."""
        return dataclasses.replace(self.tally.of(drive), drive_id="", read_bytes=0)


def scrub(
    machine: Machine,
    before: Callable[[int], None] | None = None,
    tally: Tally | None = None,
    before_command: Callable[[], None] = lambda: None,
    lanes: Lanes | None = None,
) -> Scrubbed:
    """Scrub the machine's mirror. ``before`` is called with the number of each piece, and
    ``before_command`` when the scrub wants something of the committer."""
    store = machine.store
    assert isinstance(store, Store), "it is open"
    done = Scrubbed(tally or Tally())
    throttle = Interrupting(machine.clock, before)

    def run(work: Callable[[], object]) -> object:
        before_command()
        return work()

    commit = Committing(run)
    lanes = lanes or SerialLanes(machine.rng)
    means = ScrubMeans(commit, lanes, throttle, done.tally, lambda: None)
    done.scrub = store.scrub(means)
    done.finished = done.scrub.run()
    done.pieces = throttle.pieces
    return done


def fill(machine: Machine, count: int = 30) -> Store:
    """Inline blobs over several segments, file blobs, a delete, a free segment that was used."""
    store = machine.store or machine.open()
    for number in range(1, count + 1):
        commit(store, put(b"inline %d" % (number % 20), number, b"i" * 20_000))
        if number % 5 == 0:
            large = put(b"large %d" % number, 1000 + number)
            order = Order(b"large %d" % number, b"0:", b"", machine.stage(b"L" * LARGE))
            commit(store, large._replace(orders=[order]))
    commit(store, delete(b"inline 3", 3000))
    store.mark()
    store.checkpoint()
    store.step()
    return store


def place_of(machine: Machine, key: bytes) -> InlinePlace | FilePlace:
    return decode_place(blob_of(machine, key).place)


def in_inline(machine: Machine, key: bytes) -> tuple[str, int]:
    """A byte in the middle of a record's inline blob."""
    place = place_of(machine, key)
    assert isinstance(place, InlinePlace)
    return segment_path(place.location.segment), place.location.offset + 10_000


def in_file(machine: Machine, key: bytes) -> tuple[str, int]:
    """A byte in the middle of a blob's file."""
    place = place_of(machine, key)
    assert isinstance(place, FilePlace)
    return blob_path(place.blob_id), LARGE // 2


def stable(machine: Machine) -> list[str]:
    return [disk.digest() for disk in machine.disks.values()]


def repaired_to(machine: Machine, before: list[str], done: Scrubbed) -> None:
    assert done.finished
    assert stable(machine) == before
    assert done.tally.index == PROVEN


def everything(machine: Machine) -> list[dict[bytes, bytes | None]]:
    """What each drive answers."""
    store = machine.store
    assert store is not None
    found = []
    for drive in store.members:
        with machine.reader(drive) as reader:
            records = reader.scan(PARTITION, b"", b"\xff", 1000, False)
            blobs: dict[bytes, bytes | None] = {}
            for record in records:
                if record.blob is None:
                    blobs[record.key] = None
                    continue
                try:
                    blobs[record.key] = reader.read_blob(record.blob, 0, record.blob.size_bytes)
                except DataLost:
                    blobs[record.key] = _good(machine, record.blob)
            found.append(blobs)
    return found


def _good(machine: Machine, blob: BlobRef) -> bytes:
    """The copy of whichever drive has it."""
    with machine.reader() as reader:
        return reader.read_blob(blob, 0, blob.size_bytes)
