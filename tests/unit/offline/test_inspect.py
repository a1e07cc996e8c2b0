"""What lies on a drive, in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from appliance.core.epochs import Epoch, Leave
from appliance.core.offline import Inspection
from appliance.daemon.offline_inspect import inspect
from appliance.engine.mirror.format import BATCH_HEADER_BYTES
from appliance.engine.mirror.offline import left_at
from appliance.engine.mirror.slots import SLOT_BYTES
from appliance.engine.mirror.superblock import Superblock, format_drive, read_superblock
from appliance.system.files import DirectoryVolume
from tests.conformance.mirrors import MIRROR_ID
from tests.unit.offline.house import House, batch_at, digest, quiet


def _inspect(scratch: Path, drive: Path) -> Inspection:
    found, _ = quiet(lambda telling: inspect(drive, scratch, telling))
    return found


def test_a_whole_drive_is_told_without_any_key(house: House, scratch: Path) -> None:
    before = digest(house.drives[0])
    found = _inspect(scratch, house.drives[0])
    assert digest(house.drives[0]) == before
    assert (found.drive_id, found.serial) == ("drive-a", "serial-drive-a")
    assert found.mirror_id == MIRROR_ID
    assert found.in_sync
    assert found.left_at is None
    assert found.epochs[-1].in_sync == ("drive-a", "drive-b")
    assert found.heartbeat >= 1
    log = found.log
    assert (log.first_sequence, log.damage, log.torn) == (1, (), False)
    assert log.last_sequence == log.batches
    assert log.segments_used >= 1
    assert log.last_write_ns > found.created_ns > 0
    assert [contract.name for contract in found.contracts] == ["acme", "zeta"]
    for contract in found.contracts:
        assert (contract.accounts, contract.buckets) == (1, 1)
    stored = sum(contract.objects for contract in found.contracts)
    assert stored == len(house.contents)
    size_bytes = sum(contract.size_bytes for contract in found.contracts)
    assert size_bytes == sum(map(len, house.contents.values()))
    assert (found.blobs.missing, found.blobs.wrong_size) == (0, 0)
    assert found.blobs.owned_bytes > 2 * 1_500_000
    text = " ".join(found.meaning)
    assert "in sync with drive-b" in text
    assert "The log is whole" in text
    assert any("mirror export" in each for each in found.advice)


def test_damage_is_told_with_its_place_and_what_to_do(
    house: House, scratch: Path, tmp_path: Path
) -> None:
    broken = house.copied(tmp_path / "broken")
    segment = broken.drives[0] / "log" / "00000001"
    data = bytearray(segment.read_bytes())
    offset = batch_at(broken.drives[0], 5)
    data[offset + BATCH_HEADER_BYTES] ^= 1
    segment.write_bytes(data)
    found = _inspect(scratch, broken.drives[0])
    [damage] = found.log.damage
    assert (damage.segment, damage.accepted) == (1, False)
    assert damage.offset == offset
    assert 0 < damage.first_sequence <= damage.last_sequence
    assert "damaged in 1 place:" in " ".join(found.meaning)
    assert "mirror verify" in found.advice[0]


def test_a_drive_without_a_superblock_is_told_from_its_log(
    house: House, scratch: Path, tmp_path: Path
) -> None:
    broken = house.copied(tmp_path / "broken")
    (broken.drives[0] / "superblock").write_bytes(bytes(2 * SLOT_BYTES))
    found = _inspect(scratch, broken.drives[0])
    assert found.mirror_id == MIRROR_ID
    assert found.superblock_trouble
    assert found.log.batches > 10
    assert "read from its log" in found.meaning[0]


def test_a_drive_that_left_ends_with_its_leave(house: House, scratch: Path, tmp_path: Path) -> None:
    broken = house.copied(tmp_path / "broken")
    drive = broken.drives[0]
    volume = DirectoryVolume(drive, "drive-a")
    block = read_superblock(volume)
    assert isinstance(block, Superblock)
    old = block.history[-1]
    left = Epoch(old.number + 1, "e2", old.id, ("drive-b",), (Leave("drive-a", 7),))
    format_drive(volume, replace(block, history=(*block.history, left)))
    volume.close()
    found = _inspect(scratch, drive)
    assert (found.in_sync, found.left_at) == (False, 7)
    assert (found.log.last_sequence, found.log.batches) == (7, 7)
    assert found.log.beyond_leave > 10
    assert "left the mirror with batch 7" in found.meaning[0]
    assert "never acknowledged, not counted" in " ".join(found.meaning)


@pytest.mark.parametrize(
    ("epochs", "left"),
    [
        ([(("a", "b"), ())], None),
        ([(("a", "b"), ()), (("b",), (Leave("a", 9),))], 9),
        ([(("b",), (Leave("a", 9),)), (("a", "b"), ())], None),
        ([(("b",), (Leave("a", 9),)), (("a", "b"), ()), (("b",), (Leave("a", 20),))], 20),
        ([(("b",), (Leave("a", 9),)), (("b", "c"), ())], 9),
        ([(("b", "c"), ())], None),
    ],
)
def test_the_leave_that_counts_is_the_last_without_a_return(
    epochs: list[tuple[tuple[str, ...], tuple[Leave, ...]]], left: int | None
) -> None:
    history = tuple(
        Epoch(number, str(number), str(number - 1), in_sync, leaves)
        for number, (in_sync, leaves) in enumerate(epochs, 1)
    )
    assert left_at("a", history) == left
