"""Taking connections off a listening socket that several processes share.

Owns when this process accepts: the more connections it has, the longer it leaves a new one to the
others. Whoever has least to do is thus the quickest, and few connections spread evenly, where a
kernel's hash of addresses often gives four of them to one process and none to the other. Refuses
nothing: a connection that nobody else takes is taken after ``delay_max_s``.

Invariant: while it is open, a waiting connection is always waited for or about to be accepted, so
that none is forgotten. Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final

BATCH_SHARE: Final = 8
"""One more than an eighth of its connections is accepted in one turn: a burst passes quickly."""
SHORTAGE_PAUSE_S: Final = 0.5

_log = logging.getLogger(__name__)


class Acceptor:
    """Accepts from one listening socket, which it then owns."""

    def __init__(
        self,
        listening: socket.socket,
        take: Callable[[socket.socket], None],
        crowd: Callable[[], int],
        *,
        step_s: float,
        delay_max_s: float,
    ) -> None:
        """Begin. ``take`` is given each accepted socket; ``crowd`` tells how many connections this
        process has; each of them is worth ``step_s`` of waiting."""
        self._listening = listening
        self._take = take
        self._crowd = crowd
        self._step_s = step_s
        self._delay_max_s = delay_max_s
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        self._wait()

    def close(self) -> None:
        """Accept no more. What waits is left to the other processes. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        if self._listening.fileno() >= 0:
            self._loop.remove_reader(self._listening)
            self._listening.close()

    def _wait(self) -> None:
        self._timer = None
        self._loop.add_reader(self._listening, self._somebody_waits)

    def _somebody_waits(self) -> None:
        delay_s = min(self._crowd() * self._step_s, self._delay_max_s)
        if delay_s <= 0:
            self._accept()
            return
        self._loop.remove_reader(self._listening)
        self._timer = self._loop.call_later(delay_s, self._accept_and_wait)

    def _accept_and_wait(self) -> None:
        if self._accept():
            self._wait()

    def _accept(self) -> bool:
        """Whether to wait for more; not while the process is short of descriptors."""
        for _ in range(1 + self._crowd() // BATCH_SHARE):
            try:
                accepted, _address = self._listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                break  # another process was quicker, or the client has left
            except OSError as error:
                _log.error("cannot accept connections for a moment: %s", error)
                self._loop.remove_reader(self._listening)
                self._timer = self._loop.call_later(SHORTAGE_PAUSE_S, self._wait)
                return False
            self._take(accepted)
        return True
