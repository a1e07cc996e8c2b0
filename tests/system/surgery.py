"""Reading and wounding a drive's log while nobody runs: what a crash, or rot, could have left."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Final

from appliance.core.errors import Damaged
from appliance.engine.mirror.format import (
    BATCH_HEADER_BYTES,
    BLOCK_BYTES,
    DecodedBatch,
    decode_batch,
    decode_header,
)

SILENCE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Lying:
    """A batch, and where it lies."""

    path: Path
    batch: DecodedBatch

    @property
    def sequence(self) -> int:
        return self.batch.header.place.sequence

    @property
    def offset(self) -> int:
        return self.batch.header.place.offset

    def names(self, key: str) -> bool:
        """Whether one of its records is of this object."""
        return any(key.encode() in entry.record.key for entry in self.batch.entries)


def batches(root: Path) -> list[Lying]:
    """Every whole batch that lies on a drive, in the order of the log."""
    # One that was being made when the power went has another suffix, and is no segment yet.
    segments = sorted(path for path in (root / "log").iterdir() if not path.suffix)
    found = [lying for path in segments for lying in _of_segment(path)]
    return sorted(found, key=lambda lying: lying.sequence)


def _of_segment(path: Path) -> Iterator[Lying]:
    """Goes on behind what is wounded, and ends where nothing was written for long."""
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        at, last = BLOCK_BYTES, 0
        while at < len(data) and at - last < SILENCE_BYTES:
            try:
                header = decode_header(data[at : at + BATCH_HEADER_BYTES])
                batch = decode_batch(data[at : at + header.padded_bytes])
            except Damaged:
                at += BLOCK_BYTES
            else:
                yield Lying(path, batch)
                at = last = at + len(batch.data)


def batch_of(root: Path, key: str) -> Lying:
    """The last batch with a record of an object."""
    return [lying for lying in batches(root) if lying.names(key)][-1]


def chain(root: Path) -> list[tuple[int, int]]:
    """The log as (sequence, checksum), to be compared with the other drive's."""
    return [(lying.sequence, lying.batch.header.crc) for lying in batches(root)]


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """Durably, in place."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(descriptor, data, offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def erase(lost: Sequence[Lying]) -> None:
    """These batches were never written."""
    for lying in lost:
        overwrite(lying.path, lying.offset, bytes(len(lying.batch.data)))


def cut_after(root: Path, key: str) -> None:
    """The log ends with the object's batch: the power failed before anything else was written."""
    last = batch_of(root, key).sequence
    erase([lying for lying in batches(root) if lying.sequence > last])


def cut_with(root: Path, key: str) -> None:
    """The same, before the object's batch was written."""
    first = batch_of(root, key).sequence
    erase([lying for lying in batches(root) if lying.sequence >= first])


def rot(path: Path, offset: int) -> None:
    """One byte is not what was written."""
    with path.open("rb") as file:
        file.seek(offset)
        (byte,) = file.read(1)
    overwrite(path, offset, bytes([byte ^ 0x20]))
