"""The units are correct by systemd's own word, and as closed as promised."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.system.mount import NAMESPACE_VARIABLE, mounts

PROJECT = Path(__file__).resolve().parents[2]
UNITS = PROJECT / "systemd"
PROGRAM = "/usr/lib/appliance/bin/python"


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units with a program that exists here: whether ours is installed is not their matter."""
    copies = tmp_path / "units"
    copies.mkdir()
    for file in (*UNITS.glob("*.service"), *UNITS.glob("*.target")):
        text = file.read_text()
        assert file.suffix == ".target" or PROGRAM in text
        (copies / file.name).write_text(text.replace(PROGRAM, shutil.which("true") or "/bin/true"))
    return copies


def _run(*arguments: str, units: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        check=False,
        cwd=units,
        env={"SYSTEMD_UNIT_PATH": f"{units}:", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )


def test_every_unit_verifies_without_a_word(units: Path) -> None:
    names = [
        "appliance.target",
        "appliance-stores.target",
        "appliance-control.service",
        "appliance-store@m0.service",
        "appliance-gateway@0.service",
    ]
    for name in names:
        done = _run("systemd-analyze", "verify", "--man=no", name, units=units)
        assert done.returncode == 0, done.stderr
        assert done.stderr.strip() == "", done.stderr


@pytest.mark.parametrize(
    ("unit", "highest"),
    [
        ("appliance-gateway@.service", 2.0),
        ("appliance-store@.service", 2.0),
        ("appliance-control.service", 4.0),
    ],
)
def test_exposure_is_within_the_promise(units: Path, unit: str, highest: float) -> None:
    done = _run(
        "systemd-analyze", "security", "--offline=true", "--no-pager", str(units / unit),
        units=units,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for \S+ ([0-9.]+)", done.stdout.replace(":", ""))
    assert found is not None, done.stdout + done.stderr
    print(f"{unit}: exposure {found[1]}")
    assert float(found[1]) <= highest


@pytest.mark.root
def test_drives_mounted_from_a_sandbox_are_seen_by_everybody(tmp_path: Path) -> None:
    """Control mounts from a namespace of its own; stores and gateways see it all the same."""
    image, target = tmp_path / "image", tmp_path / "drives" / "d"
    target.parent.mkdir()
    # As systemd has it for the whole machine: mounts are told to every namespace.
    subprocess.run(["mount", "--bind", str(target.parent), str(target.parent)], check=True)
    subprocess.run(["mount", "--make-shared", str(target.parent)], check=True)
    with image.open("wb") as file:
        file.truncate(400 * 1024 * 1024)
    subprocess.run(["mkfs.xfs", "-q", str(image)], check=True)
    node = subprocess.run(
        ["losetup", "--find", "--show", str(image)], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        for call, seen in (
            (f"mount_xfs({node!r}, Path({str(target)!r}))", True),
            (f"unmount_lazily(Path({str(target)!r}))", False),
        ):
            code = f"from pathlib import Path; from appliance.system.mount import *; {call}"
            subprocess.run(
                ["unshare", "--mount", "--propagation", "slave", sys.executable, "-c", code],
                check=True, cwd=PROJECT,
                env={**os.environ, NAMESPACE_VARIABLE: f"/proc/{os.getpid()}/ns/mnt"},
            )  # fmt: skip
            assert any(mount.target == str(target) for mount in mounts()) is seen
    finally:
        for place in (target, target.parent):
            subprocess.run(["umount", "--lazy", str(place)], check=False, capture_output=True)
        subprocess.run(["losetup", "--detach", node], check=True)


def test_control_is_told_where_to_mount() -> None:
    text = (UNITS / "appliance-control.service").read_text()
    assert f"Environment={NAMESPACE_VARIABLE}=/proc/1/ns/mnt" in text


def test_users_and_directories_are_made(tmp_path: Path) -> None:
    for kind, tool in (("sysusers", "systemd-sysusers"), ("tmpfiles", "systemd-tmpfiles")):
        file = UNITS / f"appliance.{kind}"
        root = tmp_path / kind
        (root / "etc").mkdir(parents=True)
        if kind == "tmpfiles":
            (root / "etc/passwd").write_text("root:x:0:0::/:\nappliance-store:x:0:0::/:\n")
            (root / "etc/group").write_text("root:x:0:\nappliance:x:0:\n")
        options = ["--create"] if kind == "tmpfiles" else []
        done = _run(tool, f"--root={root}", *options, str(file), units=tmp_path)
        assert done.returncode == 0, done.stderr
    passwd = (tmp_path / "sysusers/etc/passwd").read_text()
    assert "appliance-store:" in passwd
    assert "appliance-gateway:" in passwd
    assert (tmp_path / "tmpfiles/run/appliance/store").is_dir()
    assert (tmp_path / "tmpfiles/run/appliance").stat().st_mode & 0o777 == 0o750
