"""The units are correct by systemd's own word, and as closed as promised."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

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


def test_control_keeps_its_mounts_visible() -> None:
    """A mount namespace of its own would hide every drive from stores and gateways."""
    text = (UNITS / "appliance-control.service").read_text()
    settings = set(re.findall(r"^(\w+)=(?!no$|false$)", text, re.MULTILINE))
    # exec_needs_mount_namespace() of systemd names what gives a service one.
    namespaced = {
        "PrivateTmp", "PrivateDevices", "PrivateMounts", "PrivateIPC", "ProtectSystem",
        "ProtectHome", "ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs",
        "ProtectControlGroups", "ProtectProc", "ProcSubset", "ReadOnlyPaths", "ReadWritePaths",
        "InaccessiblePaths", "BindPaths", "BindReadOnlyPaths", "TemporaryFileSystem",
        "RootDirectory", "RootImage", "MountFlags", "ExecPaths", "NoExecPaths", "DynamicUser",
    }  # fmt: skip
    assert not settings & namespaced


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
