"""Control's parts: records brought up, mirrors connected, rights, setup, reports."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from appliance.control.accounts.accounts import Accounts
from appliance.control.keys.files import (
    read_master_key,
    read_recovery_public,
    write_master_key,
)
from appliance.control.keys.vault import Vault
from appliance.control.tls.certificates import Certificates
from appliance.core.admin import MirrorReport, RoleReport
from appliance.core.errors import InvalidInput, NotFound, Refused, Unavailable, Unreachable
from appliance.core.keywrap import MasterKey, read_recovery
from appliance.daemon.config import Config, PathsSection
from appliance.daemon.control_records import AUTHORITY_KEY, PatientAccounts, Records
from appliance.daemon.directories import make_directory, only_one
from appliance.daemon.local_keys import bucket_maker
from appliance.daemon.mirrors import Mirrors
from appliance.daemon.reach import Right, Rights
from appliance.daemon.reports import BucketReports, Facts, StatusReports, summary
from appliance.daemon.setup import make_keys, master_key_file, recovery_file, recovery_notice
from appliance.engine.interface import SYSTEM, Engine
from appliance.engine.sim import SimulatedEngine
from appliance.runtime.clock import SystemClock
from tests.unit.daemon.test_accounts import House, SeededEntropy


def _records(house: House, certificates: Certificates, serving: asyncio.Event) -> Records:
    return Records(
        house.engine, house.vault, house.accounts, certificates, serving, SeededEntropy(9)
    )


def test_the_authority_follows_the_data_to_a_new_machine(tmp_path: Path) -> None:
    async def scenario() -> None:
        house, serving = House(SimulatedEngine()), asyncio.Event()
        serving.set()
        old = Certificates(tmp_path / "old", "localhost", SystemClock())
        old.ensure()
        await _records(house, old, serving).bring_up()
        [record] = await house.engine.read(SYSTEM, [AUTHORITY_KEY])
        assert record is not None
        assert b"PRIVATE" not in record.value
        new = Certificates(tmp_path / "new", "localhost", SystemClock())
        new.ensure()
        records, told = _records(house, new, serving), asyncio.Event()
        records.on_certificate = told.set
        await records.bring_up()
        assert told.is_set()
        assert records.ready.is_set()
        assert new.ca_file.read_bytes() == old.ca_file.read_bytes()

    asyncio.run(scenario())


def test_records_under_another_master_key_are_told_once_and_make_nothing_healthy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("appliance.daemon.control_records._RETRY_S", (0.0,))

    async def scenario() -> None:
        house, serving = House(SimulatedEngine()), asyncio.Event()
        serving.set()
        certificates = Certificates(tmp_path, "localhost", SystemClock())
        certificates.ensure()
        await _records(house, certificates, serving).bring_up()
        other = House(house.engine)
        other.vault = Vault(house.engine, MasterKey(b"o" * 32), SeededEntropy(2), None)
        tries = 0

        async def open_vault() -> None:
            nonlocal tries
            tries += 1
            await Vault.open(other.vault)

        monkeypatch.setattr(other.vault, "open", open_vault)
        records = _records(other, certificates, serving)
        trying = asyncio.create_task(records.bring_up())
        while tries < 3:  # noqa: ASYNC110 - each turn lets it try again
            await asyncio.sleep(0)
        trying.cancel()
        mirror = MirrorReport("m0", "00", "in sync")

        async def mirrors() -> list[MirrorReport]:
            return [mirror]

        facts = Facts(lambda: "", "r", "ca", list, mirrors, lambda: records.trouble)
        report = await StatusReports(facts).report()
        assert not report.healthy
        assert "put the right master key back" in report.summary

    asyncio.run(scenario())
    assert sum("put the right master key back" in each for each in caplog.messages) == 1


def test_a_new_account_waits_for_the_records_of_a_mirror_that_was_just_made(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        house, serving, known = House(SimulatedEngine()), asyncio.Event(), asyncio.Event()
        certificates = Certificates(tmp_path, "localhost", SystemClock())
        certificates.ensure()
        records = _records(house, certificates, serving)
        bringing_up = asyncio.create_task(records.bring_up())
        accounts = PatientAccounts(records, known, house.accounts)
        known.set()
        creating = asyncio.create_task(accounts.create("acme"))
        await asyncio.sleep(0)
        serving.set()
        assert (await creating).name == "acme"
        await bringing_up
        assert [each.name for each in await accounts.reports()] == ["acme"]
        records.trouble = "its key is away"
        with pytest.raises(Unavailable, match="cannot create an account: its key is away"):
            await accounts.create("other")

    asyncio.run(scenario())


def test_mirrors_are_connected_once_and_asked_without_waiting() -> None:
    async def scenario() -> None:
        started: list[str] = []
        engine = SimulatedEngine()
        attempts = 0

        async def start_store(name: str) -> None:
            started.append(name)

        async def connect(name: str) -> Engine:
            nonlocal attempts
            attempts += 1
            return engine

        mirrors = Mirrors(connect, start_store)
        with pytest.raises(Unavailable, match="no mirror serves yet"):
            mirrors.records.inner  # noqa: B018 - the access is the test
        assert await mirrors.health_of("m0") is None
        mirrors.notice("m0")
        mirrors.notice("m0")
        await mirrors.serving.wait()
        assert mirrors.first == "m0"
        assert mirrors.records.inner is engine
        assert await mirrors.health_of("m0") == await engine.health()
        assert (started, attempts) == (["m0"], 1)
        await mirrors.close()

    asyncio.run(scenario())


def test_rights_keep_stores_from_keys_and_gateways_from_drives() -> None:
    rights = Rights(store_user=7001, gateway_user=7002)
    assert rights.has(7001, Right.STORE)
    assert not rights.has(7001, Right.GATEWAY)
    assert rights.has(7002, Right.GATEWAY)
    assert not rights.has(7002, Right.STORE)
    for right in Right:
        assert rights.has(0, right)
        assert rights.has(os.geteuid(), right)
        assert not rights.has(7003, right)
    assert not rights.has(7001, Right.OWN)


def test_setup_makes_both_keys_once(tmp_path: Path) -> None:
    config = Config(paths=PathsSection(state=tmp_path, runtime=tmp_path))
    private = make_keys(config, SeededEntropy(1))
    assert private is not None
    assert make_keys(config, SeededEntropy(2)) is None
    assert read_recovery_public(recovery_file(config)) == private.public
    assert master_key_file(config).stat().st_mode & 0o777 == 0o600
    everything = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert private.secret.hex().encode() not in everything
    [text] = [line for line in recovery_notice(private).splitlines() if "RECOVERY-1" in line]
    assert read_recovery(text) == private
    # A crash between the two: nothing was wrapped to the first recovery key, a new one is made.
    master_key_file(config).unlink()
    again = make_keys(config, SeededEntropy(3))
    assert again is not None
    assert read_recovery_public(recovery_file(config)) == again.public
    # A master key that is lost is put back, not made: there is data under it.
    master_key_file(config).unlink()
    (tmp_path / "mirrors/m0").mkdir(parents=True)
    with pytest.raises(Refused, match=r"put its .*master\.key back"):
        make_keys(config, SeededEntropy(4))
    assert read_recovery_public(recovery_file(config)) == again.public


def test_a_master_key_is_used_only_if_it_is_one_and_private(tmp_path: Path) -> None:
    file = tmp_path / "master.key"
    with pytest.raises(NotFound, match="put its master key back"):
        read_master_key(file, None)
    master = MasterKey(b"m" * 32)
    write_master_key(file, master)
    assert read_master_key(file, None) == master
    with pytest.raises(Refused, match="never replaced"):
        write_master_key(file, master)
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    write_master_key(credentials / "master-key", MasterKey(b"c" * 32))
    assert read_master_key(file, str(credentials)) == MasterKey(b"c" * 32)
    file.chmod(0o644)
    with pytest.raises(Refused, match="chmod 600"):
        read_master_key(file, None)
    for wrong in ("", "hello", "appliance-master-key-1 00ff"):
        file.write_text(wrong)
        file.chmod(0o600)
        with pytest.raises(InvalidInput) as caught:
            read_master_key(file, None)
        assert "00ff" not in str(caught.value)


def test_a_directory_is_held_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.daemon.directories.LOCK_S", 0)
    with (
        only_one(tmp_path, "control"),
        pytest.raises(Unreachable, match="another appliance runs on it"),
        only_one(tmp_path, "control"),
    ):
        raise AssertionError("held twice")
    with only_one(tmp_path, "control"):
        assert (tmp_path / "control.lock").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(Unreachable, match="cannot write to"):
        make_directory(tmp_path / "file" / "below", 0o755)


def test_status_is_one_line_and_never_fails() -> None:
    mirror = MirrorReport("m0", "00", "in sync", total_bytes=100, free_bytes=59)
    roles = [RoleReport("store m0", "running", 5), RoleReport("gateway 0", "away")]
    assert summary([mirror], roles) == "mirror m0 in sync, 41 % full; 0 of 1 gateways"
    assert summary([], []) == "no mirror yet; 0 of 0 gateways"

    async def scenario() -> None:
        async def broken() -> list[MirrorReport]:
            raise Unavailable("the store is away")

        async def fine() -> list[MirrorReport]:
            return [mirror]

        for mirrors, gone, healthy in ((broken, [], False), (fine, [], True), (fine, roles, False)):
            facts = Facts(lambda: "https://x", "r", "ca", partial(list[RoleReport], gone), mirrors)
            report = await StatusReports(facts).report()
            assert report.healthy is healthy

    asyncio.run(scenario())


def test_buckets_are_listed_over_all_contracts() -> None:
    async def scenario() -> None:
        house = House(SimulatedEngine())
        await house.vault.open()

        with ThreadPoolExecutor(1) as hashing:
            make = bucket_maker(house.engine, house.vault, SystemClock(), SeededEntropy(4), hashing)
        accounts = Accounts(house.engine, house.vault, SystemClock(), SeededEntropy(5), make)
        made = [await accounts.create(name) for name in ("zeta", "acme")]
        reports = await BucketReports(house.engine).reports()
        assert [each.name for each in reports] == sorted(each.bucket for each in made)
        assert {each.owner for each in reports} == {"zeta", "acme"}

    asyncio.run(scenario())
