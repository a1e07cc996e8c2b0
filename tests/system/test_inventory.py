"""What udev, sysfs and a probe tell of real devices, and that events arrive by themselves."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.control.disks.block_bay import BlockBay
from appliance.core.drives import (
    Drive,
    DriveKind,
    Objection,
    Refusal,
    Signature,
    claimable,
    label_of,
)
from appliance.core.errors import DriveFault, DriveTimeout, Unreachable
from appliance.system import block, mount, process, udev
from tests.system.drives import DRIVE_BYTES, DyingDrive, LoopDrive, attached, settle, sh, until

pytestmark = pytest.mark.usefixtures("udev")
DEADLINE_S = 20.0
DRIVE_ID = "0123456789abcdef0123456789abcdef"


@contextmanager
def listening() -> Iterator[queue.Queue[udev.BlockEvent]]:
    events: queue.Queue[udev.BlockEvent] = queue.Queue()
    monitor = udev.BlockMonitor(events.put)
    assert monitor.source == "udev"
    monitor.start()
    try:
        yield events
    finally:
        monitor.stop()


def wait_for(events: queue.Queue[udev.BlockEvent], name: str) -> udev.BlockEvent:
    while True:
        event = events.get(timeout=DEADLINE_S)
        if event.name == name:
            return event


def only(bay: BlockBay, node: str) -> Drive:
    (found,) = (drive for drive in bay.scan() if drive.node == node)
    return found


def test_attach_and_detach_are_told_by_events(tmp_path: Path) -> None:
    drive = LoopDrive(tmp_path, "a")
    with listening() as events, attached(drive):
        assert wait_for(events, drive.name).action in {"add", "change"}
        name = drive.name
        assert block.size_bytes(name) == DRIVE_BYTES
        settle()
        while not events.empty():
            events.get_nowait()
        drive.detach()
        wait_for(events, name)
        settle()
        assert block.size_bytes(name) == 0


def test_an_overrun_socket_is_told_and_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(udev, "_RECEIVE_BYTES", 1)
    events: queue.Queue[udev.BlockEvent] = queue.Queue()
    gate = threading.Event()

    def slow(event: udev.BlockEvent) -> None:
        events.put(event)
        gate.wait(DEADLINE_S)

    monitor = udev.BlockMonitor(slow)
    monitor.start()
    try:
        for _ in range(30):
            sh("udevadm", "trigger", "--subsystem-match=block")
        settle()
        gate.set()
        while events.get(timeout=DEADLINE_S).action != udev.RESCAN:
            pass
        with attached(drive := LoopDrive(tmp_path, "a")):
            wait_for(events, drive.name)
    finally:
        gate.set()
        monitor.stop()


def test_a_blank_device_is_described(tmp_path: Path) -> None:
    bay = BlockBay(tmp_path / "drives", None)
    with attached(LoopDrive(tmp_path, "a")) as _, attached(drive := LoopDrive(tmp_path, "b")):
        settle()
        found = only(bay, drive.node)
    assert found == Drive(
        identity=f"loop:{tmp_path}/b.img",
        kind=DriveKind.LOOP,
        node=found.node,
        size_bytes=DRIVE_BYTES,
        serial="b.img",
        model="loop device",
        rotational=found.rotational,
    )


def test_devices_that_are_no_drives_are_not_listed(tmp_path: Path) -> None:
    names = {Path(drive.node).name for drive in BlockBay(tmp_path, None).scan()}
    assert not {name for name in names if name.startswith(("ram", "zram", "dm-", "md", "sr"))}
    assert all(block.size_bytes(name) for name in names)


def test_the_system_s_own_disk_is_never_claimable(tmp_path: Path) -> None:
    (root,) = (entry for entry in mount.mounts() if entry.target == "/")
    mounted = [drive for drive in BlockBay(tmp_path, None).scan() if "/" in drive.mounts]
    disks = Path("/sys/dev/block") / root.device
    assert bool(mounted) == disks.exists()
    for drive in mounted:
        verdict = claimable(drive, force_serial=drive.serial)
        assert isinstance(verdict, Refusal)
        assert Objection.MOUNTED in {reason.objection for reason in verdict.reasons}


def test_format_mount_and_unmount(tmp_path: Path) -> None:
    bay = BlockBay(tmp_path / "drives", None)
    steps: list[str] = []
    with attached(device := LoopDrive(tmp_path, "a")):
        sh("mkfs.ext4", "-q", device.node)
        settle()
        blank = only(bay, device.node)
        assert blank.signatures[0].type == "ext4"
        bay.format(blank, DRIVE_ID, steps.append)
        settle()
        ours = only(bay, device.node)
        assert ours.drive_id == DRIVE_ID
        assert [each.type for each in ours.signatures] == ["xfs"]
        assert ours.signatures[0].label == label_of(DRIVE_ID)
        place = bay.mount(ours)
        assert (tmp_path / "drives").stat().st_mode & 0o777 == 0o700
        assert place == tmp_path / "drives" / DRIVE_ID
        assert bay.mounted()[DRIVE_ID].node == device.node
        assert only(bay, device.node).mounts == (str(place),)
        bounded = Path("/sys/fs/xfs") / device.name / "error/metadata/EIO/max_retries"
        assert bounded.read_text().strip() == str(mount.XFS_RETRIES_MAX)
        assert "reflink=0" in sh("xfs_info", str(place))
        bay.unmount(DRIVE_ID)
        bay.unmount(DRIVE_ID)
        assert not place.exists()
        assert bay.mounted() == {}
    assert steps == ["wiping what is on it", "making the file system"]


def test_a_sandboxed_process_mounts_on_the_machine(tmp_path: Path) -> None:
    place = tmp_path / "place"
    code = (
        "import sys; from pathlib import Path; from appliance.system import mount;"
        "place = Path(sys.argv[2]);"
        "mount.mount_xfs(sys.argv[1], place) if sys.argv[3] == 'mount'"
        " else mount.unmount_lazily(place)"
    )
    namespace = f"/proc/{os.getpid()}/ns/mnt"

    def sandboxed(verb: str, device: LoopDrive) -> None:
        python = (sys.executable, "-c", code, device.node, str(place), verb)
        variable = f"{mount.NAMESPACE_VARIABLE}={namespace}"
        sh("env", variable, "PYTHONPATH=.", "unshare", "--mount", "--propagation=slave", *python)

    sh("mount", "--bind", str(tmp_path), str(tmp_path))
    sh("mount", "--make-shared", str(tmp_path))
    try:
        with attached(device := LoopDrive(tmp_path, "a")):
            sh("mkfs.xfs", "-q", "-m", "reflink=0", device.node)
            sandboxed("mount", device)
            assert str(place) in {entry.target for entry in mount.mounts()}
            sandboxed("unmount", device)
            assert str(place) not in {entry.target for entry in mount.mounts()}
            assert not place.exists()
    finally:
        sh("umount", "--lazy", str(tmp_path))


def test_our_rules_tag_our_drives_and_candidates(tmp_path: Path) -> None:
    bay = BlockBay(tmp_path / "drives", None)
    with attached(device := LoopDrive(tmp_path, "a")):
        settle()
        before = _properties(device.node)
        assert before.get("APPLIANCE_CANDIDATE") == "1"
        assert "UDISKS_IGNORE" not in before
        bay.format(only(bay, device.node), DRIVE_ID, lambda text: None)
        until(lambda: "APPLIANCE_DRIVE" in _properties(device.node), "udev to look at it")
        after = _properties(device.node)
        assert after["APPLIANCE_DRIVE"] == "1"
        assert after["UDISKS_IGNORE"] == "1"
        assert after["SYSTEMD_READY"] == "0"
        assert "APPLIANCE_CANDIDATE" not in after
        sh("wipefs", "--all", device.node)
        sh("mkfs.xfs", "-q", "-L", "backup", device.node)
        block.announce(device.node)
        until(lambda: "APPLIANCE_DRIVE" not in _properties(device.node), "udev to look at it")
        until(lambda: _properties(device.node).get("ID_FS_LABEL") == "backup", "udev to look at it")
        stranger = _properties(device.node)
        assert not {"APPLIANCE_DRIVE", "APPLIANCE_CANDIDATE", "UDISKS_IGNORE"} & set(stranger)


def _properties(node: str) -> dict[str, str]:
    lines = sh("udevadm", "info", "--query=property", node).splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_a_probe_is_repeated_after_an_event_only(tmp_path: Path) -> None:
    bay = BlockBay(tmp_path / "drives", None)
    woken: queue.Queue[None] = queue.Queue()
    bay.watch(lambda: woken.put(None))
    try:
        with attached(device := LoopDrive(tmp_path, "a")):
            settle()
            assert only(bay, device.node).signatures == ()
            while not woken.empty():
                woken.get_nowait()
            sh("mkfs.ext4", "-q", "-L", "data", device.node)
            woken.get(timeout=DEADLINE_S)
            found = only(bay, device.node).signatures
            assert [(each.type, each.label) for each in found] == [("ext4", "data")]
            assert isinstance(found[0], Signature)
    finally:
        bay.close()


def test_a_dead_device_does_not_answer_and_is_told_as_faulty(tmp_path: Path) -> None:
    bay = BlockBay(tmp_path / "drives", None)
    with attached(device := DyingDrive(tmp_path, "a")):
        settle()
        living = only(bay, device.node)
        assert bay.answers(living)
        device.die()
        assert not bay.answers(living)
        assert only(bay, device.node).faults


def test_a_dead_drive_is_unmounted_and_returns_as_a_fresh_mount(tmp_path: Path) -> None:
    bay = BlockBay(tmp_path / "drives", None)
    with attached(device := DyingDrive(tmp_path, "a")):
        settle()
        bay.format(only(bay, device.node), DRIVE_ID, lambda text: None)
        settle()
        place = bay.mount(only(bay, device.node))
        (place / "kept").write_text("before")
        sh("sync", "-f", str(place))
        with (place / "kept").open("rb") as held:
            device.die()
            with pytest.raises(OSError, match="Input/output"), (place / "lost").open("wb") as lost:
                os.fsync(lost.fileno())
            bay.unmount(DRIVE_ID)
            device.come_back()
            settle()
            assert bay.mount(only(bay, device.node)) == place
            assert (place / "kept").read_text() == "before"
            assert held.name == str(place / "kept")
        bay.unmount(DRIVE_ID)


def test_missing_tools_failing_tools_and_slow_tools_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="not installed"):
        process.run(["no-such-program"], deadline_s=5)
    with pytest.raises(DriveTimeout, match=r"not back after 0\.2 s"):
        process.run(["sleep", "60"], deadline_s=0.2)
    with pytest.raises(DriveFault, match="mount failed"):
        mount.mount_xfs("/dev/zero", tmp_path / "x")
