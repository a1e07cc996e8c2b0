"""Contract keys without a running appliance: opened with the master key, or with the recovery key.

Owns the choice between the two wrappings that lie side by side on every drive. Refuses a key that
is not this appliance's. Writes nothing.
"""

from __future__ import annotations

from typing import Final

from appliance.control.keys.vault import MASTER_PURPOSE, PURPOSE
from appliance.core.contracts import (
    CONTRACT_KEY,
    MASTER_KEY,
    WrappedContractKey,
    record_key,
)
from appliance.core.errors import NotFound
from appliance.core.keywrap import MasterKey, RecoveryPrivate
from appliance.core.ports import Credential, Owner
from appliance.core.recordkeys import after_prefix
from appliance.engine.interface import SYSTEM, Engine

MASTER_KEYS_MAX: Final = 64


class OfflineKeys:
    """A ``core.ports.KeyStore`` over a drive's records. Used from one event loop."""

    def __init__(self, engine: Engine, key: MasterKey | RecoveryPrivate) -> None:
        self._engine: Final = engine
        self._key: Final = key
        self._opened: dict[str, bytes] = {}

    async def contract_key(self, contract: str) -> bytes:
        """The contract's key. Raises ``NotFound`` once it is destroyed, ``Refused`` for a key of
        another appliance."""
        if contract not in self._opened:
            [record] = await self._engine.read(SYSTEM, [record_key(CONTRACT_KEY, contract)])
            if record is None:
                raise NotFound(f"contract {contract} has no key: it was erased")
            wrapped = WrappedContractKey.decode(record.value)
            if isinstance(self._key, MasterKey):
                sealed = wrapped.under_master
            else:
                sealed = wrapped.to_recovery
            self._opened[contract] = self._key.unwrap(sealed, purpose=PURPOSE, name=contract)
        return self._opened[contract]

    async def credential(self, access_key: str) -> Credential | None:
        """Nobody signs requests to a drive."""
        return None

    async def owner(self, contract: str, user_id: str) -> Owner | None:
        """Nobody is granted anything here."""
        return None


async def recover_master_key(engine: Engine, recovery: RecoveryPrivate) -> MasterKey:
    """The master key, out of the copy of it that lies on the drives for the recovery key. The one
    that was recorded last is the one in use. Raises ``NotFound`` where there is none, ``Refused``
    for another appliance's recovery key."""
    found = await engine.scan(SYSTEM, MASTER_KEY, after_prefix(MASTER_KEY), MASTER_KEYS_MAX)
    if not found:
        raise NotFound(
            "cannot recover the master key: no copy of it is on this drive, because the appliance"
            " never served with the release that makes one; `appliance mirror export` with the"
            " recovery key gives the objects back"
        )
    newest = max(found, key=lambda record: record.version)
    name = newest.key[len(MASTER_KEY) :].decode()
    return MasterKey(recovery.unwrap(newest.value, purpose=MASTER_PURPOSE, name=name))
