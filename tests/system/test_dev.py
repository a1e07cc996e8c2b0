"""The whole service in development: it starts, serves, stops, continues, and survives kills."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from botocore.exceptions import ClientError

from tests.development import PROJECT, Service, development_service

DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for the tests that leave it as they found it."""
    home = tmp_path_factory.mktemp("dev")
    with development_service(
        home, accounts="main,alt,tenant", options=["--plain-http", "0"]
    ) as running:
        yield running


def _eventually(what: str, holds: Callable[[], bool]) -> None:
    """Fail unless ``holds`` comes true within the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not come true in {DEADLINE_S} s"
        time.sleep(0.02)


def _told(service: Service) -> dict[str, Any]:
    """What the ready file says now."""
    told: dict[str, Any] = json.loads((service.log.parent / "ready.json").read_text())
    return told


def _is_back(service: Service, role: str, before: object) -> bool:
    return bool(_told(service)["pids"][role] != before)


def test_objects_come_back_over_https_and_http(service: Service) -> None:
    client = service.client()
    bucket = service.main.bucket
    assert [each["Name"] for each in client.list_buckets()["Buckets"]] == [bucket]
    client.put_object(Bucket=bucket, Key="a/b c+ü", Body=b"hello")
    assert client.get_object(Bucket=bucket, Key="a/b c+ü")["Body"].read() == b"hello"
    assert service.plain_endpoint is not None
    plain = service.client(endpoint=service.plain_endpoint)
    assert plain.get_object(Bucket=bucket, Key="a/b c+ü")["Body"].read() == b"hello"
    large = os.urandom(3_000_000)
    plain.put_object(Bucket=bucket, Key="large", Body=large)
    assert client.get_object(Bucket=bucket, Key="large")["Body"].read() == large


def test_accounts_do_not_see_each_other(service: Service) -> None:
    assert list(service.accounts) == ["main", "alt", "tenant"]
    for name in ("alt", "tenant"):
        other = service.client(service.accounts[name])
        with pytest.raises(ClientError) as caught:
            other.list_objects_v2(Bucket=service.main.bucket)
        assert caught.value.response["Error"]["Code"] == "AccessDenied"
        own = service.accounts[name].bucket
        assert [each["Name"] for each in other.list_buckets()["Buckets"]] == [own]


def test_the_ready_file_tells_everything_and_only_to_its_owner(service: Service) -> None:
    file = service.log.parent / "ready.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    told = _told(service)
    assert set(told) == {
        "endpoint", "plain_endpoint", "region", "ca_file", "pids", "accounts",
    }  # fmt: skip
    pids = told["pids"]
    for pid in (pids["control"], pids["store"], *pids["gateways"]):
        assert psutil.Process(pid).ppid() == service.process.pid
    log = service.log.read_text()
    assert "APPLIANCE-RECOVERY-1-" in log
    assert "aws --endpoint-url" in log


def test_the_printed_line_works_when_pasted(service: Service) -> None:
    [line] = [each for each in service.log.read_text().splitlines() if " s3 ls" in each]
    done = subprocess.run(
        ["/bin/bash", "-c", line], capture_output=True, text=True, check=False,
        env={"PATH": f"{PROJECT}/.venv/bin:/usr/bin:/bin", "HOME": str(service.log.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert service.main.bucket in done.stdout


def _status(service: Service) -> dict[str, Any]:
    """What ``appliance status`` says."""
    socket_path = service.log.parent / "state/run/admin.sock"
    if not socket_path.exists():
        [line] = [each for each in service.log.read_text().splitlines() if "admin.sock" in each]
        socket_path = Path(line.split("APPLIANCE_SOCKET=")[1].split()[0])
    done = subprocess.run(
        [str(PROJECT / ".venv/bin/appliance"), "--json", "status"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "APPLIANCE_SOCKET": str(socket_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    status: dict[str, Any] = json.loads(done.stdout)
    return status


def test_the_command_line_sees_a_healthy_appliance(service: Service) -> None:
    status = _status(service)
    assert status["healthy"], status
    assert status["endpoint"] == service.endpoint
    assert [mirror["state"] for mirror in status["mirrors"]] == ["in sync"]


def test_all_processes_together_stay_small(service: Service) -> None:
    root = psutil.Process(service.process.pid)
    processes = [root, *root.children(recursive=True)]
    resident = {
        " ".join(each.cmdline()[3:5]): each.memory_info().rss // 2**20 for each in processes
    }
    print(f"resident MiB: {resident}")
    assert sum(resident.values()) <= 400


def test_everything_is_there_after_a_second_start(tmp_path: Path) -> None:
    with development_service(tmp_path) as first:
        first.client().put_object(Bucket=first.main.bucket, Key="kept", Body=b"kept")
        ca = first.ca_file.read_bytes()
    assert not (tmp_path / "ready.json").exists()
    with development_service(tmp_path) as second:
        assert second.main == first.main
        assert second.ca_file.read_bytes() == ca
        found = second.client().get_object(Bucket=second.main.bucket, Key="kept")
        assert found["Body"].read() == b"kept"
        assert second.log.read_text().count("APPLIANCE-RECOVERY-1-") == 1


def test_a_new_machine_needs_the_drives_and_the_master_key_alone(tmp_path: Path) -> None:
    with development_service(tmp_path / "old") as old:
        old.client().put_object(Bucket=old.main.bucket, Key="kept", Body=b"kept")
        ca = old.ca_file.read_bytes()
    new = tmp_path / "new/state"
    new.mkdir(parents=True)
    for name in ("drives", "master.key"):
        (tmp_path / "old/state" / name).rename(new / name)
    with development_service(tmp_path / "new") as service:
        assert service.main == old.main
        assert service.ca_file.read_bytes() == ca
        found = service.client().get_object(Bucket=service.main.bucket, Key="kept")
        assert found["Body"].read() == b"kept"


def test_a_stop_finishes_what_is_in_flight(tmp_path: Path) -> None:
    """Half a body is sent, then SIGTERM comes; the upload still ends well, and is kept."""
    body = os.urandom(4_000_000)
    half = len(body) // 2
    with development_service(tmp_path) as service:
        url = urlsplit(
            service.client(signature_version="s3v4").generate_presigned_url(
                "put_object", Params={"Bucket": service.main.bucket, "Key": "slow"}
            )
        )
        trust = ssl.create_default_context(cafile=str(service.ca_file))
        assert url.hostname is not None
        connection = http.client.HTTPSConnection(
            url.hostname, url.port, context=trust, timeout=DEADLINE_S
        )
        connection.putrequest("PUT", f"{url.path}?{url.query}")
        connection.putheader("Content-Length", str(len(body)))
        connection.putheader("Expect", "100-continue")
        connection.endheaders()
        assert connection.sock is not None
        # The interim answer proves that the request is under way.
        interim = b"HTTP/1.1 100 Continue\r\n\r\n"
        assert connection.sock.recv(len(interim)) == interim
        connection.send(body[:half])
        service.process.send_signal(signal.SIGTERM)
        _eventually("the ready file is gone", lambda: not (tmp_path / "ready.json").exists())
        connection.send(body[half:])
        answer = connection.getresponse()
        assert answer.status == 200
        answer.read()
        connection.close()
        assert service.process.wait(DEADLINE_S) == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((url.hostname, url.port), timeout=5)
    with development_service(tmp_path) as service:
        found = service.client().get_object(Bucket=service.main.bucket, Key="slow")
        assert found["Body"].read() == body


@pytest.mark.parametrize("role", ["store", "gateways", "control"])
def test_a_killed_role_is_back_by_itself(service: Service, role: str) -> None:
    client = service.client()
    bucket = service.main.bucket
    client.put_object(Bucket=bucket, Key=f"before {role}", Body=b"1")
    before = _told(service)["pids"][role]
    for pid in before if isinstance(before, list) else [before]:
        os.kill(pid, signal.SIGKILL)
    client.put_object(Bucket=bucket, Key=f"after {role}", Body=b"2")
    for key, body in ((f"before {role}", b"1"), (f"after {role}", b"2")):
        assert client.get_object(Bucket=bucket, Key=key)["Body"].read() == body
    assert _told(service)["endpoint"] == service.endpoint
    _eventually(
        "the ready file names the new process", lambda: _told(service)["pids"][role] != before
    )


def test_ports_stay_when_everything_that_holds_them_was_killed(service: Service) -> None:
    for role in ("control", "gateways"):
        before = _told(service)["pids"][role]
        for pid in before if isinstance(before, list) else [before]:
            os.kill(pid, signal.SIGKILL)
        _eventually(f"{role} is back", partial(_is_back, service, role, before))
        service.client().list_buckets()
    _eventually("the appliance is healthy", lambda: bool(_status(service)["healthy"]))


def test_a_missing_drive_is_done_without_and_brought_up_to_date_when_it_is_back(
    tmp_path: Path,
) -> None:
    drive, away = tmp_path / "state/drives/b", tmp_path / "away"
    with development_service(tmp_path) as service:
        service.client().put_object(Bucket=service.main.bucket, Key="both", Body=b"1")
    drive.rename(away)
    with development_service(tmp_path) as service:
        client = service.client()
        assert [mirror["state"] for mirror in _status(service)["mirrors"]] == ["degraded"]
        client.put_object(Bucket=service.main.bucket, Key="one", Body=b"2")
        drive.rmdir()
        away.rename(drive)
        service.process.send_signal(signal.SIGHUP)
        _eventually("the mirror is in sync", lambda: bool(_status(service)["healthy"]))
        _eventually("it is told", lambda: "mirror m0 is in sync again" in service.log.read_text())
        assert service.log.read_text().count("warning: mirror m0 is degraded: drive ") == 1
        for key, body in (("both", b"1"), ("one", b"2")):
            found = client.get_object(Bucket=service.main.bucket, Key=key)
            assert found["Body"].read() == body


def test_a_new_certificate_is_shown_without_dropping_a_connection(service: Service) -> None:
    trust = ssl.create_default_context(cafile=str(service.ca_file))
    port = int(service.endpoint.rsplit(":", 1)[1])

    def shown() -> bytes:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
            trust.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            certificate = connection.getpeercert(binary_form=True)
        assert certificate is not None
        return certificate

    before = shown()
    standing = http.client.HTTPSConnection("localhost", port, context=trust, timeout=DEADLINE_S)
    standing.request("GET", "/")
    assert standing.getresponse().read()
    sock = standing.sock
    (service.ca_file.parent / "server.pem").unlink()
    service.process.send_signal(signal.SIGHUP)
    # Each gateway has its own copy: as many in a row as make an old one unlikely.
    _eventually("the new certificate", lambda: all(shown() != before for _ in range(12)))
    standing.request("GET", "/")
    assert standing.getresponse().read()
    assert standing.sock is sock
    standing.close()


def test_the_end_of_the_supervisor_ends_its_children(tmp_path: Path) -> None:
    with development_service(tmp_path) as service:
        children = psutil.Process(service.process.pid).children(recursive=True)
        assert len(children) >= 3
        service.process.kill()
        _, alive = psutil.wait_procs(children, timeout=DEADLINE_S)
        assert not alive
