"""The index as other processes and later starts find it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.core.errors import Damaged, DriveFault
from appliance.engine.interface import Charge
from appliance.engine.mirror.index import (
    Index,
    IndexReader,
    building_name,
    newest_index,
    publish,
    remove_others,
)
from appliance.engine.mirror.index_reader import Reads
from appliance.engine.mirror.record import FileBlob
from appliance.system.files import DirectoryVolume
from tests.unit.mirror.batches import MIRROR, Batches

UNPRIVILEGED = 65534


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index.create(str(tmp_path / "index-00000001.db"), MIRROR)
    yield index
    index.close()


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
    assert index.checkpoint() == before != index.applied
    (old,) = reader.read("acme", [b"a"])
    assert old is not None and old.value == b"1"
    reader._cursor.execute("COMMIT")
    assert index.checkpoint() == index.applied
    reader.close()


@pytest.mark.parametrize(
    "look",
    [
        lambda reads: reads.read("acme", [b"a"]),
        lambda reads: reads.read("acme", [b"a", b"b"]),
        lambda reads: reads.scan("acme", b"", b"z", 1),
        lambda reads: reads.counter("acme", b"bytes"),
        lambda reads: reads.position(),
        lambda reads: reads.owner(b"\1" * 16),
        lambda reads: reads.is_released(b"\2" * 16),
    ],
)
def test_what_was_read_is_in_nobodys_way(index: Index, look: Callable[[Reads], object]) -> None:
    """A reader that rests after its answer, and the writer itself, hold no snapshot."""
    make = Batches()
    charged = make.put(b"b", b"1", charges=(Charge(b"bytes", 5),))
    held, gone = (FileBlob(bytes([number]) * 16, 9) for number in (1, 2))
    index.apply(make.make(charged, make.put(b"c", blob=held), make.put(b"d", blob=gone)))
    index.apply(make.make(make.put(b"a", b"1"), make.put(b"d", b"1")))
    reader = IndexReader(index.path)
    look(reader)
    look(index)
    index.apply(make.make(make.put(b"a", b"2")))
    assert index.checkpoint() == index.applied
    look(reader)
    look(index)
    assert index.shorten_wal() == index.applied and index.wal_pages == 0
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


def test_a_file_that_ends_within_a_page_is_refused(tmp_path: Path) -> None:
    """SQLite takes what is missing for zeros, and only whole pages have a checksum."""
    path = tmp_path / "index-00000001.db"
    index, make = Index.create(str(path), MIRROR), Batches()
    for number in range(50):
        index.apply(make.make(make.put(b"key %04d" % number, b"v" * 900)))
    index.shorten_wal()
    index.close()
    whole = path.read_bytes()
    for missing in (*range(1, 4096, 117), 4096, 4097, len(whole) - 1, len(whole)):
        path.write_bytes(whole[: len(whole) - missing])
        with pytest.raises(Damaged):
            cut = Index.open(str(path), MIRROR)
            try:
                cut.scan("acme", b"", b"z", 100)
            finally:
                cut.close()
