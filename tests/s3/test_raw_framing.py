"""100 Continue, chunked bodies, and what stands behind them on the same connection."""

from __future__ import annotations

import pytest

from tests.s3.front_door import CHUNKED, front, request_bytes, signed_request, still_usable


def test_continue_is_sent_after_authentication_at_the_first_read() -> None:
    body = b"content"
    with front() as running:
        client = running.connect()
        data = signed_request("PUT", "/bucket/key", {"Expect": "100-continue"}, body)
        assert client.ask(data.removesuffix(body)).status == 100
        client.send(body)
        assert client.answer().seen["size"] == len(body)
        assert still_usable(client)


@pytest.mark.parametrize("target", ["/?deed=unread", "/?deed=refuse", "/%zz"])
def test_no_continue_where_the_body_is_not_wanted(target: str) -> None:
    with front() as running:
        client = running.connect()
        headers = {"Expect": "100-continue", "Content-Length": "7"}
        answer = client.ask(request_bytes("PUT", target, headers))
        assert answer.status != 100
        assert answer.headers["connection"] == "close"
        assert client.closed()


def test_no_continue_for_a_wrong_signature() -> None:
    with front() as running:
        client = running.connect()
        headers = {"Expect": "100-continue"}
        data = signed_request("PUT", "/bucket/key", headers, b"content", secret_key="other")
        answer = client.ask(data.removesuffix(b"content"))
        assert (answer.status, answer.code) == (403, "SignatureDoesNotMatch")
        assert client.closed()


def test_no_continue_for_a_client_that_is_already_sending() -> None:
    with front() as running:
        client = running.connect()
        headers = {"Expect": "100-continue"}
        assert client.ask(request_bytes("PUT", "/bucket/key", headers, b"content")).status == 200


@pytest.mark.parametrize("expectation", ["200-ok", "200", ""])
def test_another_expectation_is_passed_over(expectation: str) -> None:
    with front() as running:
        client = running.connect()
        headers = {"Expect": expectation}
        answer = client.ask(request_bytes("PUT", "/bucket/key", headers, b"content"))
        assert (answer.status, answer.seen["size"]) == (200, 7)


@pytest.mark.parametrize("body", [b"0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n"])
def test_a_clean_chunked_body_keeps_the_connection(body: bytes) -> None:
    with front() as running:
        client = running.connect()
        answer = client.ask(request_bytes("PUT", "/bucket/key", CHUNKED) + body)
        assert answer.seen["size"] in {0, 3}
        assert "connection" not in answer.headers
        assert still_usable(client)


def test_a_chunked_body_byte_by_byte() -> None:
    with front() as running:
        client = running.connect()
        for byte in request_bytes("PUT", "/bucket/key", CHUNKED) + b"3\r\nabc\r\n0\r\n\r\n":
            client.send(bytes([byte]))
        answer = client.answer()
        assert answer.seen["size"] == 3
        assert "connection" not in answer.headers
        assert still_usable(client)


@pytest.mark.parametrize(
    "end",
    [
        b"0\r\nX-Evil: 1\r\n\r\n",
        b"0\r\nX-Evil: 0\r\n\r\n",
        b"0\r\nX-Evil: 1\r\nX-Worse: 0\r\n\r\n",
        b"0;a=b\r\n\r\n",
    ],
)
def test_a_trailer_never_becomes_a_header_of_the_next_request(end: bytes) -> None:
    with front() as running:
        client = running.connect()
        client.send(request_bytes("PUT", "/bucket/key", CHUNKED) + b"3\r\nabc\r\n" + end)
        answer = client.answer()
        assert answer.seen["size"] == 3
        assert answer.headers["connection"] == "close"
        assert client.closed()


@pytest.mark.parametrize("end", [b"0\r\n\r\n", b"0\r\nX-Evil: 1\r\n\r\n"])
@pytest.mark.parametrize("deed", ["echo", "unread", "answer_then_read"])
def test_a_request_pipelined_behind_a_chunked_body_is_not_served(end: bytes, deed: str) -> None:
    with front() as running:
        client = running.connect()
        data = request_bytes("PUT", f"/bucket/key?deed={deed}", CHUNKED) + b"3\r\nabc\r\n" + end
        client.send(data + request_bytes("GET", "/bucket/smuggled"))
        assert client.answer().status == 200
        assert client.closed()
        assert [record.key for record in running.records] == ["key"]


def test_a_chunked_body_behind_other_requests_is_served_and_is_the_last() -> None:
    with front() as running:
        client = running.connect()
        assert still_usable(client)
        chunked = request_bytes("PUT", "/bucket/chunked", CHUNKED) + b"0\r\nX-Evil: 1\r\n\r\n"
        smuggled = request_bytes("GET", "/bucket/smuggled")
        client.send(request_bytes("GET", "/bucket/first") + chunked + smuggled)
        first, last = client.answer(), client.answer()
        assert (first.seen["key"], last.seen["key"]) == ("first", "chunked")
        assert last.headers["connection"] == "close"
        assert client.closed()
