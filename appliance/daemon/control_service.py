"""What control answers the stores, the gateways and, in development, the supervisor.

Owns control's socket and the list of who is connected. Refuses callers without the right (see
``reach``). Invariant: the master key and the authority's key are in no answer; a gateway gets the
secrets of the access keys and contracts it asks for, a store gets none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from appliance.control.disks.assembly import Assembly
from appliance.control.disks.manager import Disks
from appliance.control.tls.certificates import ServerCertificate
from appliance.core.admin import RoleReport
from appliance.core.errors import InvalidInput, NotFound, Unavailable
from appliance.core.ports import KeyStore
from appliance.daemon.keystore import credential_fields
from appliance.daemon.mirrors import Mirrors
from appliance.daemon.reach import Right, Rights
from appliance.daemon.roles import store_role
from appliance.runtime.ipc import Handler, Peer, Server, serve

SERVICE_GROUP_MODE: Final = 0o660


@dataclass(frozen=True, slots=True)
class Parts:
    """What the answers are taken from."""

    disks: Disks
    mirrors: Mirrors
    keys: KeyStore
    certificate: Callable[[], ServerCertificate]
    describe: Callable[[], Awaitable[dict[str, object]]]


class ControlService:
    """Used from one event loop."""

    def __init__(self, parts: Parts, rights: Rights) -> None:
        self._parts = parts
        self._rights = rights
        self._server: Server | None = None
        self._unsubscribe: Callable[[], None] | None = None

    async def start(self, path: Path) -> None:
        """Listen. Raises ``Unreachable`` when another control does already."""
        self._server = await serve(path, self._handlers(), mode=SERVICE_GROUP_MODE, role="control")
        self._unsubscribe = self._parts.disks.subscribe(self._tell_stores)

    async def close(self) -> None:
        """Idempotent."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        if self._server is not None:
            await self._server.close()

    def roles(self, expected: Sequence[str]) -> list[RoleReport]:
        """Every role that should be there, and whether it is."""
        peers = {peer.role: peer for peer in self._peers()}
        return [
            RoleReport(role, "running", peers[role].credentials.process_id)
            if role in peers
            else RoleReport(role, "away", detail="it has no connection to control")
            for role in expected
        ]

    def tell_certificate(self) -> None:
        """Gateways use the current certificate from the next handshake on."""
        for peer in self._peers():
            if peer.role.startswith("gateway"):
                peer.notify("certificate_changed", _certificate(self._parts.certificate()))

    # -- answers

    def _handlers(self) -> dict[str, Handler]:
        rights = {
            "assembly": (Right.STORE, self._assembly),
            "drive_failed": (Right.STORE, self._drive_failed),
            "mirror": (Right.GATEWAY, self._mirror),
            "credential": (Right.GATEWAY, self._credential),
            "contract_key": (Right.GATEWAY, self._contract_key),
            "owner": (Right.GATEWAY, self._owner),
            "certificate": (Right.GATEWAY, self._certificate),
            "describe": (Right.OWN, self._describe),
        }
        return {
            method: self._rights.guard(method, right, answer)
            for method, (right, answer) in rights.items()
        }

    async def _assembly(self, peer: Peer, params: Any) -> object:
        """Where a mirror's drives are; waits until one of them is there."""
        name = _text(params)
        assembled = asyncio.ensure_future(self._parts.disks.assembled(name))
        gone = asyncio.ensure_future(peer.wait_closed())
        await asyncio.wait({assembled, gone}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not assembled.done():
            assembled.cancel()
            raise Unavailable("the store that asked is gone")
        return assembled.result().message()

    async def _drive_failed(self, peer: Peer, params: Any) -> None:
        drive, reason = params
        self._parts.disks.report_failed(_text(drive), _text(reason))

    async def _mirror(self, peer: Peer, params: Any) -> str:
        """The name of the mirror to serve, once there is one."""
        known = asyncio.ensure_future(self._parts.mirrors.known.wait())
        gone = asyncio.ensure_future(peer.wait_closed())
        await asyncio.wait({known, gone}, return_when=asyncio.FIRST_COMPLETED)
        known.cancel()
        gone.cancel()
        if not self._parts.mirrors.known.is_set():
            raise Unavailable("the gateway that asked is gone")
        return self._parts.mirrors.first

    async def _credential(self, peer: Peer, params: Any) -> object:
        credential = await self._parts.keys.credential(_text(params))
        return None if credential is None else credential_fields(credential)

    async def _contract_key(self, peer: Peer, params: Any) -> bytes | None:
        try:
            return await self._parts.keys.contract_key(_text(params))
        except NotFound:
            return None

    async def _owner(self, peer: Peer, params: Any) -> object:
        contract, user_id = params
        owner = await self._parts.keys.owner(_text(contract), _text(user_id))
        return None if owner is None else [owner.user_id, owner.display_name]

    async def _certificate(self, peer: Peer, params: Any) -> object:
        return _certificate(self._parts.certificate())

    async def _describe(self, peer: Peer, params: Any) -> object:
        return await self._parts.describe()

    # -- telling

    def _tell_stores(self, assembly: Assembly) -> None:
        self._parts.mirrors.notice(assembly.mirror)
        for peer in self._peers():
            if peer.role == store_role(assembly.mirror):
                peer.notify("assembly_changed", assembly.message())

    def _peers(self) -> list[Peer]:
        return [] if self._server is None else list(self._server.peers)


def _certificate(certificate: ServerCertificate) -> dict[str, object]:
    return {
        "names": certificate.names,
        "chain_pem": certificate.chain_pem,
        "key_pem": certificate.key_pem,
    }


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"{value!r} is not a name")
    return value
