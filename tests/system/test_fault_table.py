"""Drives, a witness and a store that fail while they are used: each row of what the engine promises
of faults, on real XFS with the whole appliance, and what an operator is told."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
from botocore.exceptions import ClientError

from tests.system.drives import DyingDrive, sh, unmount_all, until
from tests.system.surgery import batch_of, chain, cut_with, rot
from tests.system.workbench import Workbench, workbench

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.needs("mkfs.xfs", "losetup", "qemu-storage-daemon"),
]
DEADLINE_S: Final = 4.0
ADVISED: Final = 3
WITNESS_BYTES: Final = 320 * 1024 * 1024
SLOW_S: Final = 10.0
"""What a busy test machine may take besides."""
LARGE_BYTES: Final = 1_500_000


@pytest.fixture(scope="module")
def witness_device(tmp_path_factory: pytest.TempPathFactory) -> DyingDrive:
    return DyingDrive(tmp_path_factory.mktemp("witness"), "w", size_bytes=WITNESS_BYTES)


@pytest.fixture(scope="module")
def machine(
    tmp_path_factory: pytest.TempPathFactory, witness_device: DyingDrive
) -> Iterator[Workbench]:
    """One for all rows, which goes from one fault to the next."""
    folder = tmp_path_factory.mktemp("faults")
    more = f"read_errors_advised = {ADVISED}\n"
    with workbench(
        folder, DyingDrive, deadline_s=DEADLINE_S, more=more, witness=witness_device
    ) as bench:
        bench.put("before it all")
        yield bench


@pytest.fixture
def bench(machine: Workbench) -> Iterator[Workbench]:
    """In sync before and after the row, with all that was acknowledged."""
    assert machine.machine.mirror()["state"] == "in sync", "an earlier row left it so"
    yield machine
    machine.becomes("in sync")
    machine.check()
    until(lambda: chain(machine.root("a")) == chain(machine.root("b")), "equal logs")


def _refused(call: Callable[[], object]) -> Any:
    """The headers and status of a 503."""
    with pytest.raises(ClientError) as caught:
        call()
    answer = caught.value.response["ResponseMetadata"]
    assert answer["HTTPStatusCode"] == 503, caught.value
    return answer


def _dying(bench: Workbench) -> list[DyingDrive]:
    return [drive for drive in bench.drives.values() if isinstance(drive, DyingDrive)]


def _alerts(bench: Workbench) -> list[str]:
    return [each["text"] for each in bench.machine.mirror()["alerts"]]


@pytest.mark.soak
def test_both_drives_hang_and_nobody_is_ejected(bench: Workbench) -> None:
    epoch = bench.machine.mirror()["epoch"]
    store = bench.machine.processes["store-m0"]
    store.send_signal(signal.SIGSTOP)  # nothing is under way that one drive could still finish
    for root in bench.roots:
        _flush(root)
    for drive in _dying(bench):
        drive.stall()
    store.send_signal(signal.SIGCONT)
    held = threading.Thread(target=bench.put, args=("held",))
    held.start()
    try:
        until(lambda: any("no drive answers" in text for text in _alerts(bench)), "an alert")
        assert "writing is held until one does" in bench.machine.type("mirror", "status")
        assert held.is_alive()
        assert "held" not in bench.stored
    finally:
        for drive in _dying(bench):
            drive.resume()
        held.join()
    assert "held" in bench.stored
    said = bench.machine.mirror()
    assert (said["state"], said["epoch"]) == ("in sync", epoch)
    assert "drives answer again" in _alerts(bench)


def _flush(root: Path) -> None:
    descriptor = os.open(root, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def test_a_paused_machine_ejects_nobody(bench: Workbench) -> None:
    epoch = bench.machine.mirror()["epoch"]
    store = bench.machine.processes["store-m0"]
    puts = [threading.Thread(target=bench.put, args=(f"paused {n}",)) for n in range(4)]
    for put in puts:
        put.start()
    store.send_signal(signal.SIGSTOP)
    passed = threading.Event()
    passed.wait(DEADLINE_S + 1)  # time is what this is about
    store.send_signal(signal.SIGCONT)
    for put in puts:
        put.join()
    bench.put("after the pause")
    said = bench.machine.mirror()
    assert (said["state"], said["epoch"]) == ("in sync", epoch)


def test_one_that_hangs_is_left_out_and_comes_back(bench: Workbench) -> None:
    hung = _dying(bench)[1]
    hung.stall()
    began_s = time.monotonic()
    try:
        bench.put("while b hangs")
        took_s = time.monotonic() - began_s
        print(f"one drive hangs: answered after {took_s:.1f} s")
        assert took_s < DEADLINE_S + SLOW_S
        bench.becomes("degraded")
        assert "it did not come back within 4 s" in bench.member("b")["reason"]
        bench.check()
    finally:
        hung.resume()


def test_the_last_drive_fails_and_both_come_back(bench: Workbench) -> None:
    bench.pull("b")
    bench.put("on a alone")
    bench.becomes("degraded")
    bench.pull("a")
    answer = _refused(lambda: bench.put("on none"))
    assert int(answer["HTTPHeaders"]["retry-after"]) >= 1
    said = bench.becomes("offline", "read-only")
    assert said["reason"]
    bench.push_back("b")
    bench.push_back("a")
    bench.becomes("in sync")
    if "on none" in _listed(bench):
        bench.stored["on none"] = b"on none"  # it had no answer: either is right


def _listed(bench: Workbench) -> set[str]:
    found = bench.client.list_objects_v2(Bucket=bench.bucket).get("Contents", [])
    return {each["Key"] for each in found}


def test_an_epoch_on_the_survivor_alone_counts_for_nothing(
    bench: Workbench, witness_device: DyingDrive
) -> None:
    bench.pull("b")
    witness_device.die()
    _refused(lambda: bench.put("under no epoch"))
    said = bench.becomes("read-only", "offline")
    assert said["reason"].endswith("witness did not take its vote")
    assert said["question"] == "force"
    bench.machine.kill_all()
    unmount_all(witness_device.node)
    sh("mount", "-o", "nouuid", witness_device.come_back().node, str(bench.witness.parent))
    bench.unplug("b")
    bench.start("a", "b")
    bench.becomes("in sync")
    if "under no epoch" in _listed(bench):
        bench.stored["under no epoch"] = b"under no epoch"


def test_a_full_witness_still_takes_its_vote(bench: Workbench) -> None:
    junk = bench.witness.with_name("junk")
    _fill(junk)
    bench.pull("b")
    bench.put("with a full witness")
    bench.becomes("degraded")
    bench.push_back("b")
    bench.becomes("in sync")
    junk.unlink()


def _fill(junk: Path) -> None:
    """Until not a byte more fits."""
    with junk.open("wb", buffering=0) as file:
        for size_bytes in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size_bytes))
            except OSError:
                continue


def test_what_rots_on_one_drive_is_read_from_the_other(bench: Workbench) -> None:
    rng = Random(3)
    sizes = [20_000] * 8 + [LARGE_BYTES] * 2
    for number, size_bytes in enumerate(sizes):
        bench.put(f"rots {number}", rng.randbytes(size_bytes))
    for number in range(8):
        lying = batch_of(bench.root("a"), f"rots {number}")
        rot(lying.path, lying.offset + 5000)
    for path in (bench.root("a") / "blob").rglob("*"):
        if path.is_file():
            rot(path, LARGE_BYTES // 2)
    bench.check()
    until(lambda: bench.member("a")["read_errors"] >= ADVISED, "read errors to be counted")
    assert bench.member("a")["reason"].startswith("replace it: ")
    assert bench.member("b")["read_errors"] == 0
    bench.machine.type("mirror", "scrub", "m0", "--wait")
    assert bench.member("a")["repaired"] >= len(sizes)


def test_a_drive_that_lied_about_a_flush_is_named(bench: Workbench) -> None:
    for number in range(3):
        bench.put(f"confirmed {number}")
    bench.power_cut()
    cut_with(bench.root("b"), "confirmed 0")
    bench.start("a", "b")
    bench.becomes("in sync")
    (told,) = (text for text in _alerts(bench) if "confirmed" in text)
    assert "(serial b) lacks batches it had confirmed: replace it" in told


def test_a_full_drive_refuses_puts_and_takes_deletes(bench: Workbench) -> None:
    for names in (("b",), ("a", "b")):
        for name in names:
            _fill_fast(bench.root(name))
        _until_refused(bench, f"too much on {len(names)}")
        bench.delete("before it all")
        said = bench.machine.mirror()
        assert said["state"] == "in sync", "a full drive has not failed"
        bench.check()
        for name in names:
            (bench.root(name) / "junk").unlink()
        until(lambda: _admitted(bench, "before it all"), "puts to be taken again")


def _fill_fast(root: Path) -> None:
    space = os.statvfs(root)
    with (root / "junk").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - (16 << 20))


def _until_refused(bench: Workbench, prefix: str) -> None:
    for number in range(2000):
        try:
            bench.put(f"{prefix}/{number}", bytes(200_000))
        except ClientError as refusal:
            assert "The storage is full for now" in str(refusal)
            return
    raise AssertionError("it takes everything")


def _admitted(bench: Workbench, key: str) -> bool:
    try:
        bench.put(key)
    except ClientError:
        return False
    return True


def test_a_store_that_crashes_again_and_again_serves_reads(bench: Workbench) -> None:
    for _ in range(4):  # before the first one clients wrote
        bench.restart("store", "m0", crash=True)
        until(lambda: "offline" != bench.machine.mirror()["state"] != "assembling", "the store")
    said = bench.becomes("read-only")
    assert "3 times within 5 minutes" in said["reason"]
    assert said["question"] == "resume"
    bench.check()
    _refused(lambda: bench.put("refused"))
    bench.machine.type("mirror", "resolve", "m0", "--resume", "--confirm", "m0")
    bench.becomes("in sync")
    bench.put("taken again")
