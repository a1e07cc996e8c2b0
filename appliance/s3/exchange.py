"""One request's side of a connection: the façade's ``Exchange`` and ``Wire``.

Owns the bytes of an answer (status line, headers, framing), ``100 Continue``, the deadlines of
reading and writing, and whether the connection may be used again. Refuses header values that would
start a new line. Invariant: a connection is kept only when the next byte on it is known to be the
first of a new request; every answer carries ``x-amz-request-id``, ``x-amz-id-2``, ``Date`` and
``Server``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import PayloadAccessError, RequestPayloadError

from appliance.core.errors import S3Error
from appliance.core.ports import Buffer, Clock
from appliance.s3.dates import http_time
from appliance.s3.limits import FrontLimits

if TYPE_CHECKING:
    from appliance.s3.connection import Connection

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_JOINED_BYTES_MAX: Final = 64 * 1024
_NO_LENGTH_STATUSES: Final = frozenset({204, 304})
_BROKEN: Final = (HttpProcessingError, RequestPayloadError, PayloadAccessError, RuntimeError)


class Answers:
    """What all answers of one front share: its name, its host id, and the date of this second."""

    def __init__(self, clock: Clock, *, server_name: str, host_id: str) -> None:
        self._clock: Final = clock
        self.host_id: Final = host_id
        self._constant: Final = f"x-amz-id-2: {host_id}\r\nServer: {server_name}\r\n"
        self._second = -1
        self._prefixes: dict[int, str] = {}

    def prefix(self, status: int) -> str:
        """Status line and the headers that are the same for every answer of this second."""
        now_ns = self._clock.now_ns()
        second = now_ns // 1_000_000_000
        if second != self._second:
            self._second = second
            self._prefixes.clear()
        prefix = self._prefixes.get(status)
        if prefix is None:
            phrase = HTTPStatus(status).phrase
            date = http_time(now_ns)
            prefix = f"HTTP/1.1 {status} {phrase}\r\nDate: {date}\r\n{self._constant}"
            self._prefixes[status] = prefix
        return prefix


class HttpExchange:
    """Implements ``request.Exchange`` and ``request.Wire`` on one aiohttp request."""

    __slots__ = (
        "_answers",
        "_body_began_s",
        "_bytes_left",
        "_chunked",
        "_connection",
        "_continue_due",
        "_head",
        "_limits",
        "_modern",
        "_payload",
        "_request",
        "_request_id",
        "bytes_in",
        "bytes_out",
        "keep_alive",
        "must_close",
    )

    def __init__(
        self,
        request: web.BaseRequest,
        connection: Connection,
        answers: Answers,
        limits: FrontLimits,
        request_id: str,
    ) -> None:
        self._request = request
        self._connection = connection
        self._answers = answers
        self._limits = limits
        self._request_id = request_id
        self._payload = request.content
        self._modern = request.version >= (1, 1)
        self._head = b""
        self._chunked = False
        self._body_began_s = 0.0
        self._continue_due = False
        self._bytes_left: int | None = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.must_close = False
        """Set by whoever finds the connection unfit for another request."""
        self.keep_alive = False
        """Whether the connection goes on, known once the answer's head was made."""

    def expect_body(self, expect: str | None, length: str | None) -> None:
        """Take note of what was announced. Expectations that nobody knows are passed over, as AWS
        does and RFC 9110 (section 10.1.1) allows."""
        self._bytes_left = None if length is None else int(length)
        if expect is None or expect.lower() != "100-continue":
            return
        # HTTP/1.0 clients cannot be told; one that already sends its body need not be.
        self._continue_due = self._modern and not self._payload.is_eof()

    # Receiving

    async def receive(self) -> bytes:
        """The next bytes of the body, ``b""`` at its end; see ``request.Wire``."""
        payload = self._payload
        if self._continue_due:
            self._continue_due = False
            if not payload.total_bytes:
                self._write(_CONTINUE)
        try:
            data = payload.read_nowait()
            if not data and not payload.is_eof():
                data = await self._wait_for_bytes()
        except _BROKEN as error:
            self.must_close = True
            raise S3Error("IncompleteBody", "The body could not be read to its end.") from error
        except TimeoutError as error:
            self.must_close = True
            raise S3Error("RequestTimeout") from error
        self.bytes_in += len(data)
        return data

    async def _wait_for_bytes(self) -> bytes:
        limits = self._limits
        loop = asyncio.get_running_loop()
        began_s = self._body_began_s or loop.time()
        self._body_began_s = began_s
        async with asyncio.timeout(limits.body_wait_s):
            data = await self._payload.readany()
        elapsed_s = loop.time() - began_s
        if elapsed_s > limits.body_grace_s:
            received = self.bytes_in + len(data)
            if data and received < elapsed_s * limits.body_min_bytes_per_s:
                raise TimeoutError
        return data

    # Answering

    def head(
        self, status: int, headers: Mapping[str, str], length: int | None, *, bodiless: bool
    ) -> None:
        """Make status line and headers; they leave with the first bytes of the body."""
        self.keep_alive = self._reusable()
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        given = "".join(lines)
        if given.count("\n") != len(lines) or given.count("\r") != len(lines) or "\0" in given:
            raise ValueError("a header of the answer holds a line end")
        framing = ""
        if length is None:
            if not bodiless:
                self._chunked = self._modern
                self.keep_alive = self.keep_alive and self._modern
                framing = "Transfer-Encoding: chunked\r\n" if self._modern else ""
        elif status not in _NO_LENGTH_STATUSES and not _has_length(headers):
            framing = f"Content-Length: {length}\r\n"
        if not self.keep_alive:
            framing += "Connection: close\r\n"
        elif not self._modern:
            framing += "Connection: keep-alive\r\n"
        prefix = self._answers.prefix(status)
        text = f"{prefix}x-amz-request-id: {self._request_id}\r\n{given}{framing}\r\n"
        try:
            self._head = text.encode("latin-1")
        except UnicodeEncodeError:
            self._head = text.encode("utf-8")

    def _reusable(self) -> bool:
        """Whether the connection can carry another request after this one."""
        if self.must_close or not self._connection.reusable or not self._request.keep_alive:
            return False
        payload = self._payload
        if payload.is_eof():
            return True
        if self._bytes_left is None or self._continue_due:
            return False
        return self._bytes_left - payload.total_bytes <= self._limits.drain_bytes

    async def send(self, data: Buffer) -> None:
        """Body bytes behind the head; waits while the client reads slowly."""
        if self._chunked and data:
            data = b"".join((b"%x\r\n" % len(data), data, b"\r\n"))
        if self._head:
            head, self._head = self._head, b""
            if len(data) <= _JOINED_BYTES_MAX:
                data = head + data
            else:
                self._write(head)
        if data:
            self._write(data)
        await self._drain()

    async def end(self) -> None:
        """Send what is left of the answer."""
        rest = self._head
        self._head = b""
        if self._chunked:
            rest += b"0\r\n\r\n"
        if rest:
            self._write(rest)
        await self._drain()

    def abort(self) -> None:
        """Cut the connection at once."""
        self.must_close = True
        self.keep_alive = False
        self._connection.abort()

    def _write(self, data: Buffer) -> None:
        transport = self._connection.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        self.bytes_out += len(data)
        transport.write(data)

    async def _drain(self) -> None:
        if not self._connection.writing_paused:
            return
        try:
            async with asyncio.timeout(self._limits.write_stall_s):
                await self._request.writer.drain()
        except TimeoutError as error:
            self.abort()
            raise ConnectionResetError("the client does not read its answer") from error


def _has_length(headers: Mapping[str, str]) -> bool:
    return "Content-Length" in headers or "content-length" in headers
