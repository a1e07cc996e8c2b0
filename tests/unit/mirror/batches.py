"""A log's batches without a log, for tests of the index."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from appliance.engine.interface import Charge
from appliance.engine.mirror.format import (
    BatchPlace,
    BlobKind,
    DecodedBatch,
    FileBlob,
    Kind,
    LogRecord,
    encode_batch,
    encode_charges,
    encode_file_blob,
    version_of,
)
from appliance.engine.mirror.index import (
    Index,
    IndexReader,
)

MIRROR = bytes(range(16))


@dataclass
class Batches:
    """Makes a log's batches without a log."""

    sequence: int = 0
    crc: int = 0
    made: list[DecodedBatch] = field(default_factory=list)

    def make(self, *records: LogRecord) -> DecodedBatch:
        self.sequence += 1
        place = BatchPlace(
            mirror_id=MIRROR,
            epoch=1,
            incarnation=2**63 + 9,
            sequence=self.sequence,
            time_ns=self.sequence * 1000,
            segment=1 + self.sequence // 10,
            generation=1,
            offset=4096 * (1 + self.sequence % 10),
            previous_crc=self.crc,
        )
        batch = encode_batch(place, records)
        self.crc = batch.header.crc
        self.made.append(batch)
        return batch

    def put(
        self,
        key: bytes,
        value: bytes = b"",
        *,
        partition: bytes = b"acme",
        charges: tuple[Charge, ...] = (),
        blob: FileBlob | bytes | None = None,
        version: int | None = None,
        kind: Kind = Kind.PUT,
        request_id: bytes = b"",
    ) -> LogRecord:
        blob_kind, content = BlobKind.NONE, b""
        if isinstance(blob, FileBlob):
            blob_kind, content = BlobKind.FILE, encode_file_blob(blob)
        elif blob is not None:
            blob_kind, content = BlobKind.INLINE, blob
        if version is None:
            version = version_of(self.sequence + 1, 0)
        return LogRecord(
            kind,
            partition,
            key,
            value,
            version,
            encode_charges(charges),
            blob_kind,
            content,
            request_id,
        )


def delete(key: bytes, partition: bytes = b"acme") -> LogRecord:
    return LogRecord(Kind.DELETE, partition, key)


def dump(index: Index | IndexReader) -> dict[str, object]:
    """Everything an index says, for comparing two."""
    facts: dict[str, object] = {"position": index.position()}
    for partition in index.partitions():
        facts[partition] = (
            index.scan(partition, b"", b"\xff" * 9, 10**6),
            index.counters(partition),
        )
    facts["blobs"] = [(blob, index.owner(blob[0])) for blob in index.blob_ids(b"", 10**6)]
    if isinstance(index, Index):
        facts["segments"] = index.segments()
        facts["released"] = index.released(2**62, 10**6)
    return facts


def random_batches(seed: int, count: int) -> Batches:
    rng = random.Random(seed)
    make = Batches()
    keys = [b"k%02d" % number for number in range(30)]
    for _ in range(count):
        records = []
        for _ in range(rng.randint(0, 8)):
            partition = rng.choice((b"acme", b"system"))
            if rng.random() < 0.3:
                records.append(delete(rng.choice(keys), partition))
                continue
            charges = tuple(
                Charge(b"c%d" % rng.randint(0, 3), rng.randint(-5, 50))
                for _ in range(rng.randint(0, 3))
            )
            blob: FileBlob | bytes | None = rng.choice(
                (None, rng.randbytes(20), FileBlob(rng.randbytes(16), 7))
            )
            records.append(
                make.put(
                    rng.choice(keys),
                    rng.randbytes(rng.randint(0, 40)),
                    partition=partition,
                    charges=charges,
                    blob=blob,
                    request_id=rng.randbytes(16),
                )
            )
        make.make(*records)
    return make
