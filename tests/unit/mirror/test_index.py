"""The index against a dictionary, and as other processes see it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.core.errors import Damaged
from appliance.engine.interface import Charge
from appliance.engine.mirror.format import (
    BlobKind,
    FileBlob,
    Kind,
    LogRecord,
    Manifest,
    ManifestEntry,
    decode_charges,
    encode_manifest,
    version_of,
)
from appliance.engine.mirror.index import (
    Index,
)
from appliance.engine.mirror.index_file import connect
from tests.unit.mirror.batches import MIRROR, Batches, delete, dump, random_batches


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index.create(str(tmp_path / "index-00000001.db"), MIRROR)
    yield index
    index.close()


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


def test_outcomes_that_are_logged_again_and_again_take_no_more_memory(tmp_path: Path) -> None:
    """And they are no sign of a client."""
    path = str(tmp_path / "index-00000001.db")
    index = Index.create(path, MIRROR)
    make = Batches()
    index.apply(make.make(make.put(b"k", request_id=b"i" * 16)))
    version = version_of(1, 0)
    moved = LogRecord(Kind.COMMIT, b"", b"", version=version, request_id=b"i" * 16)
    for _ in range(5):
        index.apply(make.make(moved))
    for opened in (index, Index.open(path, MIRROR)):
        assert opened.request_outcome(b"i" * 16) == version
        assert opened.newest_request == 1
        assert [ids for _, ids in opened._window] == [[b"i" * 16]]
        assert opened.outcomes(6, 6) == [(b"i" * 16, version)], "the log has them there"
        opened.close()


def test_a_batch_already_contained_is_passed_over(index: Index) -> None:
    make = Batches()
    batch = make.make(make.put(b"a", charges=(Charge(b"n", 1),)))
    index.apply(batch)
    index.apply(batch)
    assert index.counters("acme") == {b"n": 1}


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


def test_a_blob_goes_only_with_its_owner(index: Index) -> None:
    """After compaction the log may show the giver's delete behind the taker's move."""
    make, blob = Batches(), FileBlob(b"b" * 16, 9)
    index.apply(make.make(make.put(b"giver", blob=blob)))
    index.apply(make.make(make.put(b"taker", blob=blob, kind=Kind.MOVE)))
    index.apply(make.make(delete(b"giver")))
    assert index.owner(blob.blob_id) == ("acme", b"taker")
    assert not index.is_released(blob.blob_id)
    index.apply(make.make(delete(b"taker")))
    assert index.is_released(blob.blob_id)
    assert index.owner(blob.blob_id) is None


def test_deletes_are_summed_until_their_segment_is_entered_anew(index: Index) -> None:
    make = Batches()
    for _ in range(12):
        index.apply(make.make(delete(b"k")))
    sums = index.tombstones()
    assert set(sums) == {1, 2} and all(sums.values())
    entry = ManifestEntry(2, 1, 1, 0)
    index.apply(make.make(encode_manifest(Manifest(3, [entry])), delete(b"k")))
    (batch,) = make.made[-1:]
    assert index.tombstones() == {2: batch.entries[1].location.length}


def test_batches_it_has_already_are_passed_over(index: Index, tmp_path: Path) -> None:
    made = random_batches(11, 6).made
    index.apply_many(made[:4])
    before = dump(index)
    index.apply_many(made[1:4])
    assert dump(index) == before
    index.apply_many(made[2:])
    whole = Index.create(str(tmp_path / "whole.db"), MIRROR)
    whole.apply_many(made)
    assert dump(index) == dump(whole)
    whole.close()


def test_an_outcome_that_was_given_anew_is_told_once(index: Index) -> None:
    make, request_id = Batches(), b"r" * 16
    index.apply(make.make(make.put(b"a", request_id=request_id)))
    first = index.request_outcome(request_id)
    assert index.outcomes(1, 2) == [(request_id, first)]
    index.apply(make.make(make.put(b"a", request_id=request_id)))
    assert index.outcomes(1, 1) == []
    assert index.outcomes(1, 2) == [(request_id, index.request_outcome(request_id))]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        ("UPDATE requests SET outcomes = x'00'", "wrong length"),
        ("PRAGMA user_version = 99", "format 99"),
        ("UPDATE facts SET value = x'00' WHERE name = 'mirror'", "another mirror"),
        ("DELETE FROM facts WHERE name = 'mirror'", "another mirror"),
    ],
)
def test_an_index_that_is_not_what_it_should_be_is_not_opened(
    tmp_path: Path, spoil: str, why: str
) -> None:
    path = str(tmp_path / "index-00000001.db")
    made = Index.create(path, MIRROR)
    make = Batches()
    made.apply(make.make(make.put(b"a", request_id=b"r" * 16)))
    made.checkpoint()
    made.close()
    connection = connect(path, write=True, cache_bytes=65_536)
    connection.execute(spoil)
    connection.close()
    with pytest.raises(Damaged, match=why):
        Index.open(path, MIRROR)
