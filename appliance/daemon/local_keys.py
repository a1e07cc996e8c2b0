"""The key store inside control, where the answers come from, and an account's first bucket.

Owns the tying of accounts, vault and buckets, which know nothing of each other. Refuses what they
refuse. Invariant: none of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import Executor

from appliance.control.accounts.accounts import Accounts
from appliance.control.keys.vault import Vault
from appliance.core.contracts import Account, Contract
from appliance.core.ports import Clock, Credential, Entropy, Owner
from appliance.engine.interface import Engine
from appliance.objects.bucket import Buckets
from appliance.objects.context import open_context
from appliance.objects.limits import ObjectLimits
from appliance.objects.model import Caller


class LocalKeys:
    """A ``core.ports.KeyStore`` inside control, where the answers come from."""

    def __init__(self, accounts: Accounts, vault: Vault) -> None:
        self._accounts = accounts
        self._vault = vault

    async def credential(self, access_key: str) -> Credential | None:
        """See ``KeyStore``."""
        return await self._accounts.credential(access_key)

    async def contract_key(self, contract: str) -> bytes:
        """See ``KeyStore``."""
        return await self._vault.contract_key(contract)

    async def owner(self, contract: str, user_id: str) -> Owner | None:
        """See ``KeyStore``."""
        return await self._accounts.owner(contract, user_id)


def bucket_maker(
    engine: Engine, vault: Vault, clock: Clock, entropy: Entropy, hashing: Executor
) -> Callable[[Account, Contract], Awaitable[None]]:
    """Makes first buckets through the object layer, as the account itself would."""
    keys = _OnlyContractKeys(vault)
    context = open_context(engine, keys, clock, entropy, ObjectLimits(), hashing)
    buckets = Buckets(context)

    async def make(account: Account, contract: Contract) -> None:
        caller = Caller(
            account.user_id, account.display_name, contract.contract_id, contract.bucket_prefix
        )
        await buckets.create(caller, account.bucket)

    return make


class _OnlyContractKeys:
    """What making a bucket may need of a key store."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def credential(self, access_key: str) -> Credential | None:
        return None

    async def contract_key(self, contract: str) -> bytes:
        return await self._vault.contract_key(contract)

    async def owner(self, contract: str, user_id: str) -> Owner | None:
        return None
