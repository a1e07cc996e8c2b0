"""The HTTP server of the S3 front: listening sockets in, façade requests out.

Owns the sockets it was handed, the connections on them and their caps, and the graceful stop.
Refuses what a parser lets through but this front does not serve: CONNECT, transfer codings besides
chunked, chunked bodies in HTTP/1.0, oversized headers and targets. Invariant: every request that
arrived whole is handed to the gateway exactly once, and a stop waits for its answer.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from appliance.core.errors import S3Error
from appliance.core.ports import Clock, Entropy
from appliance.s3.acceptor import Acceptor
from appliance.s3.connection import CLOSED, KEPT, Connection, Finished
from appliance.s3.errors import rendered, status_of
from appliance.s3.exchange import Answers, HttpExchange
from appliance.s3.limits import FrontLimits
from appliance.s3.request import Headers, Request
from appliance.s3.tls import TlsContexts
from appliance.s3.xml import CONTENT_TYPE

_MIX: Final = 0x9E3779B97F4A7C15
_MASK: Final = (1 << 64) - 1
_CANCEL_S: Final = 0.5
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound socket, the name of the network it faces, and its certificates (None: plain HTTP)."""

    socket: socket.socket
    network: str
    tls: TlsContexts | None = None


class S3Server:
    """Serves S3 on any number of listeners of one event loop.

    ``handle`` is called once per request, in its own task; it answers every request itself and
    raises only ``ConnectionError``. When the client disconnects its task is cancelled.
    """

    def __init__(
        self,
        handle: Callable[[Request], Awaitable[None]],
        *,
        clock: Clock,
        entropy: Entropy,
        limits: FrontLimits | None = None,
        server_name: str = "appliance",
    ) -> None:
        self._handle: Final = handle
        self._limits: Final = limits or FrontLimits()
        host_id = base64.b64encode(entropy.token(36)).decode("ascii")
        self._answers: Final = Answers(clock, server_name=server_name, host_id=host_id)
        self._next_id = int.from_bytes(entropy.token(8), "big")
        self._connections: set[Connection] = set()
        self._per_client: Counter[str] = Counter()
        self._acceptors: list[Acceptor] = []
        self._welcomes: set[asyncio.Task[None]] = set()
        self._manager: web.Server | None = None
        self._gone = asyncio.Event()
        self._stopping = False
        self.head_bytes_max: Final = self._limits.target_bytes + 2 * self._limits.header_bytes

    @property
    def connections(self) -> int:
        """Open connections, for metrics."""
        return len(self._connections)

    @property
    def arriving(self) -> int:
        """Connections on which part of a request's header has arrived."""
        return sum(connection.arriving for connection in self._connections)

    async def open(self, listeners: Sequence[Listener]) -> None:
        """Start to accept. May be called again with further listeners."""
        if self._manager is None:
            self._manager = web.Server(self._serve, handler_cancellation=True)
        for listener in listeners:
            self._acceptors.append(self._listen(listener, self._manager))

    def _listen(self, listener: Listener, manager: web.Server) -> Acceptor:
        limits = self._limits
        loop = asyncio.get_running_loop()
        context = None if listener.tls is None else listener.tls.context

        def connection() -> Connection:
            return Connection(
                self,
                manager,
                network=listener.network,
                secure=listener.tls is not None,
                loop=loop,
                keepalive_timeout=limits.idle_s,
                lingering_time=limits.linger_s,
                max_line_size=limits.target_bytes,
                max_field_size=limits.header_bytes,
                max_headers=limits.header_count,
                auto_decompress=False,
                access_log=None,
            )

        def take(accepted: socket.socket) -> None:
            welcome = self._welcome(accepted, connection, context)
            task = loop.create_task(welcome, name="welcome")
            self._welcomes.add(task)
            task.add_done_callback(self._welcomes.discard)

        listener.socket.listen(limits.backlog)
        return Acceptor(
            listener.socket,
            take,
            lambda: len(self._connections) + len(self._welcomes),
            step_s=limits.accept_step_s,
            delay_max_s=limits.accept_delay_max_s,
        )

    async def _welcome(
        self,
        accepted: socket.socket,
        connection: Callable[[], Connection],
        context: ssl.SSLContext | None,
    ) -> None:
        """An accepted socket becomes a connection, after the handshake where there is TLS."""
        loop = asyncio.get_running_loop()
        try:
            if context is None:
                await loop.connect_accepted_socket(connection, accepted)
                return
            await loop.connect_accepted_socket(
                connection,
                accepted,
                ssl=context,
                ssl_handshake_timeout=self._limits.handshake_s,
                ssl_shutdown_timeout=self._limits.shutdown_s,
            )
        except OSError as error:
            # The client's doing: no TLS, none of ours, gone, or too slow.
            _log.debug("a connection ended in its handshake: %s", error)

    async def stop(self, grace_s: float) -> None:
        """Accept no more, answer what is in flight, then close; cut what is left after ``grace_s``.

        Idempotent.
        """
        self._stopping = True
        acceptors, self._acceptors = self._acceptors, []
        for acceptor in acceptors:
            acceptor.close()
        for connection in list(self._connections):
            connection.finish(fresh_too=False)
        loop = asyncio.get_running_loop()
        fresh_s = min(self._limits.fresh_connection_s, grace_s)
        timer = loop.call_later(fresh_s, self._finish_fresh)
        try:
            async with asyncio.timeout(grace_s):
                while self._connections:
                    self._gone.clear()
                    await self._gone.wait()
        except TimeoutError:
            if self._manager is not None:
                await self._manager.shutdown(_CANCEL_S)
        finally:
            timer.cancel()
            for welcome in self._welcomes:
                welcome.cancel()

    def _finish_fresh(self) -> None:
        for connection in list(self._connections):
            connection.finish(fresh_too=True)

    # What a connection asks of its server

    def admit(self, connection: Connection) -> bool:
        """Count a new connection; False beyond a cap (it is not counted then)."""
        per_client = self._limits.connections_per_client
        address = connection.remote_address
        if self._stopping or len(self._connections) >= self._limits.connections:
            return False
        if per_client and self._per_client[address] >= per_client:
            return False
        self._connections.add(connection)
        self._per_client[address] += 1
        return True

    def forget(self, connection: Connection) -> None:
        """A connection is gone."""
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        self._per_client[connection.remote_address] -= 1
        if not self._per_client[connection.remote_address]:
            del self._per_client[connection.remote_address]
        self._gone.set()

    def refusal(self, error: S3Error) -> bytes:
        """A whole answer to bytes that never became a request."""
        request_id = self._request_id()
        body = rendered(error, resource="", request_id=request_id, host_id=self._answers.host_id)
        head = (
            f"{self._answers.prefix(status_of(error.code))}x-amz-request-id: {request_id}\r\n"
            f"Content-Type: {CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode("latin-1") + body

    def _request_id(self) -> str:
        # Counting by an odd number visits all 2^64 values and does not look like counting.
        self._next_id = (self._next_id + _MIX) & _MASK
        return f"{self._next_id:016X}"

    # One request

    async def _serve(self, source: web.BaseRequest) -> web.StreamResponse:
        connection = source.protocol
        assert isinstance(connection, Connection)
        last = connection.last_trusted
        if last is not None and connection.answered >= last:
            # It stands behind a chunked body: its headers may not be its own.
            connection.answered += 1
            return CLOSED  # type: ignore[return-value]
        finished: Finished = CLOSED
        try:
            exchange, request = self._facade(source, connection)
            await self._handle(request)
            if exchange.keep_alive and connection.reusable:
                finished = KEPT
        except ConnectionError:
            connection.abort()
        finally:
            connection.answered += 1
        return finished  # type: ignore[return-value]

    def _facade(
        self, source: web.BaseRequest, connection: Connection
    ) -> tuple[HttpExchange, Request]:
        request_id = self._request_id()
        exchange = HttpExchange(source, connection, self._answers, self._limits, request_id)
        raw_target = source.raw_path
        if not raw_target.isascii():
            raw_target = raw_target.encode("utf-8", "surrogateescape").decode("latin-1")
        headers = Headers(source.raw_headers)
        request = Request(
            exchange=exchange,
            method=source.method,
            raw_target=raw_target,
            headers=headers,
            network=connection.network,
            secure=connection.secure,
            remote_address=connection.remote_address,
            request_id=request_id,
            host_id=self._answers.host_id,
        )
        request.wire = exchange
        try:
            self._object_to(source, headers)
            values = headers.by_lower_name
            exchange.expect_body(values.get("expect"), values.get("content-length"))
        except S3Error as objection:
            exchange.must_close = True
            request.objection = objection
        if "upgrade" in headers.by_lower_name:
            exchange.must_close = True
        return exchange, request

    def _object_to(self, source: web.BaseRequest, headers: Headers) -> None:
        """Refuse what the parser lets through but S3 has no use for."""
        values = headers.by_lower_name
        if source.method == "CONNECT":
            raise S3Error("MethodNotAllowed")
        coding = values.get("transfer-encoding")
        if coding is not None:
            if source.version < (1, 1):
                raise S3Error("InvalidRequest", "Transfer-Encoding needs HTTP/1.1.")
            if coding.lower() != "chunked":
                raise S3Error("NotImplemented", fields={"Header": "Transfer-Encoding"})
        if headers.size_bytes > self._limits.header_bytes:
            raise S3Error("RequestHeaderSectionTooLarge")
