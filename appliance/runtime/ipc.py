"""Calls between the appliance's processes over unix sockets.

Owns connections, their hello, pairing of calls and answers, and every bound on them. Refuses a
peer that speaks no common version, frames above the limit, and more calls in flight than agreed.

Both ends are equal: each may call, be called and notify. An ``ApplianceError`` raised by a handler
arrives at the caller as the same class with the same fields. A lost connection fails every call
that waits on it with ``Unavailable``: whether such a call took effect is unknown.
Invariant: every call ends, by its answer, its time limit, or the end of the connection.
All methods belong to the event loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias, cast

from appliance.core.errors import (
    ApplianceError,
    InvalidInput,
    NotFound,
    Unavailable,
    Unreachable,
)
from appliance.runtime import unix_sockets, wire
from appliance.runtime.unix_sockets import Credentials
from appliance.runtime.wire import FRAME_BYTES_MAX, Frame, Hello, Kind, ProtocolFault

CALLS_IN_FLIGHT_MAX: Final = 4096
"""Calls one side may have unanswered on one connection; further ones wait for room."""
UNSENT_BYTES_MAX: Final = 2 * FRAME_BYTES_MAX
"""What may wait for a peer that does not read, before the connection is given up."""
HELLO_TIMEOUT_S: Final = 10.0

_log = logging.getLogger(__name__)

Handler: TypeAlias = Callable[["Peer", Any], Awaitable[Any]]
"""Answers a call (or takes a notification; its result is then dropped). Runs as a task, or, when
it returns a ``Future`` instead of a coroutine, without one: the cheap way for busy methods. It is
not cancelled when its caller goes away; one that may wait for long watches ``Peer.wait_closed``."""

PeerCallback: TypeAlias = Callable[["Peer"], None]
_NO_HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType({})


class Peer(asyncio.Protocol):
    """One connection. Made by ``connect`` and ``serve``, never by hand."""

    def __init__(
        self,
        role: str,
        handlers: Mapping[str, Handler],
        on_open: PeerCallback | None = None,
        on_end: PeerCallback | None = None,
    ) -> None:
        self.role = ""
        """The other side's role, from its hello."""
        self.version = 0
        """What both sides speak; 0 before the hello."""
        self.closed = False
        self.credentials = Credentials(0, -1, -1)
        self._loop = asyncio.get_running_loop()
        self._hello = Hello(role)
        self._handlers = handlers
        self._on_open, self._on_end = on_open, on_end
        self._transport: asyncio.Transport | None = None
        self._reader = wire.FrameReader()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._next_id = 1
        self._answering = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._paused = False
        self._room: asyncio.Future[None] | None = None
        self._reason = "the connection was closed"

    # -- calling -------------------------------------------------------------------------------

    async def call(
        self, method: str, params: object = None, *, timeout_s: float | None = 30.0
    ) -> Any:
        """The answer of the other side's handler, or its error raised here. ``Unavailable`` when
        the connection is lost or the time is up: the call may or may not have taken effect."""
        while self._paused or len(self._pending) >= CALLS_IN_FLIGHT_MAX:
            await self._wait_for_room(method, timeout_s)
        if self.closed:
            raise self._lost(method)
        number = self._next_id
        self._next_id += 1
        self._send(wire.encode(Frame(Kind.CALL, number, method, params)))
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._pending[number] = answer
        if timeout_s is None:
            return await answer
        timer = self._loop.call_later(timeout_s, self._give_up, answer, method, timeout_s)
        try:
            return await answer
        finally:
            timer.cancel()

    def notify(self, method: str, params: object = None) -> None:
        """Tell the other side without waiting for anything. Dropped if the connection is lost."""
        if not self.closed:
            self._send(wire.encode(Frame(Kind.NOTIFY, 0, method, params)))

    async def wait_closed(self) -> None:
        """Return once the connection has ended, however it did."""
        await asyncio.shield(self._ended)

    async def wait_open(self) -> None:
        """Return after the other side's hello. Raises ``Unreachable`` when none came in time."""
        await asyncio.shield(self._opened)

    def close(self) -> None:
        """Send what was handed over, then end the connection. Idempotent."""
        if self._transport is not None and not self._transport.is_closing():
            self._flush()
            self._transport.close()

    def abort(self, reason: str) -> None:
        """End the connection at once; waiting calls fail with ``reason``. Idempotent."""
        if self._transport is not None and not self.closed:
            self._reason = reason
            self._transport.abort()

    # -- transport callbacks -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio's: the socket is there; say hello."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in shape only
        self.credentials = unix_sockets.transport_credentials(transport)
        timer = self._loop.call_later(HELLO_TIMEOUT_S, self.abort, "no hello came in time")
        self._opened.add_done_callback(lambda _: timer.cancel())
        self._send(wire.encode(self._hello.frame()))

    def data_received(self, data: bytes) -> None:
        """Asyncio's: bytes came."""
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
        except (ProtocolFault, Unreachable) as error:
            _log.error("connection to role %r ends: %s", self.role, error)
            self.abort(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio's: it is over; fail everything that waits."""
        self.closed = True
        self._paused = False
        pending, self._pending = self._pending, {}
        for answer in pending.values():
            if not answer.done():
                answer.set_exception(self._lost("a call"))
        self._make_room()
        if not self._opened.done():
            self._opened.set_exception(
                Unreachable(f"cannot talk to the other role: {self._reason}")
            )
            self._opened.exception()  # nobody need be waiting for it
        if self._on_end is not None:
            self._on_end(self)
        if not self._ended.done():
            self._ended.set_result(None)

    def pause_writing(self) -> None:
        """Asyncio's: the other side does not read as fast as we write."""
        self._paused = True

    def resume_writing(self) -> None:
        """Asyncio's: it caught up."""
        self._paused = False
        self._make_room()

    # -- frames in -----------------------------------------------------------------------------

    def _take(self, frame: Frame) -> None:
        if not self._opened.done():
            theirs = wire.read_hello(frame)
            self.version = wire.agree(self._hello, theirs)
            self.role = theirs.role
            self._opened.set_result(None)
            if self._on_open is not None:
                self._on_open(self)
        elif frame.kind == Kind.CALL:
            self._take_call(frame)
        elif frame.kind == Kind.NOTIFY:
            handler = self._handlers.get(frame.name)
            if handler is not None:  # an unknown one is a newer release's; nobody waits for it
                self._start(handler, frame)
        elif frame.kind in (Kind.REPLY, Kind.ERROR):
            self._take_answer(frame)
        else:
            raise ProtocolFault(f"a frame of unknown kind {frame.kind}")

    def _take_answer(self, frame: Frame) -> None:
        answer = self._pending.pop(frame.id, None)
        if answer is None:
            raise ProtocolFault(f"an answer to a call never made: {frame.id}")
        if not answer.done():  # its caller may have gone
            if frame.kind == Kind.REPLY:
                answer.set_result(frame.payload)
            else:
                answer.set_exception(wire.read_error(frame))
        if self._room is not None:
            self._make_room()

    def _take_call(self, frame: Frame) -> None:
        handler = self._handlers.get(frame.name)
        if handler is None:
            error = NotFound(f"role {self._hello.role!r} has no method {frame.name!r}")
            self._send(wire.encode(wire.error_frame(frame.id, error)))
            return
        if self._answering >= CALLS_IN_FLIGHT_MAX:
            raise ProtocolFault(f"more than {CALLS_IN_FLIGHT_MAX} calls in flight")
        self._answering += 1
        self._start(handler, frame)

    def _start(self, handler: Handler, frame: Frame) -> None:
        try:
            awaitable = handler(self, frame.payload)
        except Exception as error:  # noqa: BLE001 - its bugs end its call, not us
            self._finish(frame, None, error)
            return
        if isinstance(awaitable, asyncio.Future) and not isinstance(awaitable, asyncio.Task):
            awaitable.add_done_callback(lambda future: self._finish_future(frame, future))
            return
        task = self._loop.create_task(self._run(frame, awaitable), name=f"ipc {frame.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, frame: Frame, awaitable: Awaitable[Any]) -> None:
        try:
            result = await awaitable
        except Exception as error:  # noqa: BLE001 - as in _start
            self._finish(frame, None, error)
        else:
            self._finish(frame, result, None)

    def _finish_future(self, frame: Frame, future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            self._finish(frame, None, Unavailable(f"{frame.name} was cancelled"))
        elif (error := future.exception()) is not None:
            self._finish(frame, None, error)
        else:
            self._finish(frame, future.result(), None)

    def _finish(self, frame: Frame, result: object, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, ApplianceError):
            _log.error("%s failed unexpectedly", frame.name, exc_info=error)
            error = ApplianceError(f"{frame.name} failed inside role {self._hello.role!r}")
        if frame.kind != Kind.CALL:
            if error is not None:
                _log.warning("notification %s: %s", frame.name, error)
            return
        self._answering -= 1
        if self.closed:
            return
        try:
            if error is None:
                self._send(wire.encode(Frame(Kind.REPLY, frame.id, "", result)))
            else:
                self._send(wire.encode(wire.error_frame(frame.id, error)))
        except InvalidInput as fault:
            _log.error("the answer to %s cannot be sent: %s", frame.name, fault)
            self._send(wire.encode(wire.error_frame(frame.id, ApplianceError(str(fault)))))

    # -- frames out ----------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        """Cork: everything handed over in one turn of the loop leaves in one system call."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(data)
        self._unsent_bytes += len(data)

    def _flush(self) -> None:
        if not self._unsent or self._transport is None:
            return
        data = self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent)
        self._unsent.clear()
        self._unsent_bytes = 0
        if self.closed or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() + len(data) > UNSENT_BYTES_MAX:
            self.abort("the other side does not read")
            return
        self._transport.write(data)

    async def _wait_for_room(self, method: str, timeout_s: float | None) -> None:
        if self._room is None:
            self._room = self._loop.create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self._room)
        except TimeoutError:
            raise Unavailable(
                f"{method}: role {self.role!r} took no call for {timeout_s} seconds"
            ) from None

    def _make_room(self) -> None:
        if self._room is not None:
            self._room.set_result(None)
            self._room = None

    def _give_up(self, answer: asyncio.Future[Any], method: str, timeout_s: float) -> None:
        # Its slot stays taken until the answer comes: the other side still works on it.
        if not answer.done():
            answer.set_exception(
                Unavailable(f"{method}: role {self.role!r} did not answer in {timeout_s} seconds")
            )

    def _lost(self, what: str) -> Unavailable:
        role = self.role or "unknown"
        return Unavailable(f"{what}: connection to role {role!r} lost: {self._reason}")


class Server:
    """A listening unix socket and its connections. Made by ``serve``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.peers: set[Peer] = set()
        self._server: asyncio.Server | None = None

    async def close(self) -> None:
        """Stop listening, end every connection after sending what was handed over, and remove the
        socket's file. Idempotent."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        peers = list(self.peers)
        for peer in peers:
            peer.close()
        for peer in peers:
            await peer.wait_closed()
        await server.wait_closed()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


async def serve(
    path: Path,
    handlers: Mapping[str, Handler],
    *,
    mode: int = 0o660,
    on_open: PeerCallback | None = None,
    on_close: PeerCallback | None = None,
    role: str = "server",
) -> Server:
    """Listen on ``path``. A dead process's socket there is replaced; a living one's is not:
    ``Unreachable``. ``on_open`` runs after a peer's hello, ``on_close`` when that peer is gone."""
    server = Server(path)

    def left(peer: Peer) -> None:
        server.peers.discard(peer)
        if on_close is not None and peer.version:
            on_close(peer)

    def make() -> Peer:
        peer = Peer(role, handlers, on_open, left)
        server.peers.add(peer)
        return peer

    loop = asyncio.get_running_loop()
    listener = unix_sockets.listen(path, mode=mode)
    server._server = await loop.create_unix_server(make, sock=listener)
    return server


async def connect(path: Path, *, role: str, handlers: Mapping[str, Handler] = _NO_HANDLERS) -> Peer:
    """A connection to the role that listens on ``path``, after both hellos. Raises
    ``Unreachable`` when nobody listens there or it is no such role."""
    loop = asyncio.get_running_loop()
    endpoint = unix_sockets.reach(path)
    _, peer = await loop.create_unix_connection(lambda: Peer(role, handlers), sock=endpoint)
    try:
        await peer.wait_open()
    except BaseException:
        peer.abort("the hello failed")
        raise
    return peer
