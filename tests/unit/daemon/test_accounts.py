"""Accounts, keys and contract keys as records of a simulated engine."""

from __future__ import annotations

import asyncio
import random

import pytest

from appliance.control.accounts.accounts import Accounts
from appliance.control.keys.vault import Vault
from appliance.core.contracts import (
    CONTRACT_KEY,
    AccessKey,
    Account,
    Contract,
    WrappedContractKey,
    record_key,
)
from appliance.core.errors import DataLost, InvalidInput, NotFound, Refused, Unavailable
from appliance.core.keywrap import MasterKey, RecoveryPrivate
from appliance.core.ports import Owner
from appliance.engine.interface import SYSTEM
from appliance.engine.sim import SimulatedEngine

MASTER = MasterKey(b"m" * 32)
RECOVERY = RecoveryPrivate(b"r" * 32)


class FixedClock:
    """A clock that stands."""

    def now_ns(self) -> int:
        return 1_700_000_000_000_000_000

    def monotonic_s(self) -> float:
        return 0.0

    def sleep_s(self, seconds: float) -> None:
        raise AssertionError("nothing here sleeps")


class SeededEntropy:
    """Randomness that repeats."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def token(self, size_bytes: int) -> bytes:
        return self._random.randbytes(size_bytes)


class Buckets:
    """Remembers the buckets asked for; fails as often as told."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str]] = []
        self.failures = 0

    async def make(self, account: Account, contract: Contract) -> None:
        if self.failures:
            self.failures -= 1
            raise Unavailable("the store is away")
        self.made.append((account.bucket, contract.contract_id))


class House:
    """An appliance's accounts over one engine."""

    def __init__(self, engine: SimulatedEngine, seed: int = 1) -> None:
        entropy = SeededEntropy(seed)
        self.engine = engine
        self.buckets = Buckets()
        self.vault = Vault(engine, MASTER, entropy, RECOVERY.public)
        self.accounts = Accounts(engine, self.vault, FixedClock(), entropy, self.buckets.make)


def test_a_new_account_can_be_authenticated_and_owns_a_bucket() -> None:
    async def scenario() -> None:
        house = House(SimulatedEngine())
        await house.vault.open()
        made = await house.accounts.create("acme")
        assert len(made.access_key) == 20
        assert len(made.secret_key) == 40
        assert made.bucket.startswith("acme-")
        credential = await house.accounts.credential(made.access_key)
        assert credential is not None
        assert credential.secret_key == made.secret_key
        assert credential.user_id == made.user_id
        assert house.buckets.made == [(made.bucket, credential.contract)]
        owner = house.accounts.owner
        assert await owner(credential.contract, made.user_id) == Owner(made.user_id, "acme")
        assert await owner(credential.contract, "0" * 64) is None
        assert await owner("another", made.user_id) is None
        assert await house.accounts.credential("APPLAAAAAAAAAAAAAAAA") is None
        [report] = await house.accounts.reports()
        assert report.access_keys == (made.access_key,)
        assert made.secret_key not in repr(report) + repr(made) + repr(credential)

    asyncio.run(scenario())


def test_secrets_and_contract_keys_lie_sealed_on_the_drives() -> None:
    async def scenario() -> None:
        house = House(SimulatedEngine())
        await house.vault.open()
        made = await house.accounts.create("acme")
        credential = await house.accounts.credential(made.access_key)
        assert credential is not None
        key = await house.vault.contract_key(credential.contract)
        assert len(key) == 32
        stored = await house.engine.scan(SYSTEM, b"\x00", b"\xff", 1000)
        assert len(stored) >= 7
        for record in stored:
            assert made.secret_key.encode() not in record.value
            assert key not in record.value
        [record] = [each for each in stored if each.key.startswith(CONTRACT_KEY)]
        wrapped = WrappedContractKey.decode(record.value)
        recovered = RECOVERY.unwrap(
            wrapped.to_recovery, purpose="contract key", name=credential.contract
        )
        assert recovered == key

    asyncio.run(scenario())


def test_contracts_are_shared_on_request_and_never_by_accident() -> None:
    async def scenario() -> None:
        house = House(SimulatedEngine())
        await house.vault.open()
        made = [
            await house.accounts.create(name, contract=contract)
            for name, contract in (("main", "dev"), ("alt", "dev"), ("tenant", None))
        ]
        credentials = [await house.accounts.credential(each.access_key) for each in made]
        contracts = [each.contract for each in credentials if each is not None]
        assert contracts[0] == contracts[1] != contracts[2]
        keys = {await house.vault.contract_key(contract) for contract in contracts}
        assert len(keys) == 2
        assert [each.name for each in await house.accounts.reports()] == ["alt", "main", "tenant"]

    asyncio.run(scenario())


def test_names_are_unique_and_legal() -> None:
    async def scenario() -> None:
        house = House(SimulatedEngine())
        await house.vault.open()
        await house.accounts.create("acme")
        with pytest.raises(Refused, match="choose another name"):
            await house.accounts.create("acme")
        for name in ("", "Acme", "a" * 41, "-a", "a-", "a.b", "ä"):
            with pytest.raises(InvalidInput, match="cannot name the account"):
                await house.accounts.create(name)
        assert len(await house.accounts.reports()) == 1

    asyncio.run(scenario())


def test_an_interrupted_creation_is_settled_later() -> None:
    async def scenario() -> None:
        house = House(SimulatedEngine())
        await house.vault.open()
        house.buckets.failures = 1
        with pytest.raises(Unavailable):
            await house.accounts.create("acme")
        again = House(house.engine, seed=2)
        assert await again.accounts.settle() == 1
        made = await again.accounts.reveal("acme")
        assert [bucket for bucket, _ in again.buckets.made] == [made.bucket]
        assert await again.accounts.settle() == 0
        with pytest.raises(NotFound):
            await again.accounts.reveal("nobody")

    asyncio.run(scenario())


def test_no_contract_key_without_a_recovery_key() -> None:
    async def scenario() -> None:
        engine = SimulatedEngine()
        vault = Vault(engine, MASTER, SeededEntropy(1), None)
        await vault.open()
        with pytest.raises(Refused, match="no recovery key"):
            vault.new_contract_key("c1")
        # Setup ran elsewhere: what the drives say counts, also against another public half here.
        await House(engine).vault.open()
        other = Vault(engine, MASTER, SeededEntropy(1), RecoveryPrivate(b"x" * 32).public)
        await other.open()
        record = other.new_contract_key("c1")
        wrapped = WrappedContractKey.decode(record.value)
        assert record.key == record_key(CONTRACT_KEY, "c1")
        assert RECOVERY.unwrap(wrapped.to_recovery, purpose="contract key", name="c1")
        with pytest.raises(NotFound, match="erased"):
            await other.contract_key("c1")

    asyncio.run(scenario())


def test_formats_of_later_releases_are_refused() -> None:
    account = Account("u", "n", "d", "c", "b", ("k",), 1)
    assert Account.decode(account.encode()) == account
    for kind, value in (
        (Account, account.encode()),
        (Contract, Contract("c", "n", "", 1).encode()),
        (AccessKey, AccessKey("k", "u", b"s", 1).encode()),
        (WrappedContractKey, WrappedContractKey(b"a", b"b").encode()),
    ):
        later = value[:1] + b"\x02" + value[2:]
        with pytest.raises(DataLost, match="upgrade"):
            kind.decode(later)
