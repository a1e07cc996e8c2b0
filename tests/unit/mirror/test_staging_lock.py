"""Whose a staging directory is: a gateway's that locked it, or the collector's."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from appliance.core.errors import DriveFault
from appliance.engine.mirror.staging_lock import claim_staging, sweep_if_free


def _drive(home: Path, name: str, *files: str) -> Path:
    directory = home / name / "staging" / "gateway-1"
    directory.mkdir(parents=True)
    for file in files:
        (directory / file).write_bytes(b"staged")
    return home / name


def test_what_a_gateway_left_is_removed_on_every_drive(tmp_path: Path) -> None:
    drives = [_drive(tmp_path, "a", "one", "two"), _drive(tmp_path, "b", "one")]
    assert sweep_if_free(drives, "gateway-1") == 3
    assert not any((drive / "staging" / "gateway-1").exists() for drive in drives)
    assert sweep_if_free(drives, "gateway-1") == 0


def test_a_gateway_that_lives_keeps_what_it_staged(tmp_path: Path) -> None:
    drives = [_drive(tmp_path, "a", "one"), _drive(tmp_path, "b", "one")]
    claim = claim_staging(drives[1], "gateway-1")
    assert sweep_if_free(drives, "gateway-1") == 0
    assert all((drive / "staging" / "gateway-1" / "one").exists() for drive in drives)
    claim.close()
    assert sweep_if_free(drives, "gateway-1") == 2


def test_a_claim_the_collector_was_faster_than_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the gateway would hold the lock of a directory that is gone."""
    drive = _drive(tmp_path, "a")
    lock, directory = fcntl.flock, drive / "staging" / "gateway-1"
    sweeps = iter([directory])

    def after_a_sweep(descriptor: int, operation: int) -> None:
        for swept in sweeps:
            swept.rmdir()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", after_a_sweep)
    claim = claim_staging(drive, "gateway-1")
    assert (drive / "staging" / "gateway-1").is_dir()
    assert sweep_if_free([drive], "gateway-1") == 0
    assert (drive / "staging" / "gateway-1").is_dir()
    claim.close()


def test_a_drive_that_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "staging").write_bytes(b"a file")
    with pytest.raises(DriveFault, match="claiming"):
        claim_staging(tmp_path / "a", "gateway-1")
    drive = _drive(tmp_path, "b")
    (drive / "staging" / "gateway-1" / "a directory").mkdir()
    with pytest.raises(DriveFault, match="sweeping"):
        sweep_if_free([drive], "gateway-1")
