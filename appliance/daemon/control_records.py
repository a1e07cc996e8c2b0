"""What control does once the appliance's own records can be read.

Owns the bringing up of vault, authority and accounts, tried again until a mirror serves. Refuses
nothing for good: a wrong master key is told again and again until it is put right.
Invariant: ``ready`` is set only when accounts can be made and authenticated.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Final

from appliance.control.accounts.accounts import Accounts
from appliance.control.keys.vault import Vault
from appliance.control.tls.certificates import Certificates
from appliance.core.admin import AccountReport, NewAccount
from appliance.core.errors import ApplianceError, Conflict, Unavailable
from appliance.core.ports import Entropy
from appliance.engine.interface import SYSTEM, Batch, Engine, Expect, Presence, Put
from appliance.runtime.complaints import Complaints

PATIENCE_S: Final = 20.0
AUTHORITY_KEY: Final = b"tls-authority"
_PURPOSE: Final = "certificate authority"
_NAME: Final = "tls"
_RETRY_S: Final = (0.1, 0.5, 1.0, 5.0)
_REQUEST_ID_BYTES: Final = 16

_log = logging.getLogger(__name__)


class Records:
    """Used from one event loop."""

    def __init__(
        self,
        engine: Engine,
        vault: Vault,
        accounts: Accounts,
        certificates: Certificates,
        serving: asyncio.Event,
        entropy: Entropy,
    ) -> None:
        self.ready: Final = asyncio.Event()
        self.trouble = ""
        """Why they are not ready although a mirror serves."""
        self.on_certificate: Callable[[], None] = lambda: None
        self._engine = engine
        self._vault = vault
        self._accounts = accounts
        self._certificates = certificates
        self._serving = serving
        self._entropy = entropy

    async def bring_up(self) -> None:
        """Return when everything is ready."""
        await self._serving.wait()
        attempt = 0
        complaints = Complaints(_log)
        while True:
            try:
                await self._vault.open()
                await self._keep_authority()
                await self._vault.keep_master_key()
                settled = await self._accounts.settle()
                break
            except ApplianceError as error:
                self.trouble = f"the appliance's records are not ready: {error}"
                complaints.say("records", self.trouble)
                await asyncio.sleep(_RETRY_S[min(attempt, len(_RETRY_S) - 1)])
                attempt += 1
        self.trouble = ""
        if settled:
            _log.info("%d accounts whose creation was interrupted are complete now", settled)
        self.ready.set()

    async def _keep_authority(self) -> None:
        """The authority lies with the data too: customers trust it, this machine may die."""
        [record] = await self._engine.read(SYSTEM, [AUTHORITY_KEY])
        if record is not None:
            pem = self._vault.open_sealed(record.value, purpose=_PURPOSE, name=_NAME)
            if await asyncio.to_thread(self._certificates.adopt_authority, pem):
                _log.warning("the certificate authority kept with the data is in use again")
                self.on_certificate()
            return
        pem = await asyncio.to_thread(self._certificates.export_authority)
        put = Put(AUTHORITY_KEY, self._vault.seal(pem, purpose=_PURPOSE, name=_NAME))
        batch = Batch(
            [put],
            [Expect(AUTHORITY_KEY, Presence.ABSENT)],
            request_id=self._entropy.token(_REQUEST_ID_BYTES),
        )
        try:
            await self._engine.commit(SYSTEM, batch)
        except Conflict:
            _log.info("the certificate authority is kept already")


class PatientAccounts:
    """Accounts as operators reach them: a command typed right after the first mirror was made waits
    until its store serves. Fulfils ``api.managers.AccountManager``."""

    def __init__(self, records: Records, mirror_known: asyncio.Event, accounts: Accounts) -> None:
        self._records = records
        self._mirror_known = mirror_known
        self._accounts = accounts

    async def create(self, name: str) -> NewAccount:
        """See ``Accounts``. Raises ``Unavailable`` with the reason when records stay away."""
        if self._mirror_known.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    await self._records.ready.wait()
        if self._records.trouble:
            raise Unavailable(f"cannot create an account: {self._records.trouble}")
        return await self._accounts.create(name)

    async def reports(self) -> Sequence[AccountReport]:
        """See ``Accounts``."""
        return await self._accounts.reports()
