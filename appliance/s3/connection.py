"""One connection: what aiohttp's protocol needs watching for.

Owns the guards that only the byte stream can show: header bytes that never become a request,
parse errors (answered in S3's XML), a body that broke off inside its framing, and whatever follows
a chunked body. Refuses connections beyond the server's caps. Invariant: no byte sent behind one
request's body is ever read as a header of the next request.

aiohttp leaves the last HTTP trailer of a chunked body in its parser, where it becomes the first
header of the next request on the connection. Nobody here sends HTTP trailers (those of S3 are
inside the aws-chunked body), so a chunked body must end with exactly the last chunk and an empty
line; after any other end, and after a request pipelined behind a chunked one, the connection
carries no further request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestPayloadError

from appliance.core.errors import S3Error

if TYPE_CHECKING:
    from appliance.s3.server import S3Server

_CLEAN_END: Final = b"\r\n0\r\n\r\n"


class Finished:
    """What aiohttp's loop is handed when the answer has already been written."""

    __slots__ = ("keep_alive",)

    def __init__(self, keep_alive: bool) -> None:
        self.keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Nothing: the exchange has written the head."""
        return None

    async def write_eof(self) -> None:
        """Nothing: the exchange has ended the answer."""


KEPT: Final = Finished(keep_alive=True)
CLOSED: Final = Finished(keep_alive=False)


class Connection(web.RequestHandler):
    """aiohttp's protocol with the guards of this front. One per accepted socket."""

    __slots__ = (
        "_chunked",
        "_front",
        "_head_bytes",
        "_last_bytes",
        "_open",
        "answered",
        "closing",
        "last_trusted",
        "network",
        "remote_address",
        "secure",
    )

    def __init__(
        self, front: S3Server, manager: web.Server, *, network: str, secure: bool, **settings: Any
    ) -> None:
        super().__init__(manager, **settings)
        self._front = front
        self.network = network
        self.secure = secure
        self.remote_address = ""
        self._open: StreamReader | None = None
        """The body that is still coming in, if any."""
        self._chunked = False
        """Whether the newest request's body is chunked and its end was not seen yet."""
        self._last_bytes = b""
        self._head_bytes = 0
        self.closing = False
        """Set once the next answer is to be the last."""
        self.last_trusted: int | None = None
        """The number of the request behind which nothing on this connection may be served."""
        self.answered = 0
        """Requests whose answer is complete; all others that arrived are in flight."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the connection, or answer 503 and close it."""
        peer = transport.get_extra_info("peername")
        self.remote_address = str(peer[0]) if peer and not isinstance(peer, str) else ""
        if not self._front.admit(self):
            self._close = True
            # uvloop's transports are not subclasses of asyncio's.
            cast(asyncio.Transport, transport).write(self._front.refusal(S3Error("SlowDown")))
            transport.close()
            return
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The socket is gone; aiohttp cancels the request's task."""
        self._front.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, then look at what the bytes have become."""
        before = self._request_count
        super().data_received(data)
        if self._chunked:
            self._last_bytes = (self._last_bytes + data[-len(_CLEAN_END) :])[-len(_CLEAN_END) :]
        if self._request_count != before:
            self._requests_arrived(self._request_count - before, data)
        elif self._open is None:
            self._head_bytes += len(data)
            if self._head_bytes > self._front.head_bytes_max and not self._messages:
                self._refuse_head()
        if self._open is not None and self._open.is_eof():
            self._open = None
            if self._chunked:
                self._chunked = False
                if self._last_bytes != _CLEAN_END:
                    self._distrust_behind(self._request_count)

    def _requests_arrived(self, count: int, data: bytes) -> None:
        self._head_bytes = 0
        number = self._request_count - count
        for message, payload in list(self._messages)[-count:]:
            number += 1
            if self._chunked:
                # It came with, or behind, the end of a chunked body: its headers are not to be
                # trusted. aiohttp drops it when the connection closes after the answer before it.
                self._distrust_behind(number - 1)
            if not isinstance(message, RawRequestMessage):
                self._body_broke(message.exc)
                return
            self._open = payload
            self._chunked = message.chunked
            self._last_bytes = data[-len(_CLEAN_END) :] if message.chunked else b""

    def _distrust_behind(self, number: int) -> None:
        if self.last_trusted is None:
            self.last_trusted = number

    def _body_broke(self, error: BaseException) -> None:
        """Tell the reader of an open body that its framing is broken; else it waits in vain."""
        self.closing = True
        self._chunked = False
        if self._open is not None and not self._open.is_eof():
            broken = RequestPayloadError("the body's framing is broken")
            self._open.set_exception(broken, error)
        self._open = None

    def _refuse_head(self) -> None:
        if self.transport is not None:
            self.transport.write(self._front.refusal(S3Error("RequestHeaderSectionTooLarge")))
        self.force_close()

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Report aiohttp's own faults, but not what any client can make it stumble over."""
        if not isinstance(kw.get("exc_info"), RequestPayloadError | ConnectionError):
            super().log_exception(*args, **kw)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer bytes that are not a request in S3's XML. aiohttp calls it for parse errors."""
        self.answered += 1
        self.closing = True
        if status != 400:
            # Not the client's bytes but our own fault, which the gateway has already reported.
            raise ConnectionResetError("the answer was not complete") from exc
        if isinstance(exc, LineTooLong):
            error = S3Error("RequestHeaderSectionTooLarge")
        else:
            error = S3Error("BadRequest", "An error occurred when parsing the HTTP request.")
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(self._front.refusal(error))
        return CLOSED  # type: ignore[return-value]

    @property
    def reusable(self) -> bool:
        """Whether another request may be served behind the one being answered."""
        if self.closing:
            return False
        return self.last_trusted is None or self.answered + 1 < self.last_trusted

    @property
    def arriving(self) -> bool:
        """Whether part of a request's header has come, and not yet all of it."""
        return self._head_bytes > 0

    def finish(self, *, fresh_too: bool) -> None:
        """Take no further request than the one in flight or arriving; close now if there is none.

        A connection that never carried a request stays, unless ``fresh_too``: its client has just
        connected and is about to ask.
        """
        self.closing = True
        if self._request_count != self.answered or self.arriving:
            return
        if self._request_count or fresh_too:
            self.force_close()

    def abort(self) -> None:
        """Cut the connection without an orderly end."""
        transport = self.transport
        self.closing = True
        if transport is not None:
            transport.abort()
