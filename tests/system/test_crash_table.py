"""What a crash can leave on the drives, row by row, on real XFS with the whole appliance: each row
is made by changing the drives' files between two starts, and ends with the same bytes on both."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Final

import pytest
from botocore.exceptions import ClientError

from appliance.engine.mirror.format import BLOCK_BYTES
from appliance.engine.mirror.segment import decode_segment_header
from appliance.engine.mirror.state import reserve_for
from tests.system.drives import until
from tests.system.surgery import batch_of, chain, cut_after, cut_with, overwrite, rot
from tests.system.workbench import DRIVE_BYTES, Workbench, workbench

pytestmark = [pytest.mark.timeout(300), pytest.mark.needs("mkfs.xfs", "losetup")]
INLINE_BYTES: Final = 20_000
INLINE_BYTES_MAX: Final = 250_000
KEYS, ROUNDS = 30, 10
"""More than a log segment holds."""
SPARE_BYTES: Final = 16 * 1024 * 1024
PAGE_BYTES: Final = 4096
RECYCLED_S: Final = 90.0


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """One for all rows, which goes from one crash to the next."""
    with workbench(tmp_path_factory.mktemp("crashes")) as bench:
        bench.put("before it all")
        yield bench


@pytest.fixture
def bench(machine: Workbench) -> Iterator[Workbench]:
    """In sync before and after the row, with all that was acknowledged."""
    assert machine.machine.mirror()["state"] == "in sync", "an earlier row left it so"
    yield machine
    machine.check()
    until(lambda: chain(machine.root("a")) == chain(machine.root("b")), "equal logs")


def _noise(seed: int, size_bytes: int = INLINE_BYTES) -> bytes:
    return Random(seed).randbytes(size_bytes)


def _verified(bench: Workbench) -> tuple[int, list[tuple[str, str]]]:
    """What an operator is told of the drives as they lie there."""
    code, report = bench.verify()
    return code, [(each["remedy"], each["what"]) for each in report["findings"]]


def test_a_batch_that_reached_one_drive_is_copied_and_served(bench: Workbench) -> None:
    bench.put("on a only", _noise(1))
    bench.power_cut()
    cut_after(bench.root("a"), "on a only")
    cut_with(bench.root("b"), "on a only")
    told = "it lacks the last batch, as after a crash; the next start copies it"
    assert _verified(bench) == (0, [("harmless", told)])
    bench.start("a", "b")
    bench.becomes("in sync")
    assert batch_of(bench.root("b"), "on a only").sequence


def test_a_batch_that_is_torn_on_both_drives_is_dropped(bench: Workbench) -> None:
    bench.put("torn", _noise(2))
    bench.power_cut()
    for root, half in zip(bench.roots, ("front", "back"), strict=True):
        cut_after(root, "torn")
        torn = batch_of(root, "torn")
        size = len(torn.batch.data) // 2
        offset = torn.offset if half == "front" else torn.offset + size
        overwrite(torn.path, offset, bytes(size))
    told = "its last batch was cut short by a crash; it was never acknowledged"
    code, findings = _verified(bench)
    assert code == 0
    assert set(findings) == {("harmless", told)}
    bench.start("a", "b")
    said = bench.becomes("in sync")
    assert not said["reason"]
    del bench.stored["torn"]  # its batch was whole nowhere, so nobody had an answer


def test_a_batch_of_a_drive_that_was_left_behind_is_never_read(bench: Workbench) -> None:
    bench.put("on b only", _noise(3))
    bench.power_cut()
    cut_with(bench.root("a"), "on b only")
    cut_after(bench.root("b"), "on b only")
    del bench.stored["on b only"]  # a alone goes on, so nobody had an answer
    bench.start("a")
    bench.becomes("degraded")
    bench.put("on a meanwhile", _noise(4))
    bench.check()
    bench.power_cut()
    bench.start("a", "b")
    bench.becomes("in sync")


def test_what_is_bad_on_one_drive_is_repaired_from_the_other(bench: Workbench) -> None:
    bench.put("rotten on a", _noise(5))
    bench.put("behind it")
    bench.power_cut()
    bad = batch_of(bench.root("a"), "rotten on a")
    rot(bad.path, bad.offset + 5000)
    code, ((remedy, what),) = _verified(bench)
    assert (code, remedy) == (10, "the other drive has it")
    assert "a batch does not verify, and later ones do" in what
    bench.start("a", "b")
    bench.becomes("in sync")
    assert bench.member("a")["repaired"] == 1
    assert bench.member("b")["repaired"] == 0


def _refusal(call: Callable[[], object]) -> int:
    with pytest.raises(ClientError) as caught:
        call()
    return int(caught.value.response["ResponseMetadata"]["HTTPStatusCode"])


def test_what_is_bad_on_both_drives_is_named_and_asked_about(bench: Workbench) -> None:
    bench.put("rotten on both", _noise(6))
    bench.put("behind that")
    bench.power_cut()
    for root in bench.roots:
        bad = batch_of(root, "rotten on both")
        rot(bad.path, bad.offset + 5000)
    code, findings = _verified(bench)
    assert code == 11
    assert [remedy for remedy, _ in findings] == ["no drive has it"] * 2
    bench.start("a", "b")
    said = bench.becomes("read-only")
    assert said["reason"].startswith("data is lost on every drive")
    assert said["question"] == "losses"
    assert len(said["lost"]) == 1
    told = bench.machine.type("mirror", "resolve", "m0")
    assert "\nNext: appliance mirror resolve m0 --accept-losses" in told
    assert bench.get("behind that") == b"behind that"
    for refused in (lambda: bench.put("refused"), lambda: bench.get("rotten on both")):
        assert _refusal(refused) == 503
    bench.machine.type("mirror", "resolve", "m0", "--accept-losses", "--confirm", "m0")
    bench.becomes("in sync")
    del bench.stored["rotten on both"]
    assert _refusal(lambda: bench.get("rotten on both")) == 404
    bench.put("after the loss")


def test_an_index_that_is_behind_catches_up(bench: Workbench) -> None:
    bench.put("after the last flush", _noise(7))
    bench.power_cut()
    assert b"after the last flush" not in _index(bench).read_bytes()
    bench.start("a", "b")
    bench.becomes("in sync")
    assert "built anew" not in bench.told()


def test_an_index_that_is_corrupt_is_built_anew(bench: Workbench) -> None:
    bench.power_cut()
    index = _index(bench)
    for page in range(1, index.stat().st_size // PAGE_BYTES):
        rot(index, page * PAGE_BYTES + 100)
    bench.start("a", "b")
    bench.becomes("in sync")
    bench.check()
    assert re.search("index.*built anew", bench.told()), bench.told()


def test_an_index_that_knows_what_no_log_has_is_built_anew(bench: Workbench) -> None:
    bench.put("known to the index alone", _noise(8))
    bench.power_cut(keep_index=True)
    for root in bench.roots:
        cut_with(root, "known to the index alone")
    del bench.stored["known to the index alone"]
    bench.start("a", "b")
    bench.becomes("in sync")
    assert "not in the log: it is built anew" in bench.told()


@pytest.mark.soak
def test_a_recycle_that_reached_one_drive_is_completed(bench: Workbench) -> None:
    """What lay in the segment was replaced or moved; none of it is read again."""
    with ThreadPoolExecutor(4) as threads:
        for number in range(ROUNDS):
            bodies = [_noise(100 * number + key, INLINE_BYTES_MAX) for key in range(KEYS)]
            list(threads.map(bench.put, [f"again {key}" for key in range(KEYS)], bodies))
    first, second = (root / "log/00000001" for root in bench.roots)
    old, before = second.read_bytes(), _generation(second)
    for root in bench.roots:
        _leave_little(root)
    until(
        lambda: before < _generation(first) == _generation(second),
        "a recycled segment",
        deadline_s=RECYCLED_S,
    )
    bench.power_cut()
    overwrite(second, 0, old)
    assert _generation(first) > _generation(second) == before
    for root in bench.roots:
        (root / "filler").unlink()
    bench.start("a", "b")
    bench.becomes("in sync")
    assert _generation(second) == _generation(first)


def _generation(segment: Path) -> int:
    with segment.open("rb") as file:
        return decode_segment_header(file.read(BLOCK_BYTES)).generation


def _leave_little(root: Path) -> None:
    """So that room is short and a segment without living records is freed at once."""
    space = os.statvfs(root)
    free_bytes = space.f_bavail * space.f_frsize
    with (root / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free_bytes - reserve_for(DRIVE_BYTES) - SPARE_BYTES)


def _index(bench: Workbench) -> Path:
    return max(bench.state.glob("index/index-*.db"))
