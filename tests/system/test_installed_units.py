"""The units as ``make install`` puts them together start in an order that exists."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.development import PROJECT


@pytest.mark.needs("systemd-analyze")
def test_target_control_stores_and_gateways_have_an_order(tmp_path: Path) -> None:
    for unit in (PROJECT / "systemd").iterdir():
        if unit.suffix in (".service", ".target"):
            text = unit.read_text().replace("/usr/lib/appliance/bin/python", "/bin/true")
            (tmp_path / unit.name).write_text(text)
    wanted = tmp_path / "appliance.target.wants"
    wanted.mkdir()
    for instance in ("appliance-control", "appliance-gateway@0", "appliance-gateway@1"):
        template = f"{instance.rstrip('01')}.service"
        (wanted / f"{instance}.service").symlink_to(tmp_path / template)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "appliance.target"],
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")
