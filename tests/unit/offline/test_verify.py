"""What is bad on one drive, on both, or only looks bad after a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.core.errors import InvalidInput, Refused
from appliance.core.offline import (
    EXIT_LOST,
    EXIT_REPAIRABLE,
    EXIT_UNKNOWN,
    Remedy,
    Verification,
)
from appliance.daemon.offline_verify import verify
from appliance.engine.mirror.format import BATCH_HEADER_BYTES, BLOCK_BYTES
from appliance.engine.mirror.slots import SLOT_BYTES
from tests.unit.offline.house import House, batch_at, digest, quiet

IN_PAYLOAD = BATCH_HEADER_BYTES + 2


@pytest.fixture
def broken(house: House, tmp_path: Path) -> House:
    """A copy to be broken."""
    return house.copied(tmp_path / "broken")


def _verify(scratch: Path, *drives: Path) -> Verification:
    place = scratch / str(len(list(scratch.iterdir())))
    place.mkdir()
    found, told = quiet(lambda telling: verify(drives, place, telling))
    assert all("progress" in document for document in told)
    return found


def _flip(path: Path, offset: int) -> None:
    path.chmod(0o640)
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes((byte[0] ^ 0x10,)))


def _segment(drive: Path) -> Path:
    return drive / "log" / "00000001"


def _blob(drive: Path) -> Path:
    return max((p for p in (drive / "blob").rglob("*") if p.is_file()), key=lambda p: p.name)


def test_a_mirror_that_was_stopped_is_sound_and_stays_as_it_was(
    house: House, scratch: Path
) -> None:
    before = [digest(drive) for drive in house.drives]
    found = _verify(scratch, *house.drives)
    assert found.exit_code == 0
    assert found.findings == ()
    assert {drive.standing for drive in found.drives} == {"in sync"}
    assert found.drives[0].blobs >= 6
    assert found.index_records > len(house.contents)
    assert [digest(drive) for drive in house.drives] == before


def test_one_drive_alone_can_be_sound(house: House, scratch: Path) -> None:
    assert _verify(scratch, house.drives[0]).exit_code == 0


@pytest.mark.parametrize("what", ["log", "blob chunk", "blob gone", "blob cut"])
def test_what_one_drive_lacks_the_other_has(broken: House, scratch: Path, what: str) -> None:
    one, other = broken.drives
    blob = _blob(one)
    if what == "log":
        _flip(_segment(one), batch_at(one, 3) + IN_PAYLOAD)
    elif what == "blob chunk":
        _flip(blob, 70_000)
    elif what == "blob gone":
        blob.unlink()
    else:
        blob.chmod(0o640)
        blob.write_bytes(blob.read_bytes()[:-1])
    found = _verify(scratch, one, other)
    assert found.exit_code == EXIT_REPAIRABLE
    assert (found.repairable, found.lost, found.unknown) == (1, 0, 0)
    [finding] = [each for each in found.findings if each.remedy is Remedy.PEER]
    assert finding.drive == "drive-a"
    alone = _verify(scratch, one)
    assert alone.exit_code == EXIT_UNKNOWN
    assert _verify(scratch, other).exit_code == 0


def test_a_blob_is_told_by_the_object_that_owns_it(broken: House, scratch: Path) -> None:
    for blob in (broken.drives[0] / "blob").rglob("*"):
        if blob.is_file():
            blob.unlink()
    found = _verify(scratch, *broken.drives)
    told = " ".join(each.what for each in found.findings)
    assert "an object in bucket " in told
    assert "part 1 of an object in bucket " in told
    assert "large" not in told, "what customers call their objects is theirs"
    assert "its file is missing" in told


@pytest.mark.parametrize("what", ["log", "blob"])
def test_what_is_bad_on_both_is_lost(broken: House, scratch: Path, what: str) -> None:
    for drive in broken.drives:
        if what == "log":
            _flip(_segment(drive), batch_at(drive, 3) + IN_PAYLOAD)
        else:
            _flip(_blob(drive), 5)
    found = _verify(scratch, *broken.drives)
    assert found.exit_code == EXIT_LOST
    assert found.lost == 2
    assert found.advice


def test_different_damage_on_each_is_all_repairable(broken: House, scratch: Path) -> None:
    for number, drive in zip((3, 12), broken.drives, strict=True):
        _flip(_segment(drive), batch_at(drive, number) + IN_PAYLOAD)
    found = _verify(scratch, *broken.drives)
    assert found.exit_code == EXIT_REPAIRABLE
    assert found.repairable == 2


def test_a_torn_tail_and_a_torn_superblock_slot_are_harmless(broken: House, scratch: Path) -> None:
    _flip(broken.drives[0] / "superblock", SLOT_BYTES + 10)
    ahead = _verify(scratch, *broken.drives)
    end = _log_end(broken.drives[1])
    _flip(_segment(broken.drives[1]), end - BLOCK_BYTES + 150)
    found = _verify(scratch, *broken.drives)
    assert ahead.exit_code == found.exit_code == 0
    assert ahead.harmless == 1
    assert found.harmless == 3
    assert found.drives[1].last_sequence == found.drives[0].last_sequence - 1


def _log_end(drive: Path) -> int:
    """Where the last batch ends: the zeros behind it were written when the segment was made."""
    data = _segment(drive).read_bytes()
    return -(-len(data.rstrip(b"\0")) // BLOCK_BYTES) * BLOCK_BYTES


def test_a_log_that_lost_its_end_lied_about_a_flush(broken: House, scratch: Path) -> None:
    end = _log_end(broken.drives[0])
    path = _segment(broken.drives[0])
    data = path.read_bytes()
    cut = end - 20 * BLOCK_BYTES
    path.write_bytes(data[:cut] + bytes(len(data) - cut))
    found = _verify(scratch, *broken.drives)
    assert found.exit_code == EXIT_REPAIRABLE
    assert any("lost what it had confirmed" in each.what for each in found.findings)


def test_a_superblock_that_is_gone_leaves_the_rest_readable(broken: House, scratch: Path) -> None:
    (broken.drives[0] / "superblock").write_bytes(bytes(2 * SLOT_BYTES))
    found = _verify(scratch, *broken.drives)
    assert found.exit_code == EXIT_REPAIRABLE
    assert found.drives[0].standing == "not known"
    assert found.drives[0].batches == found.drives[1].batches


def test_drives_that_do_not_belong_together_are_refused(house: House, scratch: Path) -> None:
    with pytest.raises(Refused, match="given twice, or one is its copy"):
        _verify(scratch, house.drives[0], house.drives[0])
    with pytest.raises(InvalidInput, match="more than the two drives"):
        _verify(scratch, *house.drives, house.drives[0])
