"""The gateway role: S3 to clients.

Owns the order in which a gateway comes up and goes down. It takes its listening sockets from
control and everything else over IPC: certificates, secrets, the mirror to serve. It reads drives
and index directly, and writes only to its own staging. Refuses nothing itself.
Invariant: at a stop nothing new is accepted, and what is in flight is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from appliance.core.errors import ApplianceError, Unreachable
from appliance.daemon import engines
from appliance.daemon.config import Config
from appliance.daemon.deferred import DeferredEngine
from appliance.daemon.keystore import RemoteKeys
from appliance.daemon.lifetime import Lifetime
from appliance.daemon.listeners import HTTPS, LOCALHOST, network_of
from appliance.daemon.roles import gateway_role
from appliance.objects.limits import ObjectLimits
from appliance.objects.store import ObjectStore
from appliance.runtime.clock import SystemClock, SystemEntropy
from appliance.runtime.complaints import Complaints
from appliance.runtime.handover import take_sockets
from appliance.runtime.ipc import Peer
from appliance.runtime.link import Link
from appliance.s3.access import AccessRecord
from appliance.s3.gateway import Gateway
from appliance.s3.limits import ACCEPT_STEP_S, FrontLimits
from appliance.s3.operation import Settings
from appliance.s3.router import Router
from appliance.s3.server import Listener, S3Server
from appliance.s3.target import Domains
from appliance.s3.tls import Certificate, TlsContexts

STATUS_EVERY_S: Final = 5.0
CONTROL_S: Final = 60.0
RETRY_S: Final = 0.2
_log = logging.getLogger(__name__)


async def run(life: Lifetime, number: int) -> None:
    """The role from start to end."""
    async with contextlib.AsyncExitStack() as stack:
        gateway = GatewayRole(life, number, stack)
        await gateway.start()
        await life.stopped()
        await gateway.stop()


class GatewayRole:
    """Everything a gateway is made of, wired."""

    def __init__(self, life: Lifetime, number: int, stack: contextlib.AsyncExitStack) -> None:
        self._life = life
        self._config: Final[Config] = life.config
        self._role = gateway_role(number)
        self._number = number
        self._stack = stack
        self._engine = DeferredEngine()
        self._tls: TlsContexts | None = None
        self._requests = 0
        self._server: S3Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Serving on return; in development also connected to the mirror. Raises
        ``Unreachable`` when control does not come."""
        config = self._config
        clock, entropy = SystemClock(), SystemEntropy()
        link = Link(
            config.control_socket,
            role=self._role,
            handlers={"certificate_changed": self._certificate_changed},
            on_open=self._greet,
        )
        link.start()
        self._stack.push_async_callback(link.close)
        await link.peer(timeout_s=CONTROL_S)
        hashing = ThreadPoolExecutor(config.gateway.hashing_threads, "hashing")
        self._stack.callback(hashing.shutdown, wait=False, cancel_futures=True)
        keys = RemoteKeys(link, clock)
        self._stack.push_async_callback(self._engine.close)
        limits = ObjectLimits(single_part_max_bytes=config.gateway.single_part_max_bytes)
        store = ObjectStore(
            self._engine,
            keys,
            clock,
            entropy,
            limits,
            hashing,
            public_access=config.gateway.public_access,
        )
        front_limits = front_limits_of(config)
        gateway = Gateway(
            Router(store, Settings(region=config.service.region)).dispatch,
            keys=keys,
            clock=clock,
            region=config.service.region,
            domains=domains_of(config),
            limits=front_limits,
            hashing=hashing,
            on_record=self._count,
        )
        self._server = S3Server(gateway.handle, clock=clock, entropy=entropy, limits=front_limits)
        bringing_up = asyncio.create_task(self._bring_up(link), name="mirror")
        self._tasks = [bringing_up]
        if config.development.enabled:
            await bringing_up
        await self._server.open(self._listeners(await self._take_sockets()))
        self._tasks.append(asyncio.create_task(self._tell_status(), name="status"))
        self._life.ready(self._words())

    async def stop(self) -> None:
        """Answer what is in flight."""
        assert self._server is not None, "start comes first"
        await self._server.stop(self._config.gateway.stop_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- control

    async def _greet(self, peer: Peer) -> None:
        """At every new connection to control: it may show another certificate since."""
        await self._certificate_changed(peer, await peer.call("certificate"))

    async def _certificate_changed(self, peer: Peer, fields: Any) -> None:
        certificate = Certificate(
            tuple(fields["names"]), bytes(fields["chain_pem"]), bytes(fields["key_pem"])
        )
        if self._tls is None:
            self._tls = TlsContexts([certificate])
        else:
            self._tls.replace([certificate])

    async def _take_sockets(self) -> Mapping[str, socket.socket]:
        path = self._config.sockets_of(self._number)
        deadline = asyncio.get_running_loop().time() + CONTROL_S
        while True:
            try:
                taken = await take_sockets(path)
                break
            except Unreachable:
                # Control may be restarting too.
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(RETRY_S)
        if not taken:
            raise Unreachable("cannot serve: control hands this process no listening sockets")
        return taken

    def _listeners(self, taken: Mapping[str, socket.socket]) -> list[Listener]:
        listeners = []
        for name, listener in taken.items():
            scheme, network = network_of(name)
            listeners.append(Listener(listener, network, self._tls if scheme == HTTPS else None))
        return listeners

    # -- the mirror

    async def _bring_up(self, link: Link) -> None:
        complaints = Complaints(_log)
        while True:
            try:
                mirror = await link.call("mirror", timeout_s=None)
                self._engine.set(await engines.connect(self._config, mirror, role=self._role))
            except ApplianceError as error:
                complaints.say("mirror", f"no mirror to serve yet: {error}")
                await asyncio.sleep(RETRY_S)
            else:
                return

    # -- telling

    def _count(self, record: AccessRecord) -> None:
        self._requests += 1

    def _words(self) -> str:
        connections = 0 if self._server is None else self._server.connections
        return f"serving {connections} connections; {self._requests} requests so far"

    async def _tell_status(self) -> None:
        while True:
            await asyncio.sleep(STATUS_EVERY_S)
            self._life.status(self._words())


def front_limits_of(config: Config) -> FrontLimits:
    """The front's limits as configured."""
    section = config.gateway
    return FrontLimits(
        connections=section.connections,
        connections_per_client=section.connections_per_client,
        idle_s=section.idle_s,
        body_wait_s=section.body_wait_s,
        backlog=config.listen.backlog,
        accept_step_s=ACCEPT_STEP_S if config.gateways > 1 else 0.0,
    )


def domains_of(config: Config) -> Domains:
    """The names under which buckets are hosts: ``BUCKET.s3.ZONE``."""
    names = [f"s3.{config.service.zone}"]
    return Domains([*names, LOCALHOST] if config.development.enabled else names)
