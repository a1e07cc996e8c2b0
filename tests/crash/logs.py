"""A small log on one simulated drive, and what the tests of the log ask of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from appliance.engine.mirror.format import DecodedBatch, Kind, LogRecord
from appliance.engine.mirror.log import (
    BatchPlanner,
    Damage,
    Log,
    LogScan,
    NeedSegment,
    SegmentTable,
    Tail,
)
from tests.crash.simulated import Power, SimulatedDisk

MIRROR = bytes(range(16))
SEGMENT_BYTES = 64 * 1024


@dataclass
class LogWorld:
    """One drive, its log and the planner over it."""

    disk: SimulatedDisk = field(default_factory=lambda: SimulatedDisk("A", Power()))
    segment_bytes: int = SEGMENT_BYTES
    written: list[DecodedBatch] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.open(SegmentTable(), Tail())

    def open(self, table: SegmentTable, tail: Tail) -> None:
        self.log = Log(self.disk.mount(), MIRROR, self.segment_bytes)
        self.planner = BatchPlanner(MIRROR, self.segment_bytes, table, tail)

    def build(self, *records: LogRecord) -> DecodedBatch:
        """The next batch; prepares a segment when one is needed."""
        while True:
            built = self.planner.build(records, epoch=1, incarnation=7, time_ns=8)
            if isinstance(built, DecodedBatch):
                return built
            assert isinstance(built, NeedSegment)
            self.log.prepare(built.state)
            self.planner.table.prepared(built.state)

    def append(self, size: int = 100) -> DecodedBatch:
        batch = self.build(put(self.planner.next_sequence, size))
        self.log.append(batch)
        self.planner.advance(batch)
        self.written.append(batch)
        return batch

    def fill(self, count: int, rng: random.Random) -> None:
        for _ in range(count):
            self.append(rng.choice((10, 500, 9_000, 20_000)))

    def scan(self, after: Tail | None = None) -> Scanned:
        """What the log says on the present mount."""
        scan = self.log.scan(after)
        found = list(scan)
        return Scanned(
            scan,
            [batch for batch in found if isinstance(batch, DecodedBatch)],
            [damage for damage in found if isinstance(damage, Damage)],
        )

    def reopen(self) -> Scanned:
        """As recovery does: scan on a fresh mount, then go on where the log ends."""
        self.open(SegmentTable(), Tail())
        scanned = self.scan()
        self.open(scanned.scan.table, scanned.scan.tail)
        return scanned


@dataclass
class Scanned:
    """What a scan brought."""

    scan: LogScan
    batches: list[DecodedBatch]
    damage: list[Damage]


def put(number: int, size: int) -> LogRecord:
    return LogRecord(Kind.PUT, b"acme", b"key %d" % number, b"v" * size, version=number << 16)
