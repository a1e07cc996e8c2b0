"""The store role: the single writer of one mirror.

Owns the order in which a store comes up and goes down. It asks control where its drives are, waits
until some are there, and answers commits. Refuses nothing itself.
Invariant: at a stop every commit that was handed over is answered, and the index is flushed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, Final

from appliance.core.errors import ApplianceError
from appliance.daemon.config import Config
from appliance.daemon.lifetime import Lifetime
from appliance.daemon.roles import store_role
from appliance.engine.interface import Health, MirrorState
from appliance.engine.mirror.service import StoreService
from appliance.engine.mirror.state import StoreSettings
from appliance.engine.mirror.throttle import Pace
from appliance.runtime.clock import SystemClock, SystemEntropy
from appliance.runtime.complaints import Complaints
from appliance.runtime.ipc import Peer, serve
from appliance.runtime.link import Link

DAY_S: Final = 86_400.0
STATUS_EVERY_S: Final = 5.0
OPEN_S: Final = 120.0
REPORT_AGAIN_S: Final = 15.0
SOCKET_MODE: Final = 0o660
_log = logging.getLogger(__name__)


async def run(life: Lifetime, mirror: str) -> None:
    """The role from start to end."""
    async with contextlib.AsyncExitStack() as stack:
        store = StoreRole(life, mirror, stack)
        await store.start()
        await life.stopped()


class StoreRole:
    """Everything a store is made of, wired."""

    def __init__(self, life: Lifetime, mirror: str, stack: contextlib.AsyncExitStack) -> None:
        self._life = life
        self._mirror = mirror
        self._stack = stack
        self._clock = SystemClock()
        settings = store_settings_of(life.config)
        self._service = StoreService(clock=self._clock, entropy=SystemEntropy(), settings=settings)
        self._link: Link | None = None
        self._assembly: Any = None
        self._assembled = asyncio.Event()
        self._reported: dict[str, float] = {}
        self._complaints = Complaints(_log)

    async def start(self) -> None:
        """The mirror serves on return. Waits for drives as long as it takes."""
        config = self._life.config
        self._stack.push_async_callback(self._service.close)
        self._link = Link(
            config.control_socket,
            role=store_role(self._mirror),
            handlers={"assembly_changed": self._assembly_changed},
            on_open=self._ask_assembly,
        )
        self._link.start()
        self._stack.push_async_callback(self._link.close)
        await self._life.during_start("waiting for control and drives", self._assembled.wait())
        self._service.watch(lambda view: self._look())
        self._service.start(self._assembly)
        server = await serve(
            config.store_socket(self._mirror),
            self._service.handlers(),
            mode=SOCKET_MODE,
            on_open=self._service.peer_opened,
            on_close=self._service.peer_closed,
            role=store_role(self._mirror),
        )
        self._stack.push_async_callback(server.close)
        # Answers what was handed over, while the connections that asked are still there.
        self._stack.push_async_callback(self._service.close)
        self._life.still_starting("recovering", OPEN_S)
        await self._wait_serving()
        self._life.ready(f"mirror {self._mirror} serves")
        telling = asyncio.create_task(self._tell_status(), name="status")
        self._stack.callback(telling.cancel)

    async def _wait_serving(self) -> None:
        """A mirror that may not serve (a member missing, read-only) is told, not failed: the
        process goes on waiting, and operators see why."""
        waited_s = 0.0
        while not self._service.serving.is_set():
            try:
                async with asyncio.timeout(STATUS_EVERY_S):
                    await self._service.serving.wait()
            except TimeoutError:
                waited_s += STATUS_EVERY_S
                health = await self._service.health()
                self._tell_trouble(health)
                self._life.still_starting(_words(self._mirror, health), OPEN_S)
                if waited_s >= OPEN_S:
                    return

    # -- control

    async def _ask_assembly(self, peer: Peer) -> None:
        """At every new connection to control: drives may have come or gone since."""
        await self._assembly_changed(
            peer, await peer.call("assembly", self._mirror, timeout_s=None)
        )

    async def _assembly_changed(self, peer: Peer, message: Any) -> None:
        if self._assembled.is_set():
            if message != self._assembly:
                self._service.assembly_changed(message)
        elif message["members"]:
            self._assembled.set()
        else:
            return
        self._assembly = message

    # -- telling

    def _look(self) -> None:
        task = asyncio.ensure_future(self._report_failed())
        task.add_done_callback(lambda done: done.exception())

    async def _report_failed(self) -> None:
        """Have control mount a drive afresh that the mirror gave up; not again and again."""
        health = await self._service.health()
        self._tell_trouble(health)
        mounted = {member["drive"] for member in self._assembly["members"]}
        now_s = self._clock.monotonic_s()
        for member in health.members:
            given_up = not member.in_sync and not member.present and member.reason
            if member.drive_id not in mounted or not given_up:
                continue
            if now_s - self._reported.get(member.drive_id, -REPORT_AGAIN_S) < REPORT_AGAIN_S:
                continue
            self._reported[member.drive_id] = now_s
            assert self._link is not None, "start comes first"
            peer = await self._link.peer()
            peer.notify("drive_failed", [member.drive_id, member.reason])

    def _tell_trouble(self, health: Health) -> None:
        """A mirror that is not in sync is never silent, and says each reason once."""
        if health.state is not MirrorState.IN_SYNC:
            self._complaints.say(self._mirror, _trouble(self._mirror, health))
        elif self._complaints.over(self._mirror):
            _log.info("mirror %s is in sync again", self._mirror)

    async def _tell_status(self) -> None:
        while True:
            try:
                self._life.status(_words(self._mirror, await self._service.health()))
                await self._report_failed()
                self._complaints.over("status")
            except ApplianceError as error:
                self._complaints.say("status", str(error))
            await asyncio.sleep(STATUS_EVERY_S)


def _trouble(mirror: str, health: Health) -> str:
    reasons = [
        f"drive {member.drive_id}: {member.reason or 'not in sync'}"
        for member in health.members
        if not member.in_sync
    ]
    why = "; ".join(filter(None, [health.reason, *reasons]))
    return f"mirror {mirror} is {health.state.value}: {why}"


def _words(mirror: str, health: Health) -> str:
    """One line for a person."""
    words = f"mirror {mirror} {health.state.value}, epoch {health.epoch}"
    if health.total_bytes:
        used = health.total_bytes - health.free_bytes
        words += f", {100 * used // health.total_bytes} % full"
    return f"{words}: {health.reason}" if health.reason else words


def store_settings_of(config: Config) -> StoreSettings:
    """A mirror's settings as configured."""
    section = config.store
    return StoreSettings(
        missing_members_wait_s=section.missing_drive_wait_s,
        deadline_s=section.drive_deadline_s,
        resync_pace=Pace(section.resync_limit_mib_s, section.resync_busy_percent),
        resync_threads=section.resync_threads,
        resync_commit_percent=section.resync_commit_percent,
        read_errors_advised=section.read_errors_advised,
        crash_limit=section.crash_limit,
        crash_window_s=section.crash_window_s,
        scrub_every_s=section.scrub_interval_days * DAY_S,
        scrub_pace=Pace(section.scrub_limit_mib_s, section.scrub_busy_percent),
        compaction_pace=Pace(section.compaction_limit_mib_s, section.compaction_busy_percent),
    )
