"""The master key comes back with the recovery key and one drive."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from appliance.control.keys.files import read_master_key
from appliance.control.keys.offline import recover_master_key
from appliance.control.keys.vault import Vault
from appliance.core.contracts import MASTER_KEY
from appliance.core.errors import InvalidInput, NotFound, Refused
from appliance.core.keywrap import MasterKey, RecoveryPrivate
from appliance.core.offline import RecoveredKey
from appliance.core.recordkeys import after_prefix
from appliance.daemon.offline_keys import recover_key
from appliance.engine.interface import SYSTEM
from appliance.engine.sim import SimulatedEngine
from appliance.runtime.clock import SystemEntropy
from tests.unit.offline.house import MASTER, RECOVERY, House, digest, quiet


def _recover(house: House, scratch: Path, key_file: Path, to: Path) -> RecoveredKey:
    found, _ = quiet(
        lambda telling: recover_key(house.drives[1], to, str(key_file), scratch, telling)
    )
    return found


def test_the_recovery_key_and_a_drive_give_the_master_key_back(
    house: House, scratch: Path, tmp_path: Path
) -> None:
    _, recovery = house.keys(tmp_path)
    before = digest(house.drives[1])
    found = _recover(house, scratch, recovery, tmp_path / "new.key")
    assert digest(house.drives[1]) == before
    assert found.key_id == MASTER.key_id.hex()
    assert (tmp_path / "new.key").stat().st_mode & 0o777 == 0o600
    assert read_master_key(tmp_path / "new.key", None) == MASTER


def test_another_recovery_key_is_refused(house: House, scratch: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text(RecoveryPrivate(b"x" * 32).text())
    with pytest.raises(Refused, match="another recovery key"):
        _recover(house, scratch, other, tmp_path / "new.key")
    assert not (tmp_path / "new.key").exists()


def test_a_mistyped_recovery_key_is_told(house: House, scratch: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text(RECOVERY.text()[:-1])
    with pytest.raises(InvalidInput, match="a character is wrong or missing"):
        _recover(house, scratch, other, tmp_path / "new.key")


def test_a_master_key_that_is_there_is_never_replaced(
    house: House, scratch: Path, tmp_path: Path
) -> None:
    _, recovery = house.keys(tmp_path)
    there = tmp_path / "there.key"
    there.write_text("precious")
    with pytest.raises(Refused, match="keys are never replaced"):
        _recover(house, scratch, recovery, there)
    assert there.read_text() == "precious"


def test_the_copy_is_made_once_and_the_newest_counts() -> None:
    async def scenario() -> None:
        engine, entropy = SimulatedEngine(), SystemEntropy()
        with pytest.raises(NotFound, match="cannot recover the master key"):
            await recover_master_key(engine, RECOVERY)
        for secret in (b"1" * 32, b"1" * 32, b"2" * 32):
            vault = Vault(engine, MasterKey(secret), entropy, RECOVERY.public)
            await vault.open()
            await vault.keep_master_key()
        copies = await engine.scan(SYSTEM, MASTER_KEY, after_prefix(MASTER_KEY), 10)
        assert len(copies) == 2
        assert not any(b"1" * 8 in copy.value or b"2" * 8 in copy.value for copy in copies)
        assert await recover_master_key(engine, RECOVERY) == MasterKey(b"2" * 32)

    asyncio.run(scenario())


def test_without_a_recovery_key_no_copy_is_made() -> None:
    async def scenario() -> None:
        engine = SimulatedEngine()
        vault = Vault(engine, MASTER, SystemEntropy(), None)
        await vault.open()
        await vault.keep_master_key()
        assert await engine.scan(SYSTEM, MASTER_KEY, after_prefix(MASTER_KEY), 10) == []

    asyncio.run(scenario())
