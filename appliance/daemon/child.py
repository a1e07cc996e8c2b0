"""One role as a child of the development supervisor: started, watched, started again.

Owns the process, its readiness socket, the descriptors it wants kept, and the back-off. Refuses to
start again what ended before it was ever ready, by a busy port or a wrong configuration: that is
the supervisor's end.
Invariant: at most one process per child; after ``stop`` none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from appliance.core.errors import Unreachable
from appliance.daemon.exits import EXIT_FAILED, HOPELESS_CODES, PARENT_VARIABLE
from appliance.system.descriptors import KEPT_VARIABLE

STEADY_S: Final = 10.0
"""A process that lived so long is started again at once, whatever happened before."""
DELAY_S_MIN: Final = 0.05
DELAY_S_MAX: Final = 1.0
FIRST_STARTS_MAX: Final = 8
CRASHES_TOLD: Final = 3
CRASHES_WINDOW_S: Final = 300.0
_MESSAGE_BYTES_MAX: Final = 4096

_log = logging.getLogger(__name__)


class Child:
    """Used from one event loop."""

    def __init__(
        self,
        role: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        parent_pipe: int,
        on_ready: Callable[[], None],
        *,
        first_starts: int = FIRST_STARTS_MAX,
    ) -> None:
        """``first_starts``: how often it may fail before it was ready for the first time."""
        self.role: Final = role
        self.process_id = 0
        self.was_ready: Final = asyncio.Event()
        self.status = "starting"
        self._arguments = list(arguments)
        self._parent_pipe = parent_pipe
        self._on_ready = on_ready
        self._first_starts = first_starts
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._crashes_s: list[float] = []
        self._kept: dict[str, int] = {}
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._notices.bind(b"")  # the kernel picks a free abstract name: no path to be too long
        address: bytes = self._notices.getsockname()
        name = "@" + address[1:].decode("ascii")
        self._environment = {
            **environment,
            "NOTIFY_SOCKET": name,
            PARENT_VARIABLE: str(parent_pipe),
        }
        self._loop.add_reader(self._notices, self._take_notice)

    async def run(self) -> None:
        """Keep the role running until ``stop``. Raises ``Ended`` when it is hopeless."""
        starts, delay_s = 0, 0.0
        while not self._ending.is_set():
            starts += 1
            began_s = self._loop.time()
            code = await self._run_once()
            if self._ending.is_set():
                return
            if not self.was_ready.is_set() and (
                code in HOPELESS_CODES or starts >= self._first_starts
            ):
                raise Ended(self.role, code)
            self._note_crash(code)
            if self._loop.time() - began_s >= STEADY_S:
                delay_s = 0.0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._ending.wait()
            delay_s = min(max(delay_s * 2, DELAY_S_MIN), DELAY_S_MAX)

    async def stop(self, patience_s: float) -> None:
        """SIGTERM, and SIGKILL for one that does not end in time. Idempotent."""
        self._ending.set()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(patience_s):
                    await self._gone()
            except TimeoutError:
                _log.error("%s did not stop within %d s: killing it", self.role, patience_s)
                self.kill()
                await self._gone()

    def kill(self) -> None:
        """End it at once; it is made for that."""
        self._ending.set()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def close(self) -> None:
        """Give the readiness socket back, and what the role had kept."""
        if self._notices.fileno() >= 0:
            self._loop.remove_reader(self._notices)
            self._notices.close()
        while self._kept:
            os.close(self._kept.popitem()[1])

    async def _run_once(self) -> int:
        self._process = self._spawn()
        self.process_id = self._process.pid
        await self._gone()
        code = self._process.wait()
        self._process, self.process_id = None, 0
        return code

    def _spawn(self) -> subprocess.Popen[bytes]:
        kept = "\n".join(f"{name}={descriptor}" for name, descriptor in self._kept.items())
        # A session of its own: Ctrl-C reaches the supervisor alone, which stops roles in order.
        return subprocess.Popen(
            self._arguments,
            env={**self._environment, KEPT_VARIABLE: kept},
            pass_fds=(self._parent_pipe, *self._kept.values()),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    async def _gone(self) -> None:
        """Return once the process has ended; it is still to be reaped."""
        process = self._process
        if process is None:
            return
        descriptor = os.pidfd_open(process.pid)
        ended = asyncio.Event()
        self._loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)

    def _note_crash(self, code: int) -> None:
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        _log.warning("%s ended %s: starting it again", self.role, how)
        now_s = self._loop.time()
        recent = [when for when in self._crashes_s if now_s - when < CRASHES_WINDOW_S]
        self._crashes_s = [*recent, now_s]
        if len(self._crashes_s) == CRASHES_TOLD:
            _log.error("%s crashed %d times in five minutes", self.role, CRASHES_TOLD)

    def _take_notice(self) -> None:
        with contextlib.suppress(BlockingIOError):
            message, descriptors, _, _ = socket.recv_fds(self._notices, _MESSAGE_BYTES_MAX, 1)
            lines = message.decode("utf-8", "replace").splitlines()
            told = dict(line.partition("=")[::2] for line in lines)
            if told.get("FDSTORE") == "1" or told.get("FDSTOREREMOVE") == "1":
                self._keep(told.get("FDNAME", ""), descriptors)
            self.status = told.get("STATUS", self.status)
            if told.get("READY") == "1":
                self.was_ready.set()
                self._on_ready()

    def _keep(self, name: str, descriptors: list[int]) -> None:
        """Hold a descriptor for the role's next life, as systemd does; none: let it go."""
        former = self._kept.pop(name, None)
        if former is not None:
            os.close(former)
        for descriptor in descriptors:
            self._kept[name] = descriptor


class Ended(Unreachable):
    """A role cannot be had. Its own sentence is on standard error already; ``code`` is how it
    ended."""

    def __init__(self, role: str, code: int) -> None:
        super().__init__(f"cannot start: {role} ended at its start")
        self.code: Final = code if code > 0 else EXIT_FAILED
