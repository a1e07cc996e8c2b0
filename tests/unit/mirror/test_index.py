"""The index against a dictionary, and as other processes see it."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from appliance.core.errors import Damaged, DriveFault
from appliance.engine.interface import Charge
from appliance.engine.mirror.format import (
    BatchPlace,
    BlobKind,
    DecodedBatch,
    FileBlob,
    Kind,
    LogRecord,
    decode_charges,
    encode_batch,
    encode_charges,
    encode_file_blob,
    version_of,
)
from appliance.engine.mirror.index import (
    Index,
    IndexReader,
    building_name,
    newest_index,
    publish,
    remove_others,
)
from appliance.system.files import DirectoryVolume

MIRROR = bytes(range(16))
UNPRIVILEGED = 65534


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


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index.create(str(tmp_path / "index-00000001.db"), MIRROR)
    yield index
    index.close()


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


def test_an_empty_index(index: Index) -> None:
    assert index.position() is None and index.applied is None
    assert index.read("acme", [b"a", b"b"]) == [None, None]
    assert index.scan("acme", b"", b"z", 10) == []
    assert index.counters("acme") == {} and index.counter("acme", b"x") == 0
    assert index.request_outcome(bytes(16)) is None
    assert index.segments() == {} and index.check() == []
    index.apply_many([])
    assert index.position() is None


def test_records_and_their_places(index: Index) -> None:
    make = Batches()
    blob = FileBlob(b"b" * 16, 10**10)
    batch = make.make(
        make.put(b"a", b"one", blob=b"inline"),
        make.put(b"b", b"two", blob=blob),
        make.put(b"c", b"three"),
    )
    index.apply(batch)
    first, second, third, none = index.read("acme", [b"a", b"b", b"c", b"d"])
    assert first is not None and second is not None and third is not None and none is None
    assert (first.value, first.blob_kind, first.blob_size) == (b"one", BlobKind.INLINE, 6)
    assert first.location == batch.entries[0].location
    assert (second.blob_kind, second.blob_size) == (BlobKind.FILE, 10**10)
    assert second.blob_id == b"b" * 16
    assert third.blob_kind is BlobKind.NONE and third.version == version_of(1, 0)
    assert index.owner(b"b" * 16) == ("acme", b"b") and index.owner(bytes(16)) is None
    position = index.position()
    assert position is not None
    assert (position.sequence, position.incarnation, position.crc) == (1, 2**63 + 9, make.crc)
    assert position.end == position.offset + batch.header.padded_bytes


def test_scans_are_ranges_in_byte_order(index: Index) -> None:
    make = Batches()
    keys = [b"", b"\0", b"a", b"a\0", b"a\xff", b"b", b"\xfe"]
    index.apply(make.make(*(make.put(key or b"!") for key in keys)))
    wanted = sorted(key or b"!" for key in keys)
    assert [r.key for r in index.scan("acme", b"", b"\xff", 100)] == wanted
    assert [r.key for r in index.scan("acme", b"a", b"b", 100)] == [b"a", b"a\0", b"a\xff"]
    assert [r.key for r in index.scan("acme", b"a", b"b", 2, reverse=True)] == [b"a\xff", b"a\0"]


def test_replacing_takes_back_charges_bytes_and_blobs(index: Index) -> None:
    make = Batches()
    old, new = FileBlob(b"o" * 16, 5), FileBlob(b"n" * 16, 6)
    charges = (Charge(b"bytes", 5), Charge(b"objects", 1))
    index.apply(make.make(make.put(b"a", charges=charges, blob=old)))
    assert index.counters("acme") == {b"bytes": 5, b"objects": 1}
    index.apply(make.make(make.put(b"a", charges=(Charge(b"bytes", 6),), blob=new)))
    assert index.counters("acme") == {b"bytes": 6}
    (released,) = index.released(10**9, 10)
    assert (released.blob_id, released.size_bytes, released.time_ns) == (b"o" * 16, 5, 2000)
    assert index.is_released(b"o" * 16) and index.owner(b"o" * 16) is None
    assert index.released(2000, 10) == []
    index.apply(make.make(delete(b"a"), delete(b"never there")))
    assert index.counters("acme") == {} and index.segments() == {}
    assert {blob.blob_id for blob in index.released(10**9, 10)} == {b"o" * 16, b"n" * 16}
    index.forget_released([b"o" * 16])
    assert [blob.blob_id for blob in index.released(10**9, 10)] == [b"n" * 16]


def test_a_blob_that_moves_to_another_record_is_not_released(index: Index) -> None:
    make = Batches()
    blob = FileBlob(b"b" * 16, 5)
    index.apply(make.make(make.put(b"part", blob=blob)))
    index.apply(make.make(delete(b"part"), make.put(b"whole", blob=blob)))
    assert index.owner(b"b" * 16) == ("acme", b"whole") and index.released(10**9, 9) == []
    index.apply(make.make(make.put(b"whole", blob=blob)))
    assert index.owner(b"b" * 16) == ("acme", b"whole") and index.released(10**9, 9) == []


def test_a_key_written_twice_in_a_batch(index: Index) -> None:
    make = Batches()
    charge = (Charge(b"n", 1),)
    first, second = FileBlob(b"1" * 16, 1), FileBlob(b"2" * 16, 1)
    index.apply(
        make.make(
            make.put(b"a", b"1", charges=charge, blob=first),
            make.put(b"a", b"2", charges=charge, blob=second),
            make.put(b"b"),
            delete(b"b"),
        )
    )
    (record,) = index.scan("acme", b"", b"z", 10)
    assert record.value == b"2" and index.counters("acme") == {b"n": 1}
    assert [b.blob_id for b in index.released(10**9, 9)] == [b"1" * 16]
    assert sum(index.segments().values()) == record.location.length


def test_a_move_changes_the_place_alone(index: Index) -> None:
    make = Batches()
    blob = FileBlob(b"b" * 16, 5)
    index.apply(make.make(make.put(b"a", b"v", blob=blob), make.put(b"gone")))
    index.apply(make.make(delete(b"gone"), make.put(b"newer", version=version_of(2, 0))))
    moved = make.make(
        make.put(b"a", b"v", blob=blob, version=version_of(1, 0), kind=Kind.MOVE),
        make.put(b"newer", b"old", version=version_of(1, 0), kind=Kind.MOVE),
    )
    index.apply(moved)
    (record, newer) = index.scan("acme", b"", b"z", 9)
    assert record.version == version_of(1, 0) and record.location == moved.entries[0].location
    assert newer.version == version_of(2, 0) and newer.value == b""
    assert index.released(10**9, 9) == [] and index.owner(b"b" * 16) == ("acme", b"a")


def test_request_outcomes_are_kept_for_a_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.engine.mirror.index.REQUEST_WINDOW", 10)
    monkeypatch.setattr("appliance.engine.mirror.index._WINDOW_SLACK", 4)
    path = str(tmp_path / "index-00000001.db")
    index = Index.create(path, MIRROR)
    make = Batches()
    for number in range(30):
        record = make.put(b"k", request_id=b"%016d" % number)
        index.apply(make.make(record, LogRecord(Kind.MARK, b"", b"")))
    for opened in (index, Index.open(path, MIRROR)):
        assert opened.request_outcome(b"%016d" % 29) == version_of(30, 0)
        assert opened.request_outcome(b"%016d" % 20) == version_of(21, 0)
        assert opened.request_outcome(b"%016d" % 3) is None
        opened.close()


def test_a_batch_already_contained_is_passed_over(index: Index) -> None:
    make = Batches()
    batch = make.make(make.put(b"a", charges=(Charge(b"n", 1),)))
    index.apply(batch)
    index.apply(batch)
    assert index.counters("acme") == {b"n": 1}


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


@pytest.mark.parametrize("seed", range(8))
def test_the_index_equals_a_model(index: Index, seed: int) -> None:
    print(f"seed {seed}")
    model: dict[tuple[bytes, bytes], LogRecord] = {}
    lengths: dict[tuple[bytes, bytes], tuple[int, int]] = {}
    for batch in random_batches(seed, 60).made:
        index.apply(batch)
        for record, location in batch.entries:
            at = (record.partition, record.key)
            model.pop(at, None)
            lengths.pop(at, None)
            if record.kind is Kind.PUT:
                model[at], lengths[at] = record, (location.segment, location.length)
    for partition in ("acme", "system"):
        found = {
            r.key: (r.value, r.version, r.charges) for r in index.scan(partition, b"", b"z", 1000)
        }
        wanted = {
            key: (r.value, r.version, r.charges)
            for (p, key), r in model.items()
            if p == partition.encode()
        }
        assert found == wanted
        counters: dict[bytes, int] = {}
        for (p, _), record in model.items():
            if p == partition.encode():
                for counter, amount in decode_charges(record.charges):
                    counters[counter] = counters.get(counter, 0) + amount
        assert index.counters(partition) == {c: n for c, n in counters.items() if n}
    sums: dict[int, int] = {}
    for segment, length in lengths.values():
        sums[segment] = sums.get(segment, 0) + length
    assert index.segments() == sums
    owned = {r.blob[8:] for r in model.values() if r.blob_kind is BlobKind.FILE}
    assert {blob_id for blob_id, _ in index.blob_ids(b"", 1000)} == owned


@pytest.mark.parametrize("seed", range(4))
def test_replaying_and_rebuilding_give_the_same_index(tmp_path: Path, seed: int) -> None:
    batches = random_batches(seed, 50).made
    whole = Index.create(str(tmp_path / "index-00000001.db"), MIRROR)
    whole.apply_many(batches)
    path = str(tmp_path / "index-00000002.db")
    parts = Index.create(path, MIRROR)
    for number, batch in enumerate(batches):
        parts.apply(batch)
        if number % 7 == 3:
            parts.close()
            parts = Index.open(path, MIRROR)
            parts.apply_many(batches[: number + 1])
    assert dump(parts) == dump(whole)
    copied = str(tmp_path / "copy.db")
    assert whole.copy_to(copied) == whole.applied
    copy = Index.open(copied, MIRROR)
    assert dump(copy) == dump(whole) and copy.check() == []
    for each in (whole, parts, copy):
        each.close()


def test_a_reader_sees_each_batch_whole(index: Index) -> None:
    make = Batches()
    index.apply(make.make(make.put(b"a", b"1"), make.put(b"b", b"1")))
    reader = IndexReader(index.path)
    for number in range(2, 20):
        value = b"%d" % number
        index.apply(make.make(make.put(b"a", value), make.put(b"b", value)))
        first, second = reader.read("acme", [b"a", b"b"])
        assert first is not None and second is not None
        assert first.value == second.value == value
        if number % 5 == 0:
            assert index.checkpoint() == index.applied == index.flushed
            assert index.shorten_wal() == index.applied and index.wal_pages == 0
    assert reader.position() == index.applied
    reader.close()
    reader.close()


def test_a_reader_in_the_way_only_delays_a_checkpoint(index: Index) -> None:
    make = Batches()
    index.apply(make.make(make.put(b"a", b"1")))
    before = index.checkpoint()
    reader = IndexReader(index.path)
    reader._cursor.execute("BEGIN")
    assert reader.read("acme", [b"a"]) != [None]
    index.apply(make.make(make.put(b"a", b"2")))
    index.shorten_wal()
    index.checkpoint()
    index.apply(make.make(make.put(b"a", b"3")))
    assert index.checkpoint() in {before, index.applied}
    (old,) = reader.read("acme", [b"a"])
    assert old is not None and old.value == b"1"
    reader._cursor.execute("COMMIT")
    assert index.checkpoint() == index.applied
    reader.close()


def test_a_reader_needs_no_write_permission() -> None:
    """In a child process that may read the directory and nothing more."""
    directory = Path(tempfile.mkdtemp(prefix="index-"))
    path = directory / "index-00000001.db"
    index = Index.create(str(path), MIRROR)
    make = Batches()
    index.apply(make.make(make.put(b"a", b"1")))
    for name in os.listdir(directory):
        (directory / name).chmod(0o444)
    directory.chmod(0o555)
    child = os.fork()
    if child == 0:
        os._exit(_read_unprivileged(str(path)))
    _, status = os.waitpid(child, 0)
    index.close()
    directory.chmod(0o755)
    shutil.rmtree(directory)
    assert os.waitstatus_to_exitcode(status) == 0


def _read_unprivileged(path: str) -> int:
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(UNPRIVILEGED)
        os.setuid(UNPRIVILEGED)
    if os.access(path, os.W_OK) or os.access(os.path.dirname(path), os.W_OK):
        return 2
    reader = IndexReader(path)
    (record,) = reader.read("acme", [b"a"])
    return 0 if record is not None and record.value == b"1" else 3


def test_rot_is_found_not_served(tmp_path: Path) -> None:
    path = tmp_path / "index-00000001.db"
    index = Index.create(str(path), MIRROR)
    make = Batches()
    for number in range(50):
        index.apply(make.make(make.put(b"key %04d" % number, b"v" * 900)))
    index.shorten_wal()
    index.close()
    data = bytearray(path.read_bytes())
    at = data.index(b"v" * 900) + 400
    data[at] ^= 1
    path.write_bytes(data)
    spoilt = Index.open(str(path), MIRROR)
    with pytest.raises(Damaged):
        spoilt.scan("acme", b"", b"z", 100)
    spoilt.close()
    path.write_bytes(b"this is no database at all" * 200)
    with pytest.raises(Damaged):
        Index.open(str(path), MIRROR)


def test_a_foreign_or_missing_index_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "index-00000001.db")
    Index.create(path, MIRROR).close()
    with pytest.raises(Damaged):
        Index.open(path, bytes(16))
    with pytest.raises(DriveFault):
        Index.open(str(tmp_path / "none.db"), MIRROR)
    with pytest.raises(DriveFault):
        IndexReader(str(tmp_path / "none.db"))


def test_a_rebuild_is_published_under_a_fresh_name(tmp_path: Path) -> None:
    volume = DirectoryVolume(tmp_path, "index")
    assert newest_index(volume) is None
    for round_number in (1, 2, 3):
        name = building_name(volume)
        building = Index.create(str(tmp_path / name), MIRROR)
        building.apply(Batches().make(Batches().put(b"a", b"%d" % round_number)))
        building.close()
        assert newest_index(volume) != name
        published = publish(volume, name)
        assert newest_index(volume) == published == f"index-{round_number:08x}.db"
    (tmp_path / "building-00000009.db").touch()
    (tmp_path / "index-zz.db").touch()
    assert building_name(volume) == "building-0000000a.db"
    remove_others(volume, "index-00000003.db")
    assert volume.names("") == ["index-00000003.db"]
    volume.close()
