"""The proof of the index: every row that the log does not say is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.core.scrubs import DriveScrub
from appliance.engine.mirror.place import FilePlace
from appliance.engine.mirror.scrub import PROVEN
from appliance.engine.mirror.scrub_tally import Tally
from appliance.engine.mirror.state import Stopped
from tests.crash.machine import DRIVES, Machine
from tests.crash.scrubbing import (
    everything,
    fill,
    place_of,
    scrub,
)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE records SET value = 'x' WHERE key = CAST('inline 5' AS BLOB)",
        "UPDATE records SET version = version + 1 WHERE key = CAST('inline 5' AS BLOB)",
        "DELETE FROM records WHERE key = CAST('inline 5' AS BLOB)",
        "INSERT INTO records SELECT partition, CAST('phantom' AS BLOB), value, version, charges,"
        " place FROM records LIMIT 1",
        "UPDATE segments SET live_bytes = live_bytes + 1",
        "INSERT INTO counters VALUES (1, CAST('n' AS BLOB), 5)",
        "DELETE FROM blobs WHERE rowid_of = 1",
        "UPDATE requests SET outcomes = zeroblob(24)",
    ],
)
def test_a_row_of_the_index_that_the_log_does_not_say_is_found_and_the_index_built_anew(
    machine: Machine, change: str
) -> None:
    store = fill(machine)
    contents = everything(machine)
    if "rowid_of" in change:
        change = "DELETE FROM blobs WHERE blob_id = (SELECT MIN(blob_id) FROM blobs)"
    path = store._state.index.path
    store._state.index._connection.execute(change)
    done = scrub(machine)
    assert done.tally.index.startswith("was wrong, built anew: a")
    assert done.scrub is not None
    with pytest.raises(Stopped, match="does not say what the log does"):
        done.scrub.reopen_store()
    machine.drop_store()
    store = machine.open()
    assert store._state.index.path != path
    assert everything(machine) == contents
    done = scrub(machine)
    assert done.tally.index == PROVEN
    assert [done.found(drive) for drive in DRIVES] == [DriveScrub(), DriveScrub()]


def test_a_released_blob_that_has_an_owner_is_found(machine: Machine) -> None:
    store = fill(machine)
    place = place_of(machine, b"large 10")
    assert isinstance(place, FilePlace)
    store._state.index._connection.execute(
        "INSERT INTO released VALUES (?, 1, ?)", (place.blob_id, 1 << 62)
    )
    done = scrub(machine)
    assert "a released blob that has an owner" in done.tally.index


def test_a_rotten_index_is_put_aside_and_the_scrub_goes_on_with_the_next(machine: Machine) -> None:
    store = fill(machine, 60)
    path = Path(store._state.index.path)
    store._state.index.shorten_wal()
    data = bytearray(path.read_bytes())
    at = data.find(b"inline 1")
    while at >= 0:
        data[at] ^= 1
        at = data.find(b"inline 1", at + 1)
    path.write_bytes(bytes(data))
    tally = Tally()
    done = scrub(machine, tally=tally)
    assert not done.finished
    with pytest.raises(Stopped):
        assert done.scrub is not None
        done.scrub.reopen_store()
    machine.drop_store()
    machine.open()
    done = scrub(machine, tally=tally)
    assert done.finished
    assert done.tally.index == PROVEN
