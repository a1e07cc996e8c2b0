"""The vault: everything that is done with the master key.

Owns wrapped contract keys and the sealing of small secrets. Refuses to make a contract key before
the recovery key exists: a dead machine must not take every customer's data with it. The master key
never leaves this object, nor does any method give it.
Invariant: a contract key is on the drives, in both wrappings, before anything is encrypted with it.
"""

from __future__ import annotations

import contextlib
from typing import Final

from appliance.core.contracts import (
    CONTRACT_KEY,
    MASTER_KEY,
    RECOVERY_KEY,
    WrappedContractKey,
    record_key,
)
from appliance.core.errors import Conflict, NotFound, Refused
from appliance.core.keywrap import KEY_BYTES, MasterKey, RecoveryPublic
from appliance.core.ports import Entropy
from appliance.engine.interface import SYSTEM, Batch, Engine, Expect, Presence, Put

PURPOSE: Final = "contract key"
MASTER_PURPOSE: Final = "master key"
"""What the wrapping of a contract key, and of the master key itself, is for."""
_REQUEST_ID_BYTES: Final = 16


class Vault:
    """Used from one event loop."""

    def __init__(
        self,
        engine: Engine,
        master: MasterKey,
        entropy: Entropy,
        recovery: RecoveryPublic | None,
    ) -> None:
        """``recovery`` is what setup left for a fresh appliance; the drives' own record wins."""
        self._engine = engine
        self._master = master
        self._entropy = entropy
        self._recovery = recovery
        self._recovery_is_recorded = False

    async def open(self) -> None:
        """Read the recovery key's public half from the drives, or write it there the first time.
        Idempotent."""
        recorded = await self._recorded_recovery()
        if recorded is None and self._recovery is not None:
            put = Put(RECOVERY_KEY, self._recovery.public)
            batch = Batch(
                [put],
                [Expect(RECOVERY_KEY, Presence.ABSENT)],
                request_id=self._entropy.token(_REQUEST_ID_BYTES),
            )
            try:
                await self._engine.commit(SYSTEM, batch)
                recorded = self._recovery
            except Conflict:  # another process was first; what it wrote counts
                recorded = await self._recorded_recovery()
        if recorded is not None:
            self._recovery = recorded
            self._recovery_is_recorded = True

    async def keep_master_key(self) -> None:
        """Lay a copy of the master key beside the data that only the recovery key opens: when the
        machine and every copy of the key file are gone, whoever holds the recovery key has all
        back, accounts and their secrets included. Only once this master key has opened something
        on the drives, or there was nothing: another appliance's must not be recorded. Idempotent;
        without a recovery key nothing is done."""
        recovery = self._recovery
        if recovery is None or not self._recovery_is_recorded:
            return
        name = self._master.key_id.hex()
        key = record_key(MASTER_KEY, name)
        [record] = await self._engine.read(SYSTEM, [key])
        if record is not None:
            return
        ephemeral = self._entropy.token(KEY_BYTES)
        wrapped = recovery.wrap(
            self._master.secret, purpose=MASTER_PURPOSE, name=name, ephemeral=ephemeral
        )
        batch = Batch(
            [Put(key, wrapped)],
            [Expect(key, Presence.ABSENT)],
            request_id=self._entropy.token(_REQUEST_ID_BYTES),
        )
        with contextlib.suppress(Conflict):  # another process was first
            await self._engine.commit(SYSTEM, batch)

    async def _recorded_recovery(self) -> RecoveryPublic | None:
        [record] = await self._engine.read(SYSTEM, [RECOVERY_KEY])
        return None if record is None else RecoveryPublic(record.value)

    def new_contract_key(self, contract_id: str) -> Put:
        """The record of a fresh key, to be committed with the contract it is for. Raises
        ``Refused`` while there is no recovery key."""
        if self._recovery is None or not self._recovery_is_recorded:
            raise Refused(
                "cannot make a contract's key: this appliance has no recovery key yet;"
                " run `python -m appliance.daemon setup` first"
            )
        key = self._entropy.token(KEY_BYTES)
        wrapped = WrappedContractKey(
            self._master.wrap(key, purpose=PURPOSE, name=contract_id),
            self._recovery.wrap(
                key,
                purpose=PURPOSE,
                name=contract_id,
                ephemeral=self._entropy.token(KEY_BYTES),
            ),
        )
        return Put(record_key(CONTRACT_KEY, contract_id), wrapped.encode())

    async def contract_key(self, contract_id: str) -> bytes:
        """The contract's key. Raises ``NotFound`` once it is destroyed, ``Refused`` under another
        master key."""
        [record] = await self._engine.read(SYSTEM, [record_key(CONTRACT_KEY, contract_id)])
        if record is None:
            raise NotFound(f"contract {contract_id} has no key: it was erased")
        wrapped = WrappedContractKey.decode(record.value)
        return self._master.unwrap(wrapped.under_master, purpose=PURPOSE, name=contract_id)

    def seal(self, secret: bytes, *, purpose: str, name: str) -> bytes:
        """``secret`` as it may lie on the drives."""
        return self._master.wrap(secret, purpose=purpose, name=name)

    def open_sealed(self, sealed: bytes, *, purpose: str, name: str) -> bytes:
        """What was sealed for that purpose and name. Raises ``Refused``."""
        return self._master.unwrap(sealed, purpose=purpose, name=name)
