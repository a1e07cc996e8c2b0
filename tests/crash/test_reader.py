"""What a gateway's reader answers when it cannot: never wrong bytes, and never in silence."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, cast

import pytest

from appliance.core.errors import Damaged, DataLost, DriveFault, Unavailable
from appliance.engine.interface import BlobRef
from appliance.engine.mirror.index import IndexReader
from appliance.engine.mirror.place import decode_place
from appliance.engine.mirror.reader import INDEX, DriveReader, MirrorReader
from appliance.engine.mirror.record import LOCATION_BYTES, Location
from tests.crash.acts import blob_of, commit, put, put_staged
from tests.crash.history import PARTITION
from tests.crash.machine import Machine


class BadIndex:
    """Every page of it is rotten."""

    def _bad(self, *_: object, **__: object) -> Any:
        raise Damaged("a page does not verify")

    read = scan = scan_values = _bad

    def close(self) -> None:
        return


class BadDrive:
    """Every read of it fails in the same way."""

    drive = "drive-a"

    def __init__(self, code: int) -> None:
        self._code = code

    def read_file(self, *_: object) -> bytes:
        raise DriveFault(self.drive, "read", self._code)

    def close(self) -> None:
        return


def reading(told: list[str], opened: Callable[[], object] = BadIndex) -> MirrorReader:
    return MirrorReader(
        lambda: cast(IndexReader, opened()), lambda drive, place, why: told.append(drive)
    )


@pytest.mark.parametrize("blobs", [True, False])
def test_nobody_is_answered_from_a_bad_index(blobs: bool) -> None:
    told: list[str] = []
    reader = reading(told)
    with pytest.raises(Unavailable, match="built anew"):
        reader.read(PARTITION, [b"key"])
    with pytest.raises(Unavailable, match="built anew"):
        reader.scan(PARTITION, b"", b"z", 9, False, blobs=blobs)
    assert told == [INDEX, INDEX]
    reader.close()


def test_a_new_index_is_opened_once_it_is_there() -> None:
    made: list[BadIndex] = []

    def opened() -> BadIndex:
        made.append(BadIndex())
        return made[-1]

    reader = reading([], opened)
    assert reader.index() is reader.index()
    reader.reopen_index()
    assert cast(object, reader.index()) is made[1]
    assert len(made) == 2
    reader.close()


def test_without_a_drive_nothing_can_be_read() -> None:
    reader = reading([])
    with pytest.raises(Unavailable, match="no drive"):
        reader.read_blob(BlobRef(4, b"F" + bytes(16)), 0, 4)


@pytest.mark.parametrize(("code", "error"), [(errno.EBADF, Unavailable), (errno.EIO, DataLost)])
def test_a_drive_that_is_being_exchanged_is_no_bad_copy(
    machine: Machine, code: int, error: type[Exception]
) -> None:
    """Its volume was closed under the read: the store has no reason to look into it."""
    machine.open()
    told: list[str] = []
    reader = reading(told)
    reader.use({"drive-a": cast(DriveReader, BadDrive(code))})
    put_staged(machine, b"large", 2, b"q" * 70_000)
    with pytest.raises(error):
        reader.read_blob(blob_of(machine, b"large"), 0, 10)
    assert told == ([] if error is Unavailable else ["drive-a"])


def test_a_record_that_carries_another_blob_is_not_taken_for_it(machine: Machine) -> None:
    store = machine.open()
    commit(store, put(b"key", 1, b"q" * 3000))
    blob = blob_of(machine, b"key")
    with machine.reader() as reader:
        assert reader.read_blob(blob, 0, 3000) == b"q" * 3000
        with pytest.raises(DataLost):
            reader.read_blob(BlobRef(2999, blob.place), 0, 2999)


@pytest.mark.parametrize("place", [b"", b"?", b"?" * 60, b"i"])
def test_a_place_of_no_known_kind_is_damage(place: bytes) -> None:
    with pytest.raises(Damaged, match="place"):
        decode_place(place)


def test_a_location_that_is_cut_off_is_damage() -> None:
    with pytest.raises(Damaged, match="too few bytes"):
        Location.decode(bytes(LOCATION_BYTES - 1))
