"""Somebody sets the machine's clock seventy years ahead, and back again: the whole appliance on two
XFS drives, running and over restarts."""

from __future__ import annotations

import datetime
from pathlib import Path
from random import Random
from typing import Final

import botocore.auth
import botocore.crt.auth
import pytest
from botocore.exceptions import ClientError, SSLError

from tests.system.another_day import set_clock
from tests.system.drives import until
from tests.system.workbench import Workbench, workbench

pytestmark = [pytest.mark.timeout(300), pytest.mark.needs("mkfs.xfs", "losetup")]
AHEAD_S: Final = 70 * 365 * 86_400
LARGE_BYTES: Final = 1_500_000


def _clients_clock(monkeypatch: pytest.MonkeyPatch, ahead_s: int) -> None:
    """The customer's machine signs with this time."""

    def now(*, remove_tzinfo: bool = True) -> datetime.datetime:
        found = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=ahead_s)
        return found.replace(tzinfo=None) if remove_tzinfo else found

    for signing in (botocore.auth, botocore.crt.auth):
        monkeypatch.setattr(signing, "get_current_datetime", now)


def _blobs(bench: Workbench) -> list[set[str]]:
    return [{each.name for each in (root / "blob").rglob("*.*")} for root in bench.roots]


def _code(bench: Workbench) -> str:
    with pytest.raises(ClientError) as caught:
        bench.put("with another clock")
    return str(caught.value.response["Error"]["Code"])


def test_seventy_years_ahead_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "machine"
    home.mkdir()
    set_clock(home, 0)
    with workbench(tmp_path, program="tests.system.another_day") as bench:
        rng = Random(1)
        for key, size_bytes in {"small": 900, "large": LARGE_BYTES, "gone": LARGE_BYTES}.items():
            bench.put(key, rng.randbytes(size_bytes))
        bench.delete("gone")
        _while_it_runs(bench, monkeypatch)
        _over_a_restart(bench)
        _back_again(bench, monkeypatch)


def _while_it_runs(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _blobs(bench)
    set_clock(bench.machine.home, AHEAD_S)
    alerts: list[str] = []

    def told() -> bool:
        alerts[:] = [each["text"] for each in bench.machine.mirror()["alerts"]]
        return any("clock was set 25550 days ahead" in text for text in alerts)

    until(told, "the operator to be told")
    assert _code(bench) == "RequestTimeTooSkewed"
    _clients_clock(monkeypatch, AHEAD_S)
    bench.check()
    bench.put("of that day", Random(2).randbytes(LARGE_BYTES))
    bench.check()
    assert all(then <= now for then, now in zip(before, _blobs(bench), strict=True))
    assert bench.machine.mirror()["state"] == "in sync"


def _over_a_restart(bench: Workbench) -> None:
    """What nobody owns any more keeps its grace. Customers whose clocks are right do not take the
    certificate that was made on that day, until the clock is right again."""
    before = _blobs(bench)
    bench.power_cut()
    bench.start("a", "b")
    bench.becomes("in sync")
    until(bench.machine.serves, "the appliance to serve")
    with pytest.raises(SSLError, match="not yet valid"):
        bench.get("small")
    assert _blobs(bench) == before


def _back_again(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _blobs(bench)
    bench.machine.stop_all()
    set_clock(bench.machine.home, 0)
    _clients_clock(monkeypatch, 0)
    bench.start("a", "b")
    bench.becomes("in sync")
    bench.check()
    bench.put("today")
    bench.check()
    assert _blobs(bench) == before
    report = bench.machine.json("mirror", "scrub", "m0", "--wait")
    assert report["last"]["index"] == "proven equal to the log"
