"""The command line in front of a real API with fake managers: what people and programs see."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import pytest

from appliance.cli import cmd_dev, main
from appliance.cli.cmd_drive import complete_identity
from appliance.cli.context import Context
from appliance.cli.output import Output, eta, size
from appliance.core import errors
from appliance.core.admin import DriveState
from appliance.core.alerts import Alert
from appliance.core.jobs import Job, JobState
from tests.unit.admin.fakes import FREE, MIRROR, RUNNING, FakeManagers
from tests.unit.admin.serving import served


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@dataclass
class Shell:
    """Types commands and reads what they print."""

    path: Path
    fake: FakeManagers
    terminal: bool = False
    out: str = ""
    err: str = ""

    def type(self, *arguments: str) -> int:
        kind = Terminal if self.terminal else io.StringIO
        stdout, stderr = kind(), kind()
        output = Output(stdout=stdout, stderr=stderr, pause=lambda seconds: None)
        code = main.run(arguments, Context(socket=self.path, output=output))
        self.out, self.err = stdout.getvalue(), stderr.getvalue()
        return code

    def json(self, *arguments: str) -> Any:
        assert self.type(*arguments, "--json") == 0, self.err
        return json.loads(self.out)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    fake = FakeManagers()
    path = tmp_path / "admin.sock"
    with served(fake, path):
        yield Shell(path, fake)


def test_drive_list_says_who_may_be_claimed_and_why_not(shell: Shell) -> None:
    assert shell.type("drive", "list") == 0
    lines = shell.out.splitlines()
    assert lines[0].split() == ["IDENTITY", "SIZE", "KIND", "NOW", "AT", "STATE", "WHY"]
    assert "ata-ONE_S1" in lines[1]
    assert "4.0 TB" in lines[1]
    assert "claimable" in lines[1]
    assert 'labelled "old [bold]data" (--force-serial S2 would destroy it)' in lines[2]
    assert "Next: appliance drive claim ata-ONE_S1" in shell.out
    assert "\x1b" not in shell.out


def test_a_narrow_terminal_gets_paragraphs_instead_of_squeezed_columns(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    shell.terminal = True
    monkeypatch.setenv("COLUMNS", "50")
    assert shell.type("drive", "list") == 0
    lines = [line.rstrip() for line in shell.out.splitlines()]
    assert "\x1b[1mata-ONE_S1\x1b[0m" in lines
    assert "    SIZE    4.0 TB" in lines
    assert "    STATE   claimable" in lines
    assert max(map(len, lines[:-1])) <= 50
    assert not any("IDENTITY" in line for line in lines)
    monkeypatch.setenv("COLUMNS", "200")
    assert shell.type("drive", "list") == 0
    assert "IDENTITY" in shell.out.splitlines()[0]


def test_colours_only_on_a_terminal(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shell.terminal = True
    assert shell.type("drive", "list") == 0
    assert "\x1b[" in shell.out


@pytest.mark.parametrize(
    ("arguments", "first_key"),
    [
        (("drive", "list"), "drive"),
        (("mirror", "status"), "name"),
        (("account", "list"), "name"),
        (("bucket", "list"), "name"),
    ],
)
def test_lists_as_json(shell: Shell, arguments: tuple[str, ...], first_key: str) -> None:
    items = shell.json(*arguments)
    assert isinstance(items, list)
    assert first_key in items[0]


def test_json_may_stand_in_front_of_the_noun(shell: Shell) -> None:
    assert shell.type("--json", "status") == 0
    assert json.loads(shell.out)["summary"].startswith("mirror m0")


def test_claim_follows_its_job_and_says_what_comes_next(shell: Shell) -> None:
    assert shell.type("drive", "claim", "ata-ONE_S1", "--force-serial", "S1") == 0
    assert shell.fake.claims == [("ata-ONE_S1", "S1")]
    assert "claim ata-ONE_S1: wiping" in shell.err
    assert "Claimed ata-ONE_S1 (drive id d1)." in shell.out
    assert "Next: claim a second drive" in shell.out


def test_claim_of_the_second_drive_leads_to_the_mirror(shell: Shell) -> None:
    first = replace(FREE, state=DriveState.CLAIMED)
    second = replace(first, drive=replace(FREE.drive, identity="ata-TWO_S2"))
    shell.fake.drives = [first, second]
    assert shell.type("drive", "claim", "ata-TWO_S2") == 0
    assert "Next: appliance mirror create ata-ONE_S1 ata-TWO_S2" in shell.out


def test_claim_shows_a_bar_on_a_terminal(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    shell.terminal = True
    assert shell.type("drive", "claim", "ata-ONE_S1") == 0
    assert "wiping" in shell.err
    assert "Claimed" in shell.out


def test_claim_as_json_is_one_document(shell: Shell) -> None:
    assert shell.json("drive", "claim", "ata-ONE_S1")["result"] == "d1"
    assert shell.err == ""


def test_a_failed_job_is_an_error(shell: Shell) -> None:
    shell.fake.job_states = [
        RUNNING,
        Job("j1", "claim ata-ONE_S1", JobState.FAILED, error="drive S1: format failed"),
    ]
    assert shell.type("drive", "claim", "ata-ONE_S1") == main.EXIT_FAILED
    assert shell.err.splitlines()[-1] == ("error: cannot claim ata-ONE_S1: drive S1: format failed")


@pytest.mark.parametrize(
    ("typed", "created"),
    [(("A", "B"), ("m1", ("A", "B"))), (("archive", "A", "B"), ("archive", ("A", "B")))],
)
def test_mirror_create_with_and_without_a_name(
    shell: Shell, typed: tuple[str, ...], created: tuple[str, tuple[str, ...]]
) -> None:
    assert shell.type("mirror", "create", *typed) == 0
    assert shell.fake.created == [created]
    assert "Next: appliance account create" in shell.out


@pytest.mark.parametrize("typed", [(), ("A",), ("n", "A", "B", "C")])
def test_mirror_create_takes_two_drives(shell: Shell, typed: tuple[str, ...]) -> None:
    assert shell.type("mirror", "create", *typed) == main.EXIT_USAGE
    assert shell.fake.created == []
    assert "Usage: appliance mirror create" in shell.err


def test_mirror_status_shows_the_latest_alerts(shell: Shell) -> None:
    alerts = tuple(Alert(number * 10**9, f"alert [{number}]") for number in range(1, 8))
    shell.fake.mirrors = [replace(MIRROR, alerts=alerts)]
    assert shell.type("mirror", "status") == 0
    shown = [line.strip() for line in shell.out.splitlines() if "alert [" in line]
    assert shown == [f"1970-01-01 00:00:0{n} UTC  alert [{n}]" for n in range(3, 8)]
    (told,) = shell.json("mirror", "status")
    assert len(told["alerts"]) == 7


def test_mirror_status_shows_missing_and_resyncing(shell: Shell) -> None:
    gone = replace(MIRROR.members[1], present=False, in_sync=False)
    shell.fake.mirrors = [
        replace(
            MIRROR,
            state="degraded",
            reason="drive S2 is missing",
            members=(MIRROR.members[0], gone),
            resync_done=25,
            resync_total=100,
            resync_eta_s=90.0,
        )
    ]
    assert shell.type("mirror", "status", "m0") == 0
    assert "m0  degraded  drive S2 is missing" in shell.out
    assert "missing" in shell.out
    assert "resync 25 % (25 B of 100 B)  about 1 min left" in shell.out
    assert shell.type("mirror", "status", "m7") == 3
    assert "there are: m0" in shell.err


def test_mirror_resync_ends_when_the_mirror_is_in_sync(shell: Shell) -> None:
    assert shell.type("mirror", "resync") == 0
    assert "m0: in sync" in shell.err
    assert "in sync" in shell.out
    shell.fake.mirrors = []
    assert shell.type("mirror", "resync") == 3


def test_mirror_resync_is_paused_and_resumed(shell: Shell) -> None:
    assert shell.type("mirror", "resync", "m0", "--pause") == 0
    assert "paused" in shell.out
    assert shell.json("mirror", "resync", "--resume")[0]["name"] == "m0"
    assert shell.fake.orders == [("pause", "m0"), ("resume", "m0")]


def test_mirror_resync_does_not_wait_for_one_that_is_paused(shell: Shell) -> None:
    shell.fake.mirrors = [
        replace(
            MIRROR,
            state="resyncing",
            resync_drive="d2",
            resync_done=25,
            resync_total=100,
            resync_paused=True,
            unreadable=("3 of contract-1",),
        )
    ]
    assert shell.type("mirror", "resync") == 0
    assert "resync paused at 25 %" in shell.out
    assert "no drive could give these records: 3 of contract-1" in shell.out


def test_mirror_replace_follows_its_job(shell: Shell) -> None:
    joining = replace(MIRROR.members[1], drive_id="d3", in_sync=False, role="joining")
    outgoing = replace(MIRROR.members[1], role="outgoing")
    shell.fake.mirrors = [replace(MIRROR, members=(MIRROR.members[0], outgoing, joining))]
    assert shell.type("mirror", "replace", "m0", "S2", "S3") == 0
    assert shell.fake.orders == [("replace", "m0", "S2", "S3")]
    assert "Replaced S2 by S3 in mirror m0" in shell.out
    assert "in sync, outgoing" in shell.out
    assert "joining" in shell.out
    shell.fake.error = errors.Refused("cannot use S3: it is too small")
    assert shell.type("mirror", "replace", "m0", "S2", "S3") == 4


def test_mirror_spares(shell: Shell) -> None:
    spare = replace(MIRROR.members[1], drive_id="d3", in_sync=False, role="spare")
    shell.fake.mirrors = [replace(MIRROR, members=(*MIRROR.members, spare))]
    assert shell.type("mirror", "spare", "add", "m0", "S3") == 0
    assert "spare" in shell.out
    assert shell.json("mirror", "spare", "remove", "m0", "S3")["name"] == "m0"
    assert shell.fake.orders == [("add spare", "m0", "S3"), ("remove spare", "m0", "S3")]


def test_account_create_shows_the_secret_once(shell: Shell) -> None:
    assert shell.type("account", "create", "office") == 0
    assert "SECRET1" in shell.out
    assert "not shown again" in shell.out
    assert shell.json("account", "create", "office")["secret_key"] == "SECRET1"
    assert shell.type("account", "list") == 0
    assert "SECRET1" not in shell.out
    assert "frozen" in shell.out


def test_status_and_its_check(shell: Shell) -> None:
    assert shell.type("status", "--check") == 0
    assert "https://s3.example.test:443" in shell.out
    assert "control" in shell.out
    assert "job claim ata-ONE_S1: wiping" in shell.out


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (errors.InvalidInput("x"), 2),
        (errors.NotFound("x"), 3),
        (errors.Refused("x"), 4),
        (errors.Unreachable("x"), 5),
        (errors.NoSpace("x"), 6),
        (errors.DriveFault("S1", "write", 5), 1),
        (RuntimeError("bug"), 1),
    ],
)
def test_exit_codes(shell: Shell, raised: Exception, code: int) -> None:
    shell.fake.error = raised
    assert shell.type("drive", "list") == code
    assert shell.err.startswith("error: ")
    assert shell.out == ""
    assert "Traceback" not in shell.err


def test_a_bug_of_the_command_line_is_one_sentence() -> None:
    def broken(path: Path) -> Any:
        raise ZeroDivisionError("division by zero")

    stderr = io.StringIO()
    context = Context(output=Output(stderr=stderr), make_client=broken)
    assert main.run(["status"], context) == main.EXIT_UNEXPECTED
    assert stderr.getvalue().count("\n") == 1
    assert "ZeroDivisionError" in stderr.getvalue()


def test_nobody_there_says_what_to_start(tmp_path: Path) -> None:
    away = Shell(tmp_path / "none.sock", FakeManagers())
    assert away.type("status") == 5
    assert "systemctl start appliance.target" in away.err


@pytest.mark.parametrize("noun", ["drive", "mirror", "account", "bucket"])
def test_help_teaches_with_examples(shell: Shell, noun: str) -> None:
    group = main.appliance.commands[noun]
    for verb in group.commands:  # type: ignore[attr-defined]
        command = group.commands[verb]  # type: ignore[attr-defined]
        assert "Examples:" in (command.help or ""), f"{noun} {verb}"
        assert f"appliance {noun} {verb}" in command.help


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_program(shell_name: str, capsys: Any) -> None:
    assert main.run(["completion", shell_name], Context(output=Output())) == 0
    assert "_APPLIANCE_COMPLETE" in capsys.readouterr().out


def test_identities_are_completed(shell: Shell, tmp_path: Path) -> None:
    def offered(socket: Path, typed: str) -> list[str]:
        command = main.appliance.commands["drive"]
        with command.make_context("drive", ["list"], obj=Context(socket=socket)) as context:
            return complete_identity(context, click.Argument(["identity"]), typed)

    assert offered(shell.path, "ata-T") == ["ata-TWO_S2"]
    assert offered(tmp_path / "none.sock", "ata-T") == []


def test_dev_becomes_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr(cmd_dev, "become", became.append)
    typed = "dev --state /tmp/x --drive /a --drive /b --port 0 --plain-http 8080"
    typed += " --accounts main,alt --ready-file /tmp/r"
    assert main.run(typed.split(), Context(output=Output())) == 0
    assert became == [[sys.executable, "-m", "appliance.daemon", *typed.split()]]


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    program = "from appliance.cli.main import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", program, "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": ""},
        cwd=Path(__file__).parents[3],
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (5.2, "about 5 s left"),
        (90.0, "about 1 min left"),
        (8000.0, "about 2 h 13 min left"),
    ],
)
def test_estimates_as_people_say_them(seconds: float | None, text: str) -> None:
    assert eta(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (5000, "5 kB"), (536870912, "536.9 MB"), (4 * 10**12, "4.0 TB")],
)
def test_sizes_as_on_the_label(count: int, text: str) -> None:
    assert size(count) == text
