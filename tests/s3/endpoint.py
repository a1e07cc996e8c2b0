"""The S3 front in this process: the real server on a TLS socket, over the simulated engine.

Owns the background thread with its event loop. Invariant: what a test speaks to is the code that
runs in a gateway; only the engine below and the key store are simulated.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from appliance.core.errors import NotFound
from appliance.core.ports import Credential, Owner
from appliance.engine.sim import SimulatedEngine
from appliance.objects.limits import ObjectLimits
from appliance.objects.store import ObjectStore
from appliance.runtime.clock import SystemClock, SystemEntropy
from appliance.s3.gateway import Gateway
from appliance.s3.limits import FrontLimits
from appliance.s3.operation import Settings
from appliance.s3.router import Router
from appliance.s3.server import Listener, S3Server
from appliance.s3.target import Domains
from appliance.s3.tls import Certificate, TlsContexts
from tests.s3.certificates import throwaway_certificates

REGION = "us-east-1"
DOMAIN = "localhost"
_START_TIMEOUT_S = 20
_STOP_GRACE_S = 1.0
_LIMITS = FrontLimits(shutdown_s=0.2)


@dataclass(frozen=True, slots=True)
class Account:
    """Who a client signs as."""

    name: str
    user_id: str
    display_name: str
    access_key: str
    secret_key: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a test needs to speak to a running front."""

    endpoint: str
    region: str
    authority: Path
    accounts: Mapping[str, Account]
    engine: SimulatedEngine | None = None
    router: Router | None = None
    loop: asyncio.AbstractEventLoop | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.endpoint.removeprefix("https://").partition(":")
        return host, int(port)


class StaticKeys:
    """A key store that is a table: ``main`` and ``alt`` of one contract, ``other`` of another."""

    def __init__(self) -> None:
        self.accounts = {name: _account(name) for name in ("main", "alt", "other")}
        self._credentials = {
            account.access_key: Credential(
                access_key=account.access_key,
                secret_key=account.secret_key,
                user_id=account.user_id,
                display_name=account.display_name,
                contract="globex" if account.name == "other" else "acme",
            )
            for account in self.accounts.values()
        }

    async def credential(self, access_key: str) -> Credential | None:
        return self._credentials.get(access_key)

    async def contract_key(self, contract: str) -> bytes:
        if contract not in {"acme", "globex"}:
            raise NotFound(f"no contract {contract}")
        return hashlib.sha256(contract.encode()).digest()

    async def owner(self, contract: str, user_id: str) -> Owner | None:
        for credential in self._credentials.values():
            if (credential.contract, credential.user_id) == (contract, user_id):
                return Owner(credential.user_id, credential.display_name)
        return None


def _account(name: str) -> Account:
    return Account(
        name=name,
        user_id=hashlib.sha256(name.encode()).hexdigest(),
        display_name=name.title(),
        access_key=f"AKIA{name.upper():0<16}",
        secret_key=hashlib.sha1(name.encode()).hexdigest(),
    )


def _gateway(
    router: Router,
    keys: StaticKeys,
    clock: SystemClock,
    region: str,
    hashing: ThreadPoolExecutor,
) -> Gateway:
    return Gateway(
        router.dispatch,
        keys=keys,
        clock=clock,
        region=region,
        domains=Domains((DOMAIN,)),
        limits=_LIMITS,
        hashing=hashing,
    )


@contextmanager
def running_endpoint(
    folder: Path,
    *,
    settings: Settings | None = None,
    region: str = REGION,
    public_access: bool = True,
) -> Iterator[Endpoint]:
    """Serve until the block ends. ``folder`` gets the authority's certificate."""
    settings = settings or Settings(region=region)
    certificates = throwaway_certificates((DOMAIN, f"*.{DOMAIN}"))
    authority = folder / "authority.pem"
    authority.write_bytes(certificates.authority_pem)
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    port = listening.getsockname()[1]
    keys, engine, clock, entropy = StaticKeys(), SimulatedEngine(), SystemClock(), SystemEntropy()
    hashing = ThreadPoolExecutor(2, thread_name_prefix="hashing")
    names = (DOMAIN, f"*.{DOMAIN}")
    tls = TlsContexts([Certificate(names, certificates.chain_pem, certificates.key_pem)])
    loop = uvloop.new_event_loop()
    started, stop = threading.Event(), asyncio.Event()
    limits = ObjectLimits()
    store = ObjectStore(engine, keys, clock, entropy, limits, hashing, public_access=public_access)
    router = Router(store, settings)
    gateway = _gateway(router, keys, clock, settings.region, hashing)

    async def serve() -> None:
        server = S3Server(gateway.handle, clock=clock, entropy=entropy, limits=_LIMITS)
        await server.open([Listener(listening, "test", tls)])
        started.set()
        await stop.wait()
        await server.stop(_STOP_GRACE_S)
        # Clients that keep a refused connection never answer the end of TLS: let it time out.
        await asyncio.sleep(2 * _LIMITS.shutdown_s)

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        finally:
            started.set()
            loop.close()

    thread = threading.Thread(target=run, name="front")
    thread.start()
    try:
        assert started.wait(_START_TIMEOUT_S), "the front did not start"
        yield Endpoint(
            endpoint=f"https://localhost:{port}",
            region=settings.region,
            authority=authority,
            accounts=keys.accounts,
            engine=engine,
            router=router,
            loop=loop,
        )
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(_START_TIMEOUT_S)
        hashing.shutdown()
