"""The control role: desired state to reality.

Owns the order in which control's parts come up and go down. It comes up without any store: ports
are bound first, so that a busy one is told at once; then keys, certificates, drives and the sockets
the other roles ask on. What needs the appliance's own records follows as soon as a mirror serves.
Invariant: listening sockets are closed last, so that clients queue as long as control lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from appliance.api.managers import Managers
from appliance.api.server import AdminServer
from appliance.control.accounts.accounts import Accounts
from appliance.control.disks.bay import Bay
from appliance.control.disks.manager import Disks
from appliance.control.disks.permissions import Owners, service_owners
from appliance.control.disks.replacement import SparePolicy
from appliance.control.disks.trimming import TrimPolicy
from appliance.control.keys.files import read_master_key, read_recovery_public
from appliance.control.keys.vault import Vault
from appliance.control.tls.certificates import Certificates
from appliance.core.errors import ApplianceError, Unreachable
from appliance.daemon import engines
from appliance.daemon.config import Config
from appliance.daemon.control_records import PatientAccounts, Records
from appliance.daemon.control_service import ControlService, Parts
from appliance.daemon.development import ensure_accounts, ensure_mirror
from appliance.daemon.directories import make_directory, only_one
from appliance.daemon.lifetime import Lifetime
from appliance.daemon.listeners import HTTP, HTTPS, Listeners, open_listeners
from appliance.daemon.local_keys import LocalKeys, bucket_maker
from appliance.daemon.mirror_making import make_mirror
from appliance.daemon.mirrors import Mirrors
from appliance.daemon.reach import Right, Rights, service_rights
from appliance.daemon.reports import BucketReports, Facts, StatusReports
from appliance.daemon.roles import gateway_role, store_role
from appliance.daemon.setup import (
    make_keys,
    master_key_file,
    mirrors_directory,
    recovery_file,
    recovery_notice,
)
from appliance.daemon.units import gateway_unit, leave_to_supervisor, start_store, start_unit
from appliance.runtime.clock import SystemClock, SystemEntropy
from appliance.runtime.handover import SocketGiver
from appliance.runtime.link import Link
from appliance.runtime.unix_sockets import Credentials
from appliance.system import descriptors

STATUS_EVERY_S: Final = 5.0
RENEWAL_CHECK_EVERY_S: Final = 3600.0
_log = logging.getLogger(__name__)


async def run(life: Lifetime) -> None:
    """The role from start to end."""
    async with contextlib.AsyncExitStack() as stack:
        control = Control(life, stack)
        await control.start()
        await life.stopped()
        await control.stop()


class Control:
    """Everything control is made of, wired."""

    def __init__(self, life: Lifetime, stack: contextlib.AsyncExitStack) -> None:
        self._life = life
        self._config: Final[Config] = life.config
        self._stack = stack
        self._clock, self._entropy = SystemClock(), SystemEntropy()
        self._owners = service_owners()
        self._rights = service_rights()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Everything that needs no store is up on return. Raises ``ApplianceError``."""
        config = self._config
        make_directory(config.paths.state, 0o755)
        make_directory(config.paths.runtime, 0o755)
        self._stack.enter_context(only_one(config.paths.state, "control"))
        self._listeners = self._open_listeners()
        self._stack.callback(self._listeners.close)
        self._certificates = Certificates(
            config.paths.state / "tls", config.service.zone, self._clock
        )
        await asyncio.to_thread(self._certificates.ensure)
        self._wire_records()
        await self._wire_disks()
        self._give_sockets()
        await self._serve_admin()
        self._life.on_reload(self._check_certificates)
        self._life.on_reload(self._look_at_drives)
        self._tasks = [
            asyncio.create_task(self._records.bring_up(), name="records"),
            asyncio.create_task(self._keep_certificates(), name="certificates"),
            asyncio.create_task(self._tell_status(), name="status"),
        ]
        if not self._config.development.enabled:
            self._tasks.append(asyncio.create_task(self._start_gateways(), name="gateways"))
        self._life.ready("drives are watched, sockets are open")

    async def stop(self) -> None:
        """What is asked is answered; the rest is undone by the stack, last first."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- parts

    def _open_listeners(self) -> Listeners:
        config = self._config
        plain = config.development.plain_http if config.development.enabled else ()
        kept = {
            name: socket.socket(fileno=descriptor)
            for name, descriptor in descriptors.kept(os.environ).items()
        }
        listeners = open_listeners(
            config.listen.https,
            plain,
            backlog=config.listen.backlog,
            kept=kept,
        )
        manager = os.environ.get("NOTIFY_SOCKET")
        for name in listeners.superfluous:
            descriptors.forget(name, manager)
        for name, listener in listeners.fresh.items():
            descriptors.keep(name, listener.fileno(), manager)
        return listeners

    def _wire_records(self) -> None:
        config = self._config
        if config.development.enabled:
            private = make_keys(config, self._entropy)
            if private is not None:
                # At once: a start that fails after this does not show it again.
                print(recovery_notice(private), flush=True)  # noqa: T201
        master = read_master_key(master_key_file(config), os.environ.get("CREDENTIALS_DIRECTORY"))
        have_store = leave_to_supervisor if config.development.enabled else start_store
        connect = partial(engines.connect, config, role="control")
        self._mirrors = Mirrors(
            connect, have_store, lambda name: Link(config.store_socket(name), role="operator")
        )
        engine = self._mirrors.records
        recovery = read_recovery_public(recovery_file(config))
        vault = Vault(engine, master, self._entropy, recovery)
        hashing = ThreadPoolExecutor(1, "hashing")
        self._stack.callback(hashing.shutdown, wait=False)
        make_bucket = bucket_maker(engine, vault, self._clock, self._entropy, hashing)
        self._accounts = Accounts(engine, vault, self._clock, self._entropy, make_bucket)
        self._keys = LocalKeys(self._accounts, vault)
        self._records = Records(
            engine, vault, self._accounts, self._certificates, self._mirrors.serving, self._entropy
        )
        self._records.on_certificate = self._certificate_changed

    async def _wire_disks(self) -> None:
        config = self._config
        self._disks = Disks(
            self._bay(),
            mirrors_directory=mirrors_directory(config),
            make_mirror=partial(make_mirror, owners=self._owners),
            clock=self._clock,
            entropy=self._entropy,
            owners=self._owners,
            health_of=self._mirrors.health_of,
            scrub_of=self._mirrors.scrub_of,
            override=self._mirrors.override,
            order=self._mirrors.order,
            spare_policy=spare_policy_of(config),
            trim_policy=trim_policy_of(config),
        )
        parts = Parts(
            self._disks,
            self._mirrors,
            self._keys,
            lambda: self._certificates.current,
            self._describe,
        )
        self._service = ControlService(parts, self._rights)
        await self._service.start(config.control_socket)
        self._stack.push_async_callback(self._service.close)
        self._stack.push_async_callback(self._mirrors.close)
        _share(config.control_socket, self._owners)
        # Drives that another server made are taken over, file by file.
        await self._life.during_start("bringing the drives in", self._disks.start())
        self._stack.push_async_callback(self._disks.close)
        if config.development.enabled:
            await ensure_mirror(self._disks, config.development.drives)
        for name in self._disks.mirrors():
            self._mirrors.notice(name)

    def _bay(self) -> Bay:
        if self._config.development.enabled:
            from appliance.control.disks.directory_bay import DirectoryBay

            return DirectoryBay(self._config.development.drives)
        from appliance.control.disks.block_bay import BlockBay

        return BlockBay(self._config.paths.runtime / "drives", self._owners)

    def _give_sockets(self) -> None:
        for number in range(self._config.gateways):
            path = self._config.sockets_of(number)
            offer = partial(_offer, self._listeners, self._rights)
            giver = SocketGiver(path, offer)
            self._stack.callback(giver.close)
            _share(path, self._owners)

    async def _serve_admin(self) -> None:
        config = self._config
        facts = Facts(
            endpoint=lambda: self._listeners.endpoint(HTTPS) or "",
            region=config.service.region,
            ca_file=str(self._certificates.ca_file),
            roles=lambda: self._service.roles(self._expected_roles()),
            mirrors=self._disks.mirror_reports,
            trouble=lambda: self._records.trouble,
        )
        self._status = StatusReports(facts)
        managers = Managers(
            disks=self._disks,
            accounts=PatientAccounts(self._records, self._mirrors.known, self._accounts),
            buckets=BucketReports(self._mirrors.records),
            status=self._status,
        )
        group = None if self._owners is None else self._owners.service_group
        admin = AdminServer(managers, config.admin_socket, group=group)
        await admin.start()
        self._stack.push_async_callback(admin.close)

    def _expected_roles(self) -> list[str]:
        gateways = [gateway_role(number) for number in range(self._config.gateways)]
        return [*map(store_role, self._disks.mirrors()), *gateways]

    # -- workers

    async def _describe(self) -> dict[str, object]:
        """Everything the supervisor tells, secrets included: development only."""
        config = self._config
        if not config.development.enabled:
            raise Unreachable("this is no appliance in development")
        await self._records.ready.wait()
        accounts = await ensure_accounts(self._accounts, config.development.accounts)
        return {
            "endpoint": self._listeners.endpoint(HTTPS),
            "plain_endpoint": self._listeners.endpoint(HTTP),
            "region": config.service.region,
            "ca_file": str(self._certificates.ca_file),
            "accounts": [
                {
                    "name": each.name,
                    "user_id": each.user_id,
                    "display_name": each.display_name,
                    "access_key": each.access_key,
                    "secret_key": each.secret_key,
                    "bucket": each.bucket,
                }
                for each in accounts
            ],
        }

    async def _start_gateways(self) -> None:
        for number in range(self._config.gateways):
            try:
                await start_unit(gateway_unit(number))
            except ApplianceError as error:
                _log.error("%s", error)

    async def _keep_certificates(self) -> None:
        while True:
            await asyncio.sleep(RENEWAL_CHECK_EVERY_S)
            try:
                await self._check_certificates()
            except ApplianceError as error:
                _log.error("%s", error)

    async def _check_certificates(self) -> None:
        if await asyncio.to_thread(self._certificates.ensure):
            self._certificate_changed()

    def _certificate_changed(self) -> None:
        _log.info("gateways show another server certificate from now on")
        self._service.tell_certificate()

    async def _look_at_drives(self) -> None:
        await self._disks.ensure()

    async def _tell_status(self) -> None:
        while True:
            self._life.status((await self._status.report()).summary)
            await asyncio.sleep(STATUS_EVERY_S)


def _offer(listeners: Listeners, rights: Rights, who: Credentials) -> Mapping[str, socket.socket]:
    if not rights.has(who.user_id, Right.GATEWAY):
        _log.warning("user id %d asked for listening sockets and got none", who.user_id)
        return {}
    return listeners.by_name()


def _share(path: Path, owners: Owners | None) -> None:
    """Let the service's processes connect."""
    if owners is not None:
        os.chown(path, -1, owners.service_group)


def trim_policy_of(config: Config) -> TrimPolicy:
    """When free space is given back to the drives, as configured."""
    return TrimPolicy(config.store.trim_interval_days * 86_400.0, config.store.trim_freed_percent)


def spare_policy_of(config: Config) -> SparePolicy:
    """When a spare takes over, as configured."""
    return SparePolicy(config.store.spare_after_failed_s, config.store.spare_after_absent_s)
