"""How a client reaches its store: in the same process, or over a unix socket that may break.

Owns the connection and its re-making. Refuses with ``Unavailable`` what could not be delivered in
time. Invariant: a commit is only ever sent again with the same request id, so that however often it
arrives it happens once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from appliance.core.documents import from_document
from appliance.core.errors import Unavailable, Unreachable
from appliance.core.ports import Clock
from appliance.core.scrubs import ScrubOrder, ScrubReport
from appliance.engine.interface import Health
from appliance.engine.mirror.messages import MembersView, decode_health
from appliance.runtime.complaints import Complaints
from appliance.runtime.ipc import Peer, connect

if TYPE_CHECKING:
    from appliance.engine.mirror.service import StoreService

CALL_TIMEOUT_S: Final = 30.0
RETRY_FIRST_S: Final = 0.02
RETRY_MAX_S: Final = 0.5

_log = logging.getLogger(__name__)

OnMembers: TypeAlias = Callable[[MembersView], None]


class StorePort(Protocol):
    """What a client needs of a store."""

    async def commit(self, message: list[Any]) -> int:
        """The version. Raises the commit's ``EngineError``; ``Unavailable`` when the outcome could
        not be learnt in time."""
        ...

    async def make_room(self, size_bytes: int) -> float:
        """See ``Store.make_room``. Raises ``NoSpace``, ``Unavailable``."""
        ...

    async def health(self) -> Health: ...

    async def scrub(self, order: ScrubOrder) -> ScrubReport:
        """Say something about the scrub, and learn how it stands. Does not wait for it. Raises
        ``Refused``, ``Unavailable``."""
        ...

    def suspect(self, drive: str, place: bytes, reason: str) -> None:
        """Tell the store of a bad copy. Never waits, never raises. On the loop."""
        ...

    def active(self) -> None:
        """Tell the store that clients read. Never waits, never raises. On the loop."""
        ...

    async def order(self, what: str, message: object) -> None:
        """An operator's word for work beside the commits. Raises ``InvalidInput``, ``Refused``,
        ``Unavailable``."""
        ...

    async def start(self, on_members: OnMembers) -> None:
        """Begin to follow the members; ``on_members`` is called now if they are known, and on each
        change."""
        ...

    async def close(self) -> None: ...


class LocalPort:
    """The store runs in this process."""

    def __init__(self, service: StoreService, clock: Clock, *, patience_s: float) -> None:
        self._service = service
        self._clock = clock
        self._patience_s = patience_s
        self._complaints = Complaints(_log)

    async def commit(self, message: list[Any]) -> int:
        """See ``StorePort``."""
        deadline_s = self._clock.monotonic_s() + self._patience_s
        pause_s = RETRY_FIRST_S
        while True:
            try:
                return await self._service.commit(message)
            except Unavailable:
                if self._clock.monotonic_s() + pause_s > deadline_s:
                    raise
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, RETRY_MAX_S)

    async def make_room(self, size_bytes: int) -> float:
        """See ``StorePort``."""
        return await self._service.make_room(size_bytes)

    async def health(self) -> Health:
        """See ``StorePort``."""
        return await self._service.health()

    async def scrub(self, order: ScrubOrder) -> ScrubReport:
        """See ``StorePort``."""
        return await asyncio.to_thread(self._service.scrub, order)

    def suspect(self, drive: str, place: bytes, reason: str) -> None:
        """See ``StorePort``."""
        self._complaints.say(drive, f"drive {drive}: bad copy: {reason}")
        self._service.suspect(drive, place)

    def active(self) -> None:
        """See ``StorePort``."""
        self._service.active()

    async def order(self, what: str, message: object) -> None:
        """See ``StorePort``."""
        self._service.order(what, message)

    async def start(self, on_members: OnMembers) -> None:
        """See ``StorePort``."""
        self._service.watch(on_members)
        try:
            on_members(self._service.view())
        except Unavailable:
            _log.debug("the store does not serve yet")  # the watch tells when it does

    async def close(self) -> None:
        """The service is its maker's."""


class PeerPort:
    """The store is another process, which may be replaced at any time."""

    def __init__(self, socket: Path, role: str, clock: Clock, *, patience_s: float) -> None:
        self._socket = socket
        self._role = role
        self._clock = clock
        self._patience_s = patience_s
        self._peer: Peer | None = None
        self._on_members: OnMembers | None = None
        self._connected = asyncio.Event()
        self._complaints = Complaints(_log)
        self._keeper: asyncio.Task[None] | None = None

    async def start(self, on_members: OnMembers) -> None:
        """See ``StorePort``."""
        self._on_members = on_members
        self._keeper = asyncio.create_task(self._keep(), name=f"store {self._socket.name}")

    async def commit(self, message: list[Any]) -> int:
        """See ``StorePort``."""
        return int(await self._call("commit", message))

    async def make_room(self, size_bytes: int) -> float:
        """See ``StorePort``."""
        return float(await self._call("make_room", size_bytes))

    async def health(self) -> Health:
        """See ``StorePort``."""
        peer = self._peer
        if peer is None:
            raise Unavailable("the store cannot be reached")
        return decode_health(await peer.call("health", timeout_s=CALL_TIMEOUT_S))

    async def scrub(self, order: ScrubOrder) -> ScrubReport:
        """See ``StorePort``."""
        peer = self._peer
        if peer is None:
            raise Unavailable("the store cannot be reached")
        answer = await peer.call("scrub", order.value, timeout_s=CALL_TIMEOUT_S)
        return from_document(ScrubReport, answer)

    def suspect(self, drive: str, place: bytes, reason: str) -> None:
        """See ``StorePort``."""
        self._complaints.say(drive, f"drive {drive}: bad copy: {reason}")
        if self._peer is not None:
            self._peer.notify("suspect", [drive, place, reason])

    def active(self) -> None:
        """See ``StorePort``."""
        if self._peer is not None:
            self._peer.notify("active")

    async def order(self, what: str, message: object) -> None:
        """See ``StorePort``."""
        peer = self._peer
        if peer is None:
            raise Unavailable("the store cannot be reached")
        await peer.call(what, message, timeout_s=CALL_TIMEOUT_S)

    async def close(self) -> None:
        """Idempotent."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        if self._peer is not None:
            self._peer.close()
            self._peer = None

    async def _call(self, method: str, message: object) -> Any:
        """Again and again until it is answered or patience ends."""
        peer = self._peer
        if peer is not None:
            try:
                return await peer.call(method, message, timeout_s=None)
            except Unavailable:
                _log.debug("%s was not answered: trying again", method)
        deadline_s = self._clock.monotonic_s() + self._patience_s
        pause_s = RETRY_FIRST_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, RETRY_MAX_S)
            left_s = deadline_s - self._clock.monotonic_s()
            if left_s <= 0:
                raise Unavailable(f"the store did not answer within {self._patience_s:g} s")
            try:
                async with asyncio.timeout(left_s):
                    await self._connected.wait()
                if (peer := self._peer) is not None:
                    return await peer.call(method, message, timeout_s=max(left_s, 1.0))
            except (Unavailable, TimeoutError):
                continue

    async def _keep(self) -> None:
        """Hold a connection, and learn the members anew with each one."""
        pause_s = RETRY_FIRST_S
        while True:
            try:
                peer = await connect(
                    self._socket, role=self._role, handlers={"members_changed": self._changed}
                )
            except (Unreachable, Unavailable, OSError):
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_MAX_S)
                continue
            pause_s = RETRY_FIRST_S
            try:
                self._tell(await peer.call("members"))
            except Unavailable:
                _log.debug("the store has no members yet")  # it tells when it has
            self._peer = peer
            self._connected.set()
            await peer.wait_closed()
            self._peer = None
            self._connected.clear()

    async def _changed(self, _peer: Peer, message: Any) -> None:
        self._tell(message)

    def _tell(self, message: Any) -> None:
        if self._on_members is not None:
            self._on_members(MembersView.decode(message))
