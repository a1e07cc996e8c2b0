"""Requests as bytes on a socket: what comes through, and what every answer carries."""

from __future__ import annotations

from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import pytest

from tests.s3.front_door import DOMAIN, Front, front, request_bytes, signed_request


@pytest.fixture(scope="module")
def running() -> Iterator[Front]:
    with front() as one:
        yield one


@pytest.mark.parametrize(
    ("target", "bucket", "key"),
    [
        ("/", None, None),
        ("/bucket", "bucket", None),
        ("/bucket/", "bucket", None),
        ("/bucket/key", "bucket", "key"),
        ("/bucket//key", "bucket", "/key"),
        ("/bucket/a//b/", "bucket", "a//b/"),
        ("/bucket/./a/../b", "bucket", "./a/../b"),
        ("/bucket/..", "bucket", ".."),
        ("/bucket/a+b", "bucket", "a+b"),
        ("/bucket/a%2Bb%20c", "bucket", "a+b c"),
        ("/bucket/a%2Fb%2f", "bucket", "a/b/"),
        ("/bucket/%E3%83%90", "bucket", "バ"),
        ("/bucket/%2525", "bucket", "%25"),
        ("/bucket/a;b=c,d", "bucket", "a;b=c,d"),
    ],
)
def test_path_style(running: Front, target: str, bucket: str | None, key: str | None) -> None:
    seen = running.connect().ask(signed_request("GET", target)).seen
    assert (seen["bucket"], seen["key"]) == (bucket, key)
    assert seen["target"] == target
    assert seen["caller"] == "user-1"


@pytest.mark.parametrize(
    ("host", "target", "bucket", "key"),
    [
        (f"acme-a.{DOMAIN}", "/", "acme-a", None),
        (f"acme-a.{DOMAIN}:8443", "/bucket/key", "acme-a", "bucket/key"),
        (f"ACME-A.{DOMAIN.upper()}", "//key", "acme-a", "/key"),
        (f"a.b.{DOMAIN}", "/key", "a.b", "key"),
        (DOMAIN, "/bucket/key", "bucket", "key"),
        ("192.0.2.1", "/bucket/key", "bucket", "key"),
        ("[2001:db8::1]:443", "/bucket/key", "bucket", "key"),
    ],
)
def test_virtual_host_style(
    running: Front, host: str, target: str, bucket: str, key: str | None
) -> None:
    seen = running.connect().ask(request_bytes("GET", target, host=host)).seen
    assert (seen["bucket"], seen["key"]) == (bucket, key)


def test_query_keeps_order_and_valueless_names(running: Front) -> None:
    target = "/bucket?uploads&prefix=a%2Bb&prefix=&x=1=2&plus=a+b"
    seen = running.connect().ask(signed_request("GET", target)).seen
    expected = [
        ["uploads", ""],
        ["prefix", "a+b"],
        ["prefix", ""],
        ["x", "1=2"],
        ["plus", "a b"],
    ]
    assert seen["query"] == expected


@pytest.mark.parametrize(
    "target", ["/bucket/%zz", "/bucket/%", "/bucket/%E3%83", "/bucket?a=%", "/bucket/%C0%AF"]
)
def test_what_is_no_uri(running: Front, target: str) -> None:
    client = running.connect()
    answer = client.ask(request_bytes("GET", target))
    assert (answer.status, answer.code) == (400, "InvalidURI")
    assert client.ask(request_bytes("GET", "/")).status == 200


def test_absolute_targets_must_name_the_host(running: Front) -> None:
    seen = running.connect().ask(request_bytes("GET", f"http://{DOMAIN}/bucket/key?a")).seen
    assert (seen["bucket"], seen["key"], seen["query"]) == ("bucket", "key", [["a", ""]])
    answer = running.connect().ask(request_bytes("GET", f"http://other.{DOMAIN}/bucket/key"))
    assert answer.code == "InvalidURI"


def test_raw_bytes_in_headers(running: Front) -> None:
    data = "GET / HTTP/1.1\r\nHost: h\r\nX-Meta: é\r\nX-Meta: 2\r\n\r\n".encode()
    seen = running.connect().ask(data).seen
    assert seen["headers"]["x-meta"].encode("latin-1").decode() == "é,2"
    seen = running.connect().ask(b"GET / HTTP/1.1\r\nHost: h\r\nX-Meta: \xff\r\n\r\n").seen
    assert seen["headers"]["x-meta"] == "\xff"


def test_raw_bytes_in_the_target_are_no_request(running: Front) -> None:
    answer = running.connect().ask("GET /é HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    assert (answer.status, answer.code) == (400, "BadRequest")


def test_every_answer_carries_the_same_four_headers(running: Front) -> None:
    identities = set()
    client = running.connect()
    for data in (
        request_bytes("GET", "/"),
        request_bytes("GET", "/bucket?deed=refuse"),
        request_bytes("HEAD", "/bucket?deed=refuse"),
        request_bytes("GET", "/bucket?deed=break"),
        b"nonsense\r\n\r\n",
    ):
        answer = client.ask(data)
        assert answer.headers["server"] == "appliance"
        assert answer.headers["x-amz-id-2"]
        assert parsedate_to_datetime(answer.headers["date"]).tzinfo is not None
        identities.add(answer.headers["x-amz-request-id"])
        if answer.status != 200 and answer.body:
            assert answer.error("RequestId") == answer.headers["x-amz-request-id"]
            assert answer.error("HostId") == answer.headers["x-amz-id-2"]
    assert len(identities) == 5
    assert all(len(identity) == 16 for identity in identities)


def test_a_head_never_has_a_body(running: Front) -> None:
    client = running.connect()
    for target in ("/bucket/key", "/bucket?deed=refuse", "/bucket?deed=stream", "/?deed=break"):
        client.send(request_bytes("HEAD", target))
        client.answer(head_only=True)
    # Had a body been sent, it would now stand in front of this answer.
    assert client.ask(request_bytes("GET", "/bucket/next")).seen["key"] == "next"


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_content(running: Front, status: int) -> None:
    client = running.connect()
    answer = client.ask(request_bytes("GET", f"/bucket?deed=bodiless&status={status}"))
    assert answer.status == status
    assert "content-length" not in answer.headers
    assert client.ask(request_bytes("GET", "/bucket/next")).seen["key"] == "next"


def test_streaming_of_unknown_length(running: Front) -> None:
    client = running.connect()
    answer = client.ask(request_bytes("GET", "/bucket?deed=stream"))
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.body == b"one,two"
    assert client.ask(request_bytes("GET", "/bucket/next")).seen["key"] == "next"


def test_streaming_to_http_1_0_ends_with_the_connection(running: Front) -> None:
    client = running.connect()
    headers = {"Connection": "keep-alive"}
    data = request_bytes("GET", "/bucket?deed=stream", headers, version="1.0")
    answer = client.ask(data)
    assert "transfer-encoding" not in answer.headers
    assert answer.headers["connection"] == "close"
    assert answer.body == b"one,two"


def test_http_1_0_keeps_a_connection_only_when_asked(running: Front) -> None:
    client = running.connect()
    data = request_bytes("GET", "/", {"Connection": "keep-alive"}, version="1.0")
    assert client.ask(data).headers["connection"] == "keep-alive"
    assert client.ask(request_bytes("GET", "/", version="1.0")).headers["connection"] == "close"
    assert client.closed()


def test_connection_close_is_obeyed(running: Front) -> None:
    client = running.connect()
    answer = client.ask(request_bytes("GET", "/", {"Connection": "close"}))
    assert answer.headers["connection"] == "close"
    assert client.closed()


def test_metadata_comes_back_byte_for_byte(running: Front) -> None:
    value = "\xe3\x83\x90 \xff"
    client = running.connect()
    answer = client.ask(request_bytes("GET", "/?deed=metadata", {"x-amz-meta-a": value}))
    assert answer.headers["x-amz-meta-a"] == value


def test_pipelined_requests_are_answered_in_order(running: Front) -> None:
    client = running.connect()
    client.send(b"".join(request_bytes("GET", f"/bucket/{number}") for number in range(50)))
    keys = [client.answer().seen["key"] for _ in range(50)]
    assert keys == [str(number) for number in range(50)]


def test_records(running: Front) -> None:
    before = len(running.records)
    client = running.connect()
    client.ask(signed_request("PUT", "/bucket/key", {"User-Agent": "test"}, b"12345"))
    client.ask(request_bytes("GET", "/bucket?deed=refuse"))
    good, refused = running.wait_for_records(before + 2)[before:]
    assert (good.status, good.code, good.bytes_in, good.bucket) == (200, "", 5, "bucket")
    assert (good.access_key, good.user_id, good.contract) == (
        "AKIAIOSFODNN7EXAMPLE",
        "user-1",
        "contract-1",
    )
    assert (good.network, good.remote_address, good.user_agent) == (
        "internet",
        "127.0.0.1",
        "test",
    )
    assert good.bytes_out > 100
    assert good.duration_s >= 0
    assert (refused.status, refused.code, refused.user_id) == (404, "NoSuchBucket", "")
