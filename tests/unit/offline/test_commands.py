"""The commands as they are typed: exit codes, sentences, JSON."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.cli.context import Context
from appliance.cli.main import run
from appliance.cli.output import Output
from appliance.core.offline import EXIT_REPAIRABLE
from appliance.daemon.offline import ended_in_good_order, scratch_directory
from tests.unit.offline.house import House


def _type(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr. No socket: nobody is asked."""
    out, err = io.StringIO(), io.StringIO()
    context = Context(socket=Path("/nowhere"), output=Output(stdout=out, stderr=err))
    code = run([str(each) for each in arguments], context)
    return code, out.getvalue(), err.getvalue()


def test_inspect_prints_what_a_person_reads(house: House) -> None:
    code, out, _ = _type("drive", "inspect", house.drives[0])
    assert code == 0
    assert "drive-a  serial serial-drive-a" in out
    assert "The log is whole" in out
    assert "acme" in out
    assert "Next:" in out


def test_verify_leaves_with_a_code_of_its_own(house: House, tmp_path: Path) -> None:
    assert _type("mirror", "verify", *house.drives)[0] == 0
    broken = house.copied(tmp_path / "broken")
    blob = next(path for path in (broken.drives[1] / "blob").rglob("*") if path.is_file())
    blob.unlink()
    code, out, _ = _type("mirror", "verify", *broken.drives)
    assert code == EXIT_REPAIRABLE
    assert "the other drive has it: drive-b: blob" in out
    assert "Repairable: 1 finding" in out
    code, out, _ = _type("mirror", "verify", *broken.drives, "--json")
    assert code == EXIT_REPAIRABLE
    assert json.loads(out)["repairable"] == 1


def test_errors_of_the_tool_are_the_command_s(house: House, tmp_path: Path) -> None:
    code, _, err = _type("drive", "inspect", tmp_path / "nothing")
    assert code == 3
    assert "there is no such file or directory" in err
    code, _, err = _type("mirror", "verify", house.drives[0], house.drives[0])
    assert code == 4
    assert "given twice" in err
    code, _, err = _type("mirror", "export", house.drives[0], "--to", tmp_path / "out")
    assert code == 2
    assert "--master-key or --recovery-key" in err


def test_keys_recover_says_what_is_next(house: House, tmp_path: Path) -> None:
    _, recovery = house.keys(tmp_path)
    target = tmp_path / "new.key"
    code, out, _ = _type(
        "keys", "recover", house.drives[0], "--recovery-key", recovery, "--to", target
    )
    assert code == 0
    assert "Recovered master key" in out
    assert target.exists()


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_person_is_asked_for_the_recovery_key(
    house: House,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, recovery = house.keys(tmp_path)
    monkeypatch.setattr("sys.stdin", _Terminal(recovery.read_text()))
    target = tmp_path / "new.key"
    code, _, err = _type("keys", "recover", house.drives[0], "--recovery-key", "-", "--to", target)
    assert code == 0, err
    assert "Recovery key: " in capsys.readouterr().err
    assert target.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_tool_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    """The command line ends its tool with a second signal, in the midst of the tidying."""
    cleaned = []

    @contextmanager
    def slow_to_tidy() -> Iterator[None]:
        try:
            yield
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            cleaned.append(True)

    before = signal.getsignal(number)
    with (
        pytest.raises(KeyboardInterrupt),
        ended_in_good_order(),
        scratch_directory(tmp_path),
        slow_to_tidy(),
    ):
        os.kill(os.getpid(), number)
    assert cleaned
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) is before


def test_a_master_key_that_is_not_there_is_no_reason_to_make_one(
    house: House, tmp_path: Path
) -> None:
    code, _, err = _type(
        *("mirror", "export", house.drives[0], "--to", tmp_path / "out"),
        *("--master-key", tmp_path / "no.key"),
    )
    assert code == 3
    assert "there is no file" in err
    assert "setup" not in err
