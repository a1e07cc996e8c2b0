"""Contracts, accounts and their access keys, as records on the drives.

Owns making them and answering who stands behind an access key. Refuses a second account of one
name. All records of a new account are one commit, so that a crash leaves all of it or nothing; its
first bucket follows, and ``settle`` makes up for a crash in between.
Invariant: an access key that was shown is on every in-sync drive.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, Protocol

from appliance.core.admin import AccountReport, NewAccount
from appliance.core.contracts import (
    ACCESS_KEY,
    ACCESS_KEY_BYTES,
    ACCOUNT,
    ACCOUNT_NAME,
    BUCKET_SUFFIX_BYTES,
    CONTRACT,
    CONTRACT_ID_BYTES,
    CONTRACT_NAME,
    SECRET_BYTES,
    USER_ID_BYTES,
    AccessKey,
    Account,
    Contract,
    access_key_id,
    check_name,
    record_key,
    secret_key,
)
from appliance.core.errors import Conflict, NotFound, Refused
from appliance.core.ports import Clock, Credential, Entropy, Owner
from appliance.core.recordkeys import after_prefix
from appliance.engine.interface import (
    SYSTEM,
    Batch,
    Engine,
    Expect,
    Operation,
    Presence,
    Put,
    Record,
)

_PURPOSE: Final = "access key secret"
_REQUEST_ID_BYTES: Final = 16
_PAGE: Final = 1000

_log = logging.getLogger(__name__)


class Keys(Protocol):
    """What accounts need of the vault."""

    def new_contract_key(self, contract_id: str) -> Put: ...

    def seal(self, secret: bytes, *, purpose: str, name: str) -> bytes: ...

    def open_sealed(self, sealed: bytes, *, purpose: str, name: str) -> bytes: ...


MakeBucket = Callable[[Account, Contract], Awaitable[None]]
"""Makes an account's first bucket. Idempotent."""


class Accounts:
    """Used from one event loop."""

    def __init__(
        self,
        engine: Engine,
        keys: Keys,
        clock: Clock,
        entropy: Entropy,
        make_bucket: MakeBucket,
    ) -> None:
        self._engine = engine
        self._keys = keys
        self._clock = clock
        self._entropy = entropy
        self._make_bucket = make_bucket

    async def create(self, name: str, *, contract: str | None = None) -> NewAccount:
        """A new account with keys and a first bucket, in the contract of that name (made when it
        is not there; by default one of the account's own name). Raises ``InvalidInput`` and
        ``Refused``."""
        check_name(name, "account")
        contract_name = contract or name
        check_name(contract_name, "contract")
        held = await self._contract_named(contract_name)
        operations: list[Operation] = []
        if held is None:
            held = self._new_contract(contract_name)
            operations += self._contract_records(held)
        account, secret, records = self._new_account(name, held)
        operations += records
        created = [Expect(each.key, Presence.ABSENT) for each in operations]
        try:
            version = await self._commit(operations, created)
        except Conflict as error:
            raise Refused(
                f"cannot create the account {name!r}: an account or contract of that name exists;"
                " choose another name"
            ) from error
        await self._settle(account, held, version)
        return NewAccount(
            name, account.user_id, account.display_name, account.access_keys[0], secret,
            account.bucket,
        )  # fmt: skip

    async def reveal(self, name: str) -> NewAccount:
        """An account with its secret again, for development only. Raises ``NotFound``."""
        [found] = await self._engine.read(SYSTEM, [record_key(ACCOUNT_NAME, name)])
        if found is None:
            raise NotFound(f"cannot find the account {name!r}")
        account = await self._account(found.value.decode())
        if account is None:
            raise NotFound(f"cannot find the account {name!r}")
        credential = await self.credential(account.access_keys[0])
        if credential is None:
            raise NotFound(f"cannot find the access key of account {name!r}")
        return NewAccount(
            account.name, account.user_id, account.display_name, credential.access_key,
            credential.secret_key, account.bucket,
        )  # fmt: skip

    async def settle(self) -> int:
        """Make the first buckets of accounts whose creation was interrupted; how many."""
        count = 0
        async for record in self._scan(ACCOUNT):
            account = Account.decode(record.value)
            if not account.settled:
                contract = await self._contract(account.contract_id)
                await self._settle(account, contract, record.version)
                count += 1
        return count

    async def reports(self) -> Sequence[AccountReport]:
        """Every account, by name, without secrets."""
        accounts = [Account.decode(record.value) async for record in self._scan(ACCOUNT)]
        return [
            AccountReport(
                each.name, each.user_id, each.display_name, each.access_keys, each.bucket,
                each.frozen, each.created_ns,
            )
            for each in sorted(accounts, key=lambda account: account.name)
        ]  # fmt: skip

    # -- what gateways ask

    async def credential(self, access_key: str) -> Credential | None:
        """The account behind an access key; None for an unknown or revoked one."""
        [found] = await self._engine.read(SYSTEM, [record_key(ACCESS_KEY, access_key)])
        if found is None:
            return None
        key = AccessKey.decode(found.value)
        account = await self._account(key.user_id)
        if key.revoked or account is None:
            return None
        contract = await self._contract(account.contract_id)
        secret = self._keys.open_sealed(key.sealed_secret, purpose=_PURPOSE, name=access_key)
        return Credential(
            access_key=access_key,
            secret_key=secret.decode("ascii"),
            user_id=account.user_id,
            display_name=account.display_name,
            contract=account.contract_id,
            bucket_prefix=contract.bucket_prefix,
            frozen=account.frozen,
        )

    async def owner(self, contract_id: str, user_id: str) -> Owner | None:
        """The account of that contract with that canonical user id."""
        account = await self._account(user_id)
        if account is None or account.contract_id != contract_id:
            return None
        return Owner(account.user_id, account.display_name)

    # -- records

    async def _account(self, user_id: str) -> Account | None:
        [found] = await self._engine.read(SYSTEM, [record_key(ACCOUNT, user_id)])
        return None if found is None else Account.decode(found.value)

    async def _contract(self, contract_id: str) -> Contract:
        [found] = await self._engine.read(SYSTEM, [record_key(CONTRACT, contract_id)])
        if found is None:
            raise NotFound(f"cannot find the contract {contract_id}")
        return Contract.decode(found.value)

    async def _contract_named(self, name: str) -> Contract | None:
        [found] = await self._engine.read(SYSTEM, [record_key(CONTRACT_NAME, name)])
        return None if found is None else await self._contract(found.value.decode())

    def _new_contract(self, name: str) -> Contract:
        # The letter keeps it apart from the system's partition whatever the digits are.
        contract_id = "c" + self._entropy.token(CONTRACT_ID_BYTES).hex()
        return Contract(contract_id, name, bucket_prefix="", created_ns=self._clock.now_ns())

    def _contract_records(self, contract: Contract) -> list[Operation]:
        return [
            Put(record_key(CONTRACT, contract.contract_id), contract.encode()),
            Put(record_key(CONTRACT_NAME, contract.name), contract.contract_id.encode()),
            self._keys.new_contract_key(contract.contract_id),
        ]

    def _new_account(self, name: str, contract: Contract) -> tuple[Account, str, list[Operation]]:
        token, now_ns = self._entropy.token, self._clock.now_ns()
        access_key, secret = access_key_id(token(ACCESS_KEY_BYTES)), secret_key(token(SECRET_BYTES))
        account = Account(
            user_id=token(USER_ID_BYTES).hex(),
            name=name,
            display_name=name,
            contract_id=contract.contract_id,
            bucket=f"{contract.bucket_prefix}{name}-{token(BUCKET_SUFFIX_BYTES).hex()}",
            access_keys=(access_key,),
            created_ns=now_ns,
        )
        sealed = self._keys.seal(secret.encode("ascii"), purpose=_PURPOSE, name=access_key)
        key = AccessKey(access_key, account.user_id, sealed, now_ns)
        return account, secret, [
            Put(record_key(ACCOUNT, account.user_id), account.encode()),
            Put(record_key(ACCOUNT_NAME, name), account.user_id.encode()),
            Put(record_key(ACCESS_KEY, access_key), key.encode()),
        ]  # fmt: skip

    async def _settle(self, account: Account, contract: Contract, version: int) -> None:
        await self._make_bucket(account, contract)
        key = record_key(ACCOUNT, account.user_id)
        settled = dataclasses.replace(account, settled=True)
        try:
            await self._commit([Put(key, settled.encode())], [Expect(key, version)])
        except Conflict:
            _log.info("account %s changed while its bucket was made", account.name)

    async def _commit(self, operations: Sequence[Operation], expected: Sequence[Expect]) -> int:
        request_id = self._entropy.token(_REQUEST_ID_BYTES)
        batch = Batch(operations, expected, request_id=request_id)
        return (await self._engine.commit(SYSTEM, batch)).version

    async def _scan(self, kind: bytes) -> AsyncIterator[Record]:
        position = kind
        while True:
            page = await self._engine.scan(SYSTEM, position, after_prefix(kind), _PAGE)
            for record in page:
                yield record
            if len(page) < _PAGE:
                return
            position = page[-1].key + b"\x00"
