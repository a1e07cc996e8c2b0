"""Each guard of the HTTP front, provoked with bytes on a socket."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import logging
import select
import socket

import pytest

from appliance.s3.limits import FrontLimits
from appliance.s3.request import Request
from tests.s3.front_door import CHUNKED, PATIENCE_S, front, request_bytes, still_usable


def waiting_put(headers: dict[str, str]) -> bytes:
    """A request whose answer 100 tells that the server has begun to read the body."""
    return request_bytes("PUT", "/bucket/key", {**headers, "Expect": "100-continue"})


def test_bodies_are_never_decompressed() -> None:
    body = gzip.compress(b"content" * 100)
    with front() as running:
        headers = {"Content-Encoding": "gzip"}
        seen = running.connect().ask(request_bytes("PUT", "/bucket/key", headers, body)).seen
    assert seen["sha256"] == hashlib.sha256(body).hexdigest()


def test_an_idle_connection_is_closed() -> None:
    with front(limits=FrontLimits(idle_s=0.2)) as running:
        silent = running.connect()
        assert silent.closed()
        used = running.connect()
        assert still_usable(used)
        assert used.closed()


def test_a_header_that_dribbles_in_has_the_same_deadline() -> None:
    with front(limits=FrontLimits(idle_s=0.2)) as running:
        client = running.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n")
        assert client.closed()


def test_a_large_unread_body_closes_the_connection_after_the_answer() -> None:
    with front() as running:
        client = running.connect()
        head = request_bytes("PUT", "/bucket?deed=refuse", {"Content-Length": "100000000"})
        answer = client.ask(head + b"x" * 100_000)
        assert (answer.status, answer.code) == (404, "NoSuchBucket")
        assert answer.headers["connection"] == "close"
        assert client.closed()


def test_a_client_that_is_still_sending_can_read_its_refusal() -> None:
    with front(limits=FrontLimits(linger_s=1.5)) as running:
        client = running.connect()
        client.send(request_bytes("PUT", "/?deed=refuse", {"Content-Length": "4000000"}))
        for _ in range(40):
            client.send(b"x" * 100_000)
        assert client.answer().code == "NoSuchBucket"
        assert client.closed()


def test_a_small_unread_body_is_drained_and_the_connection_kept() -> None:
    with front() as running:
        client = running.connect()
        for deed in ("refuse", "unread", "break"):
            head = request_bytes("PUT", f"/?deed={deed}", {"Content-Length": "50000"})
            client.send(head)
            assert "connection" not in client.answer().headers
            client.send(b"x" * 50_000)
            assert still_usable(client)


def test_an_unread_chunked_body_closes_the_connection() -> None:
    with front() as running:
        client = running.connect()
        answer = client.ask(request_bytes("PUT", "/?deed=unread", CHUNKED) + b"3\r\nabc\r\n")
        assert answer.headers["connection"] == "close"
        assert client.closed()


def test_a_disconnect_cancels_the_handler() -> None:
    with front() as running:
        client = running.connect()
        client.send(request_bytes("GET", "/?deed=wait"))
        assert running.echo.entered.wait(PATIENCE_S)
        client.close()
        record = running.wait_for_records(1)[0]
        assert (record.status, record.code) == (0, "ConnectionClosed")
        assert running.echo.outcome == ["cancelled"]


def test_a_disconnect_does_not_cancel_what_the_engine_owns() -> None:
    done: list[str] = []

    async def dispatch(request: Request) -> None:
        async def commit() -> None:
            running.echo.entered.set()
            await running.echo.release.wait()
            done.append("committed")
            running.stopped.set()

        await asyncio.shield(asyncio.get_running_loop().create_task(commit()))

    with front(dispatch=dispatch) as running:
        client = running.connect()
        client.send(request_bytes("PUT", "/bucket/key", {}, b""))
        assert running.echo.entered.wait(PATIENCE_S)
        client.close()
        assert running.wait_for_records(1)[0].code == "ConnectionClosed"
        running.loop.call_soon_threadsafe(running.echo.release.set)
    assert done == ["committed"]


def test_a_body_that_stops_coming_times_out() -> None:
    with front(limits=FrontLimits(body_wait_s=0.2)) as running:
        client = running.connect()
        answer = client.ask(request_bytes("PUT", "/", {"Content-Length": "10"}) + b"abc")
        assert (answer.status, answer.code) == (400, "RequestTimeout")
        assert answer.headers["connection"] == "close"
        assert client.closed()


def test_a_body_that_only_dribbles_times_out() -> None:
    limits = FrontLimits(body_grace_s=0.1, body_min_bytes_per_s=1 << 20)
    with front(limits=limits) as running:
        client = running.connect()
        assert client.ask(waiting_put({"Content-Length": "100000"})).status == 100
        while not select.select([client.socket], [], [], 0.02)[0]:
            client.send(b"x")
        assert client.answer().code == "RequestTimeout"
        assert client.closed()


@pytest.mark.parametrize("chunk", [b"ZZ\r\nabc\r\n", b"3\r\nabcdef\r\n0\r\n\r\n", b"-1\r\n\r\n"])
def test_a_broken_chunk_is_refused_without_waiting_for_the_deadline(
    chunk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with front(limits=FrontLimits(body_wait_s=600, idle_s=600)) as running:
        client = running.connect()
        assert client.ask(waiting_put(CHUNKED)).status == 100
        client.send(chunk)
        answer = client.answer()
        assert (answer.status, answer.code) == (400, "IncompleteBody")
        assert answer.headers["connection"] == "close"
        assert client.closed()
    # Any client can send this: it must not be able to fill the log.
    assert caplog.records == []


@pytest.mark.parametrize("headers", [{"Content-Length": "10"}, CHUNKED])
def test_a_truncated_body_never_looks_whole(headers: dict[str, str]) -> None:
    with front() as running:
        client = running.connect()
        client.send(request_bytes("PUT", "/bucket/key", headers) + b"3\r\nabc\r\n")
        client.socket.shutdown(socket.SHUT_WR)
        assert b"200" not in client.rest()
        record = running.wait_for_records(1)[0]
        assert record.status != 200
        assert record.code in {"ConnectionClosed", "IncompleteBody"}


def test_a_body_never_runs_over_its_length() -> None:
    with front() as running:
        client = running.connect()
        data = request_bytes("PUT", "/bucket/key", {"Content-Length": "3"}) + b"abc"
        client.send(data + request_bytes("GET", "/bucket/next"))
        assert client.answer().seen["size"] == 3
        assert client.answer().seen["key"] == "next"


def test_connections_beyond_the_cap_get_slow_down() -> None:
    with front(limits=FrontLimits(connections=2)) as running:
        first, second = running.connect(), running.connect()
        assert still_usable(first)
        assert still_usable(second)
        third = running.connect()
        answer = third.answer()
        assert (answer.status, answer.code) == (503, "SlowDown")
        assert third.closed()
        first.send(request_bytes("GET", "/", {"Connection": "close"}))
        first.answer()
        assert first.closed()
        assert still_usable(running.connect())


def test_one_client_cannot_take_all_connections() -> None:
    with front(limits=FrontLimits(connections_per_client=1)) as running:
        assert still_usable(running.connect())
        assert running.connect().answer().code == "SlowDown"
        assert still_usable(running.connect_from("127.0.0.2"))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"nonsense\r\n\r\n", "BadRequest"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "BadRequest"),
        (b"GET / HTTP/9.9\r\nHost: h\r\n\r\n", "BadRequest"),
        (b"GET / HTTP/1.1\r\n\r\n", "BadRequest"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "BadRequest"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX : 1\r\n\r\n", "BadRequest"),
        (b"GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n", "BadRequest"),
        (b"GET / HTTP/1.1\nHost: h\n\n", "BadRequest"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: \x00\r\n\r\n", "BadRequest"),
        (b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n", "BadRequest"),
        (b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", "BadRequest"),
        (
            b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "BadRequest",
        ),
        (
            b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "BadRequest",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
            "RequestHeaderSectionTooLarge",
        ),
        (
            b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
            "RequestHeaderSectionTooLarge",
        ),
        (b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: 1\r\n" * 200 + b"\r\n", "BadRequest"),
        (
            b"GET / HTTP/1.1\r\nHost: h\r\n" + (b"X: " + b"x" * 9000 + b"\r\n") * 3 + b"\r\n",
            "RequestHeaderSectionTooLarge",
        ),
    ],
)
def test_what_is_no_request_is_answered_in_xml_and_closed(data: bytes, code: str) -> None:
    with front() as running:
        client = running.connect()
        answer = client.ask(data)
        assert (answer.status, answer.code) == (400, code)
        assert answer.headers["content-type"] == "application/xml"
        assert answer.headers["connection"] == "close"
        assert answer.headers["x-amz-request-id"] == answer.error("RequestId")
        assert client.closed()


def test_headers_without_an_end_are_cut_off() -> None:
    with front(limits=FrontLimits(header_bytes=8192, target_bytes=8192)) as running:
        client = running.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n")
        for _ in range(4):
            client.send(b"X: " + b"x" * 8000 + b"\r\n")
        assert b"RequestHeaderSectionTooLarge" in client.rest()


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"CONNECT host:443 HTTP/1.1\r\nHost: host\r\n\r\n", 405, "MethodNotAllowed"),
        (
            b"PUT / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "InvalidRequest",
        ),
        (
            b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            501,
            "NotImplemented",
        ),
    ],
)
def test_what_s3_has_no_use_for_is_refused_and_closed(data: bytes, status: int, code: str) -> None:
    with front() as running:
        client = running.connect()
        answer = client.ask(data)
        assert (answer.status, answer.code) == (status, code)
        assert answer.headers["connection"] == "close"
        assert client.closed()


def test_an_upgrade_is_ignored_and_its_body_kept() -> None:
    with front() as running:
        client = running.connect()
        headers = {"Connection": "Upgrade", "Upgrade": "websocket"}
        answer = client.ask(request_bytes("PUT", "/bucket/key", headers, b"body"))
        assert answer.seen["size"] == 4
        assert answer.headers["connection"] == "close"
        assert client.closed()


def test_a_client_that_does_not_read_is_cut_off() -> None:
    with front(limits=FrontLimits(write_stall_s=0.3)) as running:
        client = running.connect()
        client.send(request_bytes("GET", "/?deed=flood"))
        assert running.wait_for_records(1)[0].code == "ConnectionClosed"
        assert running.echo.outcome == ["the client does not read its answer"]


def test_a_fault_of_ours_is_an_internal_error_without_details(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with front() as running, caplog.at_level(logging.ERROR):
        client = running.connect()
        answer = client.ask(request_bytes("GET", "/bucket/private-name?deed=break"))
        assert (answer.status, answer.code) == (500, "InternalError")
        assert b"Traceback" not in answer.body
        assert b"ZeroDivision" not in answer.body
        assert still_usable(client)
    (entry,) = caplog.records
    assert answer.headers["x-amz-request-id"] in entry.getMessage()
    assert entry.exc_info is not None
    assert "private-name" not in entry.getMessage()


@pytest.mark.parametrize("deed", ["break_late", "short"])
def test_an_answer_that_fails_half_way_is_cut(deed: str, caplog: pytest.LogCaptureFixture) -> None:
    with front() as running:
        client = running.connect()
        client.send(request_bytes("GET", f"/?deed={deed}"))
        got = client.rest()
        assert len(got.partition(b"\r\n\r\n")[2]) < 100
        assert running.wait_for_records(1)[0].code in {"InternalError", "ConnectionClosed"}
    assert len(caplog.records) == (deed == "break_late")


@pytest.mark.parametrize("deed", ["nothing", "inject"])
def test_an_operation_that_answers_wrongly_is_an_internal_error(deed: str) -> None:
    with front() as running:
        answer = running.connect().ask(request_bytes("GET", f"/?deed={deed}"))
        assert answer.code == "InternalError"
        assert "set-cookie" not in answer.headers


def test_small_bodies_are_bounded() -> None:
    with front() as running:
        client = running.connect()
        assert client.ask(request_bytes("POST", "/?deed=small_body", {}, b"x" * 1000)).status == 200
        answer = client.ask(request_bytes("POST", "/?deed=small_body", {}, b"x" * 1001))
        assert answer.code == "MaxMessageLengthExceeded"
        chunks = b"400\r\n" + b"x" * 1024 + b"\r\n0\r\n\r\n"
        answer = client.ask(request_bytes("POST", "/?deed=small_body", CHUNKED) + chunks)
        assert answer.code == "MaxMessageLengthExceeded"
        assert running.connect().ask(request_bytes("POST", "/?deed=small_body")).status == 200
