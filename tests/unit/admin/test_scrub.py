"""``appliance mirror scrub`` in front of a real API with a fake manager."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.core.errors import NotFound, Refused
from appliance.core.scrubs import ScrubOrder, ScrubReport, ScrubState
from tests.unit.admin.fakes import MIRROR, SCRUBBED, SCRUBBING, FakeManagers
from tests.unit.admin.serving import served
from tests.unit.admin.test_cli import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "admin.sock", FakeManagers())


def test_it_begins_one_on_the_first_mirror_and_says_how_to_follow_it(shell: Shell) -> None:
    with served(shell.fake, shell.path):
        assert shell.type("mirror", "scrub") == 0
    assert shell.fake.scrub_orders == [("m0", ScrubOrder.START)]
    assert "m0  scrub running 25 % (25.0 GB of 100.0 GB), about 3 min left" in shell.out
    assert "Follow it with: appliance mirror scrub m0 --show --wait" in shell.out


@pytest.mark.parametrize("order", [ScrubOrder.PAUSE, ScrubOrder.RESUME, ScrubOrder.CANCEL])
def test_it_passes_on_what_the_operator_wants(shell: Shell, order: ScrubOrder) -> None:
    with served(shell.fake, shell.path):
        assert shell.type("mirror", "scrub", "m7", f"--{order.value}") == 0
    assert shell.fake.scrub_orders == [("m7", order)]


def test_looking_begins_none(shell: Shell) -> None:
    shell.fake.scrubs = [SCRUBBED]
    with served(shell.fake, shell.path):
        assert shell.type("mirror", "scrub", "m0", "--show", "--wait") == 0
    assert {order for _, order in shell.fake.scrub_orders} == {ScrubOrder.LOOK}
    assert "lost an object in bucket acme-[1] (contract c1, record 7)" in shell.out
    assert "Follow it with" not in shell.out


@pytest.mark.parametrize("terminal", [False, True])
def test_waiting_follows_it_to_the_end_and_tells_what_was_found(
    shell: Shell, terminal: bool
) -> None:
    assert SCRUBBING.current is not None
    half = replace(SCRUBBING.current, done_bytes=50 * 10**9)
    shell.fake.scrubs = [SCRUBBING, SCRUBBING, replace(SCRUBBING, current=half), SCRUBBED]
    shell.terminal = terminal
    with served(shell.fake, shell.path):
        assert shell.type("mirror", "scrub", "m0", "--wait") == 0
    assert "50 %" in shell.err
    if terminal:
        return
    ended = time.strftime("%Y-%m-%d %H:%M", time.localtime(0))
    assert f"scrub finished {ended} after 3 h: 3 bad, 2 repaired, 1 unrepairable" in shell.out
    assert "index proven equal to the log" in shell.out
    assert "lost an object in bucket acme-[1] (contract c1, record 7)" in shell.out
    assert "and 3 more" in shell.out
    assert "next in 20 days" in shell.out
    rows = [line.split() for line in shell.out.splitlines() if line.startswith("  d")]
    assert rows == [
        ["d1", "100.0", "GB", "1", "0", "0", "0", "0", "1", "0"],
        ["d2", "100.0", "GB", "0", "0", "2", "0", "0", "1", "1"],
    ]


def test_waiting_ends_when_it_is_paused(shell: Shell) -> None:
    assert SCRUBBING.current is not None
    paused = replace(SCRUBBING.current, state=ScrubState.PAUSED)
    shell.fake.scrubs = [SCRUBBING, replace(SCRUBBING, current=paused)]
    with served(shell.fake, shell.path):
        assert shell.type("mirror", "scrub", "--wait") == 0
    assert "scrub paused 25 %" in shell.out


def test_json_is_the_report(shell: Shell) -> None:
    shell.fake.scrubs = [SCRUBBED]
    with served(shell.fake, shell.path):
        document = shell.json("mirror", "scrub", "m0")
    assert document["last"]["drives"][1]["unrepairable"] == 1
    assert document["next_in_s"] == 20 * 86_400.0


def test_refusals_are_told(shell: Shell) -> None:
    shell.fake.error = Refused("there is no scrub under way")
    with served(shell.fake, shell.path):
        assert shell.type("mirror", "scrub", "m0", "--pause") != 0
        assert "there is no scrub under way" in shell.err
        shell.fake.error = NotFound("cannot find the mirror 'm9'")
        assert shell.type("mirror", "scrub", "m9") != 0
        assert "m9" in shell.err
        shell.fake.error = None
        shell.fake.mirrors = []
        assert shell.type("mirror", "scrub") != 0
    assert "there is no mirror" in shell.err


@pytest.mark.parametrize(
    ("report", "text"),
    [
        (ScrubReport("m0"), "never scrubbed"),
        (SCRUBBING, "scrub running 25 %"),
        (SCRUBBED, "3 bad, 2 repaired, 1 unrepairable"),
    ],
)
def test_the_mirror_status_tells_of_it(shell: Shell, report: ScrubReport, text: str) -> None:
    shell.fake.mirrors = [replace(MIRROR, scrub=report)]
    with served(shell.fake, shell.path):
        assert shell.type("mirror", "status") == 0
        assert text in shell.out
        if report is SCRUBBED:
            assert "`appliance mirror scrub m0 --show` for what is lost" in shell.out
        document = shell.json("mirror", "status")
    assert document[0]["scrub"]["mirror"] == "m0"
