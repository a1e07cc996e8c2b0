"""The service in development refuses what cannot be in one sentence, and touches nothing then."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

from tests.development import PROJECT, development_service

DEADLINE_S = 60.0


def _run(*arguments: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    done = subprocess.run(
        [str(PROJECT / ".venv/bin/appliance"), "dev", *arguments],
        capture_output=True, text=True, check=False, timeout=DEADLINE_S,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def _refused(*arguments: str) -> str:
    code, output = _run(*arguments, "--port", "0")
    assert code in {69, 77, 78}, output
    assert "Traceback" not in output
    return output


def test_a_busy_port_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        code, output = _run("--state", str(tmp_path / "state"), "--port", str(port))
    assert code == 69
    assert f"127.0.0.1:{port}: another program uses that port" in output
    assert "Traceback" not in output


def test_a_second_appliance_on_one_state_is_refused(tmp_path: Path) -> None:
    with development_service(tmp_path) as service:
        code, output = _run("--state", str(tmp_path / "state"), "--port", "0")
        assert code == 69
        assert "another appliance runs on it" in output
        assert "Traceback" not in output
        assert service.process.poll() is None


def test_a_directory_that_holds_something_else_is_no_drive(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a/letter.txt").write_text("dear customer")
    drives = ["--drive", str(tmp_path / "a"), "--drive", str(tmp_path / "b")]
    code, output = _run("--state", str(tmp_path / "state"), "--port", "0", *drives)
    assert code == 77
    assert "files that are not ours" in output
    assert "Traceback" not in output
    assert (tmp_path / "a/letter.txt").read_text() == "dear customer"


def test_a_wrong_override_names_variable_and_key(tmp_path: Path) -> None:
    code, output = _run(
        "--state", str(tmp_path), environment={"APPLIANCE_GATEWAY_PROCESSES": "many"}
    )
    assert code == 78
    assert "APPLIANCE_GATEWAY_PROCESSES, key gateway.processes" in output
    assert "Traceback" not in output


def test_a_state_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, output = _run("--state", str(tmp_path / "file"), "--port", "0")
    assert code != 0
    assert str(tmp_path / "file") in output
    assert "Traceback" not in output


def test_drives_that_vanished_are_asked_for_and_not_made_anew(tmp_path: Path) -> None:
    drives, away = tmp_path / "state/drives", tmp_path / "away"
    with development_service(tmp_path) as service:
        main = service.main
    drives.rename(away)
    output = _refused("--state", str(tmp_path / "state"))
    assert "drives/a as a drive: it is empty" in output
    assert "put them back" in output
    shutil.rmtree(drives)
    away.rename(drives)
    with development_service(tmp_path) as service:
        assert service.main == main


def test_a_lost_master_key_is_asked_for_and_not_made_anew(tmp_path: Path) -> None:
    key, away = tmp_path / "state/master.key", tmp_path / "away"
    with development_service(tmp_path) as service:
        main = service.main
    key.rename(away)
    output = _refused("--state", str(tmp_path / "state"))
    assert f"put its {key} back" in output
    assert "RECOVERY" not in output
    assert not key.exists()
    away.rename(key)
    with development_service(tmp_path) as service:
        assert service.main == main


def test_a_ready_file_that_cannot_be_written_starts_nothing(tmp_path: Path) -> None:
    state, file = tmp_path / "state", tmp_path / "file"
    file.write_text("")
    for ready in (tmp_path / "nowhere/ready.json", file / "ready.json"):
        output = _refused("--state", str(state), "--ready-file", str(ready))
        assert f"cannot write the ready file {ready}" in output
    assert not (state / "master.key").exists()


def test_wrong_names_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    state, circle = tmp_path / "state", tmp_path / "circle"
    circle.symlink_to(circle)
    one = str(tmp_path / "one")
    assert "names have 1 to 40" in _refused("--state", str(state), "--accounts", "Bad_Name")
    assert "as both drives" in _refused("--state", str(state), "--drive", one, "--drive", one)
    assert "give it twice" in _refused("--state", str(state), "--drive", one)
    assert "symbolic links" in _refused("--state", str(circle / "state"))
    assert "characters nobody can type" in _refused("--state", str(tmp_path / "a\nb"))
    assert "supervisor.lock" in _refused_with_a_directory_for_a_lock(tmp_path / "locked")
    assert not (state / "master.key").exists()


def _refused_with_a_directory_for_a_lock(state: Path) -> str:
    (state / "supervisor.lock").mkdir(parents=True)
    return _refused("--state", str(state))
