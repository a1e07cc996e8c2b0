"""The admin API on its unix socket.

Owns the socket file (mode and group are the access control, checked again per route through the
peer's identity) and the translation of errors to JSON: ``{"error": {"code", "message"}}``. Refuses
every caller that is neither root nor the user the service runs as, and, where a group is given,
its members. Invariant: no answer carries a traceback.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from aiohttp import web

from appliance.api.managers import Managers
from appliance.api.routes import BODY_BYTES_MAX, ROUTES, Access, Answer, Route, body_of
from appliance.core import errors

PREFIX: Final = "/v1"
LOGGED_BYTES_MAX: Final = 1000
"""Of a request to change something; none holds a secret."""
_PEER_CREDENTIALS: Final = struct.Struct("3i")

# One row per class a caller acts differently on: code for programs, status for HTTP.
CODES: Final[tuple[tuple[type[errors.ApplianceError], str, int], ...]] = (
    (errors.InvalidInput, "invalid-input", 400),
    (errors.NotFound, "not-found", 404),
    (errors.Refused, "refused", 409),
    (errors.ReadOnly, "read-only", 503),
    (errors.Unavailable, "unavailable", 503),
    (errors.NoSpace, "no-space", 507),
    (errors.Unreachable, "unreachable", 503),
    (errors.DriveFault, "drive-fault", 502),
    (errors.ApplianceError, "failed", 500),
)

_log = logging.getLogger(__name__)


class AdminServer:
    """Serves the route table on one unix socket."""

    def __init__(self, managers: Managers, path: Path, *, group: int | None = None) -> None:
        self._managers = managers
        self._path = path
        self._group = group
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listening on return. Raises ``Unreachable`` when another process serves the socket."""
        application = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[_speak_json])
        for route in ROUTES:
            handler = partial(_answer, self._managers, route)
            application.router.add_route(route.method, PREFIX + route.path, handler)
        runner = web.AppRunner(application, access_log=None, handle_signals=False)
        await runner.setup()
        listener = self._listen()
        await web.SockSite(runner, listener).start()
        self._runner = runner

    async def close(self) -> None:
        """Answers what was asked and goes. Idempotent."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
            with suppress(FileNotFoundError):
                self._path.unlink()

    def _listen(self) -> socket.socket:
        if _is_served(self._path):
            raise errors.Unreachable(
                f"cannot serve the admin socket {self._path}: another process serves it; "
                "stop that one first"
            )
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._path.unlink(missing_ok=True)
            # Nobody can connect between bind and chmod: listening begins afterwards.
            listener.bind(str(self._path))
            if self._group is not None:
                os.chown(self._path, -1, self._group)
            self._path.chmod(0o660 if self._group is not None else 0o600)
            listener.listen(64)
        except OSError as error:
            listener.close()
            raise errors.Unreachable(
                f"cannot serve the admin socket {self._path}: {error.strerror}"
            ) from error
        listener.setblocking(False)
        return listener


def _is_served(path: Path) -> bool:
    """Whether somebody answers there; a socket file left by a crash does not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


async def _answer(managers: Managers, route: Route, request: web.Request) -> web.Response:
    if route.access is Access.OPERATE:
        answer = await _operate(managers, route, request)
    else:
        answer = await route.handler(managers, request)
    return web.Response(body=body_of(answer), status=answer.status, content_type="application/json")


async def _operate(managers: Managers, route: Route, request: web.Request) -> Answer:
    """For root and the user this process runs as alone. Who asked for what, and what came of it, is
    in the journal."""
    process, user = _peer_of(request)
    asked = (await request.read())[:LOGGED_BYTES_MAX].decode("utf-8", "replace")
    what = f"user {user} (process {process}) asked for {request.method} {request.path} {asked!r}"
    try:
        if user not in {0, os.geteuid()}:
            raise errors.Refused(
                "cannot do that: only root and the service's own user may change anything"
            )
        answer = await route.handler(managers, request)
    except errors.ApplianceError as error:
        _log.warning("%s: %s", what, error)
        raise
    _log.info("%s: done", what)
    return answer


def _peer_of(request: web.Request) -> tuple[int, int]:
    """Process and user by the kernel's word; -1 for both of a peer that has left."""
    connection = request.get_extra_info("socket")
    if connection is None:
        return -1, -1
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    process, user, _ = _PEER_CREDENTIALS.unpack(raw)
    return process, user


@web.middleware
async def _speak_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except errors.ApplianceError as error:
        code, status = next((code, st) for kind, code, st in CODES if isinstance(error, kind))
        return _failure(code, status, str(error))
    except web.HTTPException as error:
        # The router's own refusals: unknown path, wrong method, body over the limit.
        return _failure("no-such-route", error.status, f"{request.method} {request.path}: {error}")
    except asyncio.CancelledError:
        raise
    except Exception:  # noqa: BLE001  outermost loop of a worker: the peer gets a sentence
        _log.exception("%s %s failed", request.method, request.path)
        return _failure("failed", 500, "an unexpected fault; the log has the details")


def _failure(code: str, status: int, message: str) -> web.Response:
    body = json.dumps({"error": {"code": code, "message": message}}).encode()
    return web.Response(body=body, status=status, content_type="application/json")
