"""The HTTP front door on real sockets, with an echo in place of the S3 operations.

``Front`` runs server and gateway on an event loop of their own; ``RawClient`` is a socket that
knows just enough of HTTP to tell answers apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from xml.etree.ElementTree import fromstring

import uvloop
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from appliance.core.ports import Credential, Owner
from appliance.s3.access import AccessRecord
from appliance.s3.gateway import Gateway
from appliance.s3.limits import FrontLimits
from appliance.s3.request import Request
from appliance.s3.server import Listener, S3Server
from appliance.s3.target import Domains
from appliance.s3.tls import TlsContexts
from tests.s3.echo import Echo

T = TypeVar("T")
REGION: Final = "ap-northeast-1"
DOMAIN: Final = "s3.example.test"
ACCESS_KEY: Final = "AKIAIOSFODNN7EXAMPLE"
SECRET_KEY: Final = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
PATIENCE_S: Final = 20.0
CHUNKED: Final = {"Transfer-Encoding": "chunked"}


class ShiftedClock:
    """The real time, moved by ``shift_s``."""

    def __init__(self) -> None:
        self.shift_s = 0

    def now_ns(self) -> int:
        return time.time_ns() + self.shift_s * 1_000_000_000

    def monotonic_s(self) -> float:
        return time.monotonic() + self.shift_s

    def sleep_s(self, seconds: float) -> None:
        raise AssertionError("nothing here sleeps")


class SystemRandom:
    """Real randomness."""

    def token(self, size_bytes: int) -> bytes:
        return os.urandom(size_bytes)


@dataclass
class FakeKeys:
    """A key store in memory that counts how often it is asked."""

    credentials: dict[str, Credential] = field(default_factory=dict)
    asked: int = 0
    fault: Exception | None = None

    async def credential(self, access_key: str) -> Credential | None:
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return self.credentials.get(access_key)

    async def contract_key(self, contract: str) -> bytes:
        raise AssertionError("the front needs no contract key")

    async def owner(self, contract: str, user_id: str) -> Owner | None:
        raise AssertionError("the front needs no owner")


def some_keys() -> FakeKeys:
    credential = Credential(ACCESS_KEY, SECRET_KEY, "user-1", "User One", "contract-1", "acme-")
    return FakeKeys({ACCESS_KEY: credential})


@dataclass
class Answer:
    """One parsed answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return self.error("Code")

    def error(self, name: str) -> str:
        return fromstring(self.body).findtext(name) or ""

    @property
    def seen(self) -> dict[str, Any]:
        """What the echo saw."""
        assert self.status == 200, (self.status, self.body)
        return dict(json.loads(self.body))


class RawClient:
    """A socket and the little HTTP a test needs."""

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(PATIENCE_S)
        self.socket = connected
        self._buffer = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> bytes:
        try:
            return self.socket.recv(65536)
        except ConnectionResetError:
            return b""

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            data = self.receive()
            assert data, f"the connection ended after {self._buffer!r}"
            self._buffer += data
        head, _, self._buffer = self._buffer.partition(end)
        return head

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = self.receive()
            assert data, f"the connection ended {size - len(self._buffer)} bytes early"
            self._buffer += data
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def answer(self, *, head_only: bool = False) -> Answer:
        """The next answer on the connection, ``100 Continue`` included."""
        lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        assert lines[0].startswith("HTTP/1.1 "), lines[0]
        status = int(lines[0].split(" ")[1])
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(": ")
            assert name.lower() not in headers, f"{name} is there twice"
            headers[name.lower()] = value
        if head_only or status in {100, 204, 304}:
            body = b""
        elif "content-length" in headers:
            body = self._exactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            body = self._chunks()
        else:
            body = self.rest()
        return Answer(status, headers, body)

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self._until(b"\r\n"), 16):
            body += self._exactly(size)
            assert self._exactly(2) == b"\r\n"
        assert self._exactly(2) == b"\r\n"
        return body

    def rest(self) -> bytes:
        """Everything until the server closes."""
        while data := self.receive():
            self._buffer += data
        rest, self._buffer = self._buffer, b""
        return rest

    def closed(self) -> bool:
        """Wait for the server's end of the connection; False if more bytes came instead."""
        return self.rest() == b""

    def ask(self, data: bytes) -> Answer:
        self.send(data)
        return self.answer(head_only=data.startswith(b"HEAD "))

    def close(self) -> None:
        self.socket.close()


class Front:
    """A running front door."""

    def __init__(
        self,
        *,
        limits: FrontLimits | None = None,
        tls: TlsContexts | None = None,
        keys: FakeKeys | None = None,
        dispatch: Callable[[Request], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self.clock = ShiftedClock()
        self.keys = keys or some_keys()
        self.records: list[AccessRecord] = []
        self._recorded = threading.Condition()
        self.echo = Echo()
        self.limits = limits or FrontLimits(linger_s=0.5)
        self.tls = tls
        self._dispatch = dispatch or self.echo
        self._ready = threading.Event()
        self._executor = ThreadPoolExecutor(2)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._clients: list[RawClient] = []
        self._thread = threading.Thread(target=self._run, name="front")
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.stopped = asyncio.Event()
        gateway = Gateway(
            self._dispatch,
            keys=self.keys,
            clock=self.clock,
            region=REGION,
            domains=Domains([DOMAIN]),
            limits=self.limits,
            hashing=self._executor,
            on_record=self._record,
        )
        self.server = S3Server(
            gateway.handle, clock=self.clock, entropy=SystemRandom(), limits=self.limits
        )
        await self.server.open([Listener(self._listening, "internet", self.tls)])
        self._ready.set()
        await self.stopped.wait()
        await self.server.stop(0.1)

    def _record(self, record: AccessRecord) -> None:
        with self._recorded:
            self.records.append(record)
            self._recorded.notify_all()

    def wait_for_records(self, count: int) -> list[AccessRecord]:
        with self._recorded:
            assert self._recorded.wait_for(lambda: len(self.records) >= count, PATIENCE_S)
        return self.records

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run on the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE_S)

    def connect(self, context: ssl.SSLContext | None = None, name: str = DOMAIN) -> RawClient:
        connected = socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)
        if context is not None:
            connected = context.wrap_socket(connected, server_hostname=name)
        client = RawClient(connected)
        self._clients.append(client)
        return client

    def connect_from(self, address: str) -> RawClient:
        """A connection from another address of this machine."""
        source = (address, 0)
        connected = socket.create_connection(("127.0.0.1", self.port), PATIENCE_S, source)
        client = RawClient(connected)
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.stopped.set)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        self._executor.shutdown()


@contextlib.contextmanager
def front(**settings: Any) -> Iterator[Front]:
    running = Front(**settings)
    try:
        yield running
    finally:
        running.close()


def request_bytes(
    method: str,
    target: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    *,
    version: str = "1.1",
    host: str = DOMAIN,
) -> bytes:
    """A request as bytes; a Content-Length is added with a body."""
    lines = [f"{method} {target} HTTP/{version}", f"Host: {host}"]
    if body is not None and not any(name.lower() == "content-length" for name in headers or {}):
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body or b"")


def signed_headers(
    method: str,
    target: str,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    *,
    secret_key: str = SECRET_KEY,
    access_key: str = ACCESS_KEY,
    region: str = REGION,
    host: str = DOMAIN,
) -> dict[str, str]:
    """The headers of a request signed by botocore; ``Host`` is not among them."""
    url = f"http://{host}{target}"
    given = dict(headers or {})
    request = AWSRequest(method=method, url=url, headers=given, data=body)
    if "X-Amz-Content-SHA256" in given:
        request.context["payload_signing_enabled"] = True
    signer = S3SigV4Auth(Credentials(access_key, secret_key), "s3", region)
    if "X-Amz-Content-SHA256" in given:
        text = given["X-Amz-Content-SHA256"]
        signer.payload = lambda _: text
    signer.add_auth(request)
    return dict(request.headers.items())


def signed_request(
    method: str,
    target: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    **options: Any,
) -> bytes:
    """A whole signed request as bytes."""
    signed = signed_headers(method, target, headers, body or b"", **options)
    return request_bytes(method, target, signed, body, host=options.get("host", DOMAIN))


def still_usable(client: RawClient) -> bool:
    """Whether another request on the connection is answered."""
    return bool(client.ask(request_bytes("GET", "/bucket/next")).seen["key"] == "next")
