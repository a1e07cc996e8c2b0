"""The admin API over a real unix socket, through the real client and through raw requests."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from appliance.api.routes import BODY_BYTES_MAX, ROUTES
from appliance.api.server import CODES, AdminServer
from appliance.client.admin import Client
from appliance.core import errors
from appliance.core.decisions import Choice
from tests.unit.admin.fakes import FREE, FULL, MIRROR, STATUS, FakeManagers, Unforeseen
from tests.unit.admin.serving import served


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "admin.sock"


def raw(path: Path, method: str, target: str, body: bytes | None = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("appliance")
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.connect(str(path))
    try:
        connection.request(method, target, body=body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_every_route_answers_the_client(path: Path) -> None:
    fake = FakeManagers()
    with served(fake, path):
        client = Client(path)
        assert client.status() == STATUS
        assert client.drives() == [FREE, FULL]
        assert client.claim_drive("ata-ONE_S1", force_serial="S1").id == "j1"
        assert client.mirrors() == [MIRROR]
        assert client.create_mirror("m0", ["A", "B"]) == MIRROR
        assert client.replace_drive("m0", "S2", "S3").id == "j1"
        assert client.add_spare("m0", "S3") == MIRROR
        assert client.remove_spare("m0", "S3") == MIRROR
        assert client.pause_resync("m0", paused=True) == MIRROR
        assert client.pause_resync("m0", paused=False) == MIRROR
        assert [job.id for job in client.jobs()] == ["j1"]
        assert client.job("j1").step == "wiping"
        assert [each.frozen for each in client.accounts()] == [False, True]
        assert client.create_account("office").secret_key == "SECRET1"
        assert client.buckets()[0].owner == "office"
    assert fake.claims == [("ata-ONE_S1", "S1")]
    assert fake.created == [("m0", ("A", "B"))]
    assert fake.orders == [
        ("replace", "m0", "S2", "S3"),
        ("add spare", "m0", "S3"),
        ("remove spare", "m0", "S3"),
        ("pause", "m0"),
        ("resume", "m0"),
    ]


def test_the_socket_is_private_and_goes_with_the_server(path: Path) -> None:
    with served(FakeManagers(), path):
        mode = path.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
    assert not path.exists()


def test_a_socket_left_by_a_crash_is_replaced_and_a_live_one_is_not(path: Path) -> None:
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(path))
    left.close()
    with served(FakeManagers(), path):
        second = AdminServer(FakeManagers().managers(), path)
        with pytest.raises(errors.Unreachable, match="another process serves it"):
            asyncio.run(second.start())
        assert Client(path).status() == STATUS


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (errors.InvalidInput("wrong value"), errors.InvalidInput),
        (errors.NotFound("no such drive"), errors.NotFound),
        (errors.Refused("it is mounted"), errors.Refused),
        (errors.Unreachable("mkfs.xfs is not installed"), errors.Unreachable),
        (errors.NoSpace("full"), errors.NoSpace),
        (errors.ReadOnly("read-only now"), errors.Unreachable),
        (errors.Unavailable("restarting"), errors.Unreachable),
        (errors.DriveFault("S1", "write", 5, "EIO"), errors.ApplianceError),
        (Unforeseen("something else"), errors.ApplianceError),
    ],
)
def test_an_error_arrives_as_its_class_with_its_sentence(
    path: Path, raised: errors.ApplianceError, seen: type[errors.ApplianceError]
) -> None:
    with served(FakeManagers(error=raised), path), pytest.raises(seen) as caught:
        Client(path).drives()
    assert str(caught.value) == str(raised)


def test_a_bug_is_a_sentence_without_its_details(path: Path) -> None:
    with served(FakeManagers(error=RuntimeError("secret detail")), path):
        status, body = raw(path, "GET", "/v1/drives")
    assert status == 500
    assert body["error"]["code"] == "failed"
    assert "secret detail" not in json.dumps(body)


def test_every_class_has_a_code_and_the_base_comes_last() -> None:
    kinds = [kind for kind, _, _ in CODES]
    assert kinds[-1] is errors.ApplianceError
    for place, kind in enumerate(kinds):
        assert not any(issubclass(later, kind) for later in kinds[place + 1 :] if later != kind)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "'identity' is missing"),
        (b'{"identity": 3}', "not a str"),
        (b'{"identity": null}', "'identity' is missing"),
        (b'{"identity": "x", "force": "y"}', "unknown field 'force'"),
        (b'{"identity": "x", "force_serial": 1}', "not a str"),
    ],
)
def test_a_wrong_body_is_refused_by_name(path: Path, body: bytes, complaint: str) -> None:
    fake = FakeManagers()
    with served(fake, path):
        status, answer = raw(path, "POST", "/v1/drives/claim", body)
    assert status == 400
    assert complaint in answer["error"]["message"]
    assert fake.claims == []


def test_drives_of_a_mirror_are_identities(path: Path) -> None:
    fake = FakeManagers()
    with served(fake, path):
        status, _ = raw(path, "POST", "/v1/mirrors", b'{"name": "m0", "drives": [1, 2]}')
    assert (status, fake.created) == (400, [])


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/drives", 404),
        ("DELETE", "/v1/drives", 405),
        ("GET", "/v2/drives", 404),
    ],
)
def test_what_is_not_in_the_table_is_refused(
    path: Path, method: str, target: str, status: int
) -> None:
    with served(FakeManagers(), path):
        got, answer = raw(path, method, target)
    assert got == status
    assert answer["error"]["code"] == "no-such-route"


def test_a_body_over_the_limit_is_refused(path: Path) -> None:
    with served(FakeManagers(), path):
        status, answer = raw(path, "POST", "/v1/drives/claim", b" " * (BODY_BYTES_MAX + 1))
    assert status == 413
    assert answer["error"]["message"]


def test_nobody_serves(path: Path) -> None:
    with pytest.raises(errors.Unreachable, match="nobody serves"):
        Client(path).status()


def test_whoever_serves_something_else_is_told_apart(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        client = Client(path, timeout_s=0.2)
        with pytest.raises(errors.Unreachable, match="cannot talk to the appliance"):
            client.status()


def test_changing_routes_need_more_than_reading() -> None:
    for route in ROUTES:
        assert (route.access.value == "operate") == (route.method != "GET")


def test_the_journal_has_who_changed_what(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="appliance.api.server"):
        with served(FakeManagers(), path):
            Client(path).resolve_mirror("m0", Choice.KEEP, drive="d1\nuser 0")
            Client(path).mirrors()
        with served(FakeManagers(error=errors.Refused("no")), path), pytest.raises(errors.Refused):
            Client(path).resolve_mirror("m0", Choice.FORCE)
    done, refused = (record.getMessage() for record in caplog.records)
    who = f"user {os.geteuid()} (process {os.getpid()})"
    assert done.startswith(f"{who} asked for POST /v1/mirrors/m0/resolve")
    assert "keep" in done and "\n" not in done and done.endswith(": done")
    assert refused.startswith(who) and refused.endswith(": no")
