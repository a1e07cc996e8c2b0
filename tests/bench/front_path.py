"""What the front costs per request: the steps of a signed 4 KiB PUT, then the whole over a socket.

``python -m tests.bench.front_path`` prints microseconds; nothing is asserted.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping

import uvloop

from appliance.core.ports import Buffer
from appliance.s3.gateway import Gateway
from appliance.s3.request import Headers, Request
from appliance.s3.server import Listener, S3Server
from appliance.s3.target import Domains
from tests.s3.front_door import (
    DOMAIN,
    REGION,
    ShiftedClock,
    SystemRandom,
    signed_headers,
    signed_request,
    some_keys,
)

BODY = os.urandom(4096)
EXTRA = {
    "Content-Type": "application/octet-stream",
    "Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg==",
    "User-Agent": "Boto3/1.40 md/Botocore#1.40 ua/2.1 os/linux lang/python#3.11",
    "Accept-Encoding": "identity",
    "amz-sdk-invocation-id": "6f1f0e9a-6d7e-4a53-8d3e-3f7f0f6c7e11",
    "amz-sdk-request": "attempt=1",
}
TARGET = "/bucket/backup/2024/05/24/disk-0001.img"


_CLIENT = """
import socket, sys
data = sys.stdin.buffer.read()
port, rounds = int(sys.argv[1]), int(sys.argv[2])
clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
for _ in range(rounds // 40):
    for client in clients:
        client.sendall(data)
    for client in clients:
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
"""


class NoExchange:
    """Takes an answer and forgets it."""

    def head(
        self, status: int, headers: Mapping[str, str], length: int | None, *, bodiless: bool
    ) -> None: ...

    async def send(self, data: Buffer) -> None: ...

    async def end(self) -> None: ...

    def abort(self) -> None: ...


class WholeBody:
    """A body that is there at once."""

    bytes_in = 0
    bytes_out = 0

    def __init__(self) -> None:
        self._left = BODY

    async def receive(self) -> bytes:
        left, self._left = self._left, b""
        return left


async def read_and_reply(request: Request) -> None:
    """The least an operation does."""
    while await request.body.read():
        pass
    await request.reply(200, {"ETag": '"0123456789abcdef0123456789abcdef"'}, b"")


def gateway(dispatch: Callable[[Request], object] = read_and_reply) -> Gateway:
    return Gateway(
        dispatch,  # type: ignore[arg-type]
        keys=some_keys(),
        clock=ShiftedClock(),
        region=REGION,
        domains=Domains([DOMAIN]),
    )


def facade_request(raw: list[tuple[bytes, bytes]]) -> Request:
    request = Request(
        exchange=NoExchange(),
        method="PUT",
        raw_target=TARGET,
        headers=Headers(raw),
        network="internet",
        secure=True,
        remote_address="192.0.2.1",
        request_id="0" * 16,
    )
    request.wire = WholeBody()
    return request


async def measure_pipeline(rounds: int) -> float:
    """Microseconds from parsed HTTP to the finished answer, without the server underneath."""
    headers = {"Host": DOMAIN, "Content-Length": "4096"}
    headers |= signed_headers("PUT", TARGET, EXTRA, BODY)
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    front = gateway()
    for _ in range(100):
        await front.handle(facade_request(raw))
    began_s = time.process_time()
    for _ in range(rounds):
        await front.handle(facade_request(raw))
    return (time.process_time() - began_s) / rounds * 1e6


async def measure_socket(rounds: int) -> float:
    """Microseconds of server CPU for each signed PUT over keep-alive connections.

    Forty connections, because a server that sleeps between two requests measures cold caches.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    server = S3Server(gateway().handle, clock=ShiftedClock(), entropy=SystemRandom())
    await server.open([Listener(listening, "internet")])
    client = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _CLIENT,
        str(listening.getsockname()[1]),
        str(rounds),
        stdin=asyncio.subprocess.PIPE,
    )
    began_s = time.thread_time()
    await client.communicate(signed_request("PUT", TARGET, EXTRA, BODY))
    used_s = time.thread_time() - began_s
    assert client.returncode == 0
    await server.stop(1.0)
    return used_s / rounds * 1e6


def main() -> None:
    """Print both."""
    print(f"parse, authenticate, read, answer: {asyncio.run(measure_pipeline(20_000)):6.1f} us")
    whole_us = uvloop.run(measure_socket(20_000))
    print(f"the same with aiohttp on a socket: {whole_us:6.1f} us of server CPU")


if __name__ == "__main__":
    main()
