"""``drive inspect``: what lies on one drive.

Owns the gathering of one report from superblock, log, blob files and the records in the log. Needs
no key: names of contracts and buckets are in clear on the drives, contents are not.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from appliance.core.contracts import ACCOUNT, Account
from appliance.core.epochs import Epoch
from appliance.core.errors import ApplianceError, NotFound
from appliance.core.offline import (
    BlobReport,
    ContractReport,
    DamageReport,
    EpochReport,
    Inspection,
    LogReport,
    explain,
)
from appliance.core.ports import Credential, Owner
from appliance.core.recordkeys import after_prefix
from appliance.daemon.offline import Telling
from appliance.daemon.offline_drive import Opened, object_context, opened_drive
from appliance.engine.interface import SYSTEM
from appliance.engine.mirror.blob_check import look_at_blobs
from appliance.engine.mirror.offline import LogFindings, left_at
from appliance.engine.mirror.offline_engine import OfflineEngine
from appliance.engine.mirror.superblock import Superblock
from appliance.objects import export

ACCOUNTS_MAX = 1_000_000


def inspect(path: Path, scratch: Path, telling: Telling) -> Inspection:
    """Look at one drive. Blocking. Raises ``ApplianceError``."""
    with opened_drive(path, scratch, telling) as opened:
        return explain(_report(opened))


def _report(opened: Opened) -> Inspection:
    drive = opened.drive
    identity = drive.identity
    block = identity.superblock or Superblock("", mirror_id=identity.mirror_id.hex())
    found = look_at_blobs(drive.volume, opened.index)
    contracts: tuple[ContractReport, ...] = ()
    trouble = ""
    try:
        contracts = asyncio.run(_contracts(opened))
    except ApplianceError as error:
        trouble = str(error)
    space = drive.volume.space()
    return Inspection(
        path=str(opened.path),
        access=opened.access,
        drive_id=block.drive_id,
        serial=block.serial,
        label=block.label,
        mirror_id=block.mirror_id,
        created_ns=block.created_ns,
        heartbeat=block.heartbeat,
        superblock_trouble=identity.trouble,
        in_sync=bool(block.history) and block.drive_id in block.history[-1].in_sync,
        left_at=left_at(block.drive_id, block.history),
        epochs=tuple(map(_epoch, block.history)),
        log=log_report(drive.log, identity.segment_size_bytes),
        blobs=BlobReport(
            found.owned,
            found.owned_bytes,
            found.missing,
            found.wrong_size,
            found.orphans,
            found.orphan_bytes,
        ),
        contracts=contracts,
        contracts_trouble=trouble,
        total_bytes=space.total_bytes,
        free_bytes=space.free_bytes,
    )


def _epoch(epoch: Epoch) -> EpochReport:
    leaves = tuple(f"{leave.drive_id} with batch {leave.sequence}" for leave in epoch.leaves)
    return EpochReport(epoch.number, epoch.id, epoch.in_sync, leaves, epoch.forced)


def log_report(log: LogFindings, segment_size_bytes: int) -> LogReport:
    """A log's findings as they are told."""
    unaccepted = log.unaccepted
    return LogReport(
        segment_size_bytes=segment_size_bytes,
        segments_used=len(log.table.used()),
        segments_free=len(log.table.free()),
        first_sequence=0 if log.first is None else log.first.place.sequence,
        last_sequence=0 if log.last is None else log.last.place.sequence,
        last_write_ns=0 if log.last is None else log.last.place.time_ns,
        batches=log.batches,
        records=log.records,
        torn=log.torn,
        beyond_leave=log.beyond_leave,
        damage=tuple(
            DamageReport(
                damage.segment,
                damage.offset,
                damage.length,
                damage.first_sequence,
                damage.last_sequence,
                damage.reason,
                damage not in unaccepted,
            )
            for damage in log.damage
        ),
    )


async def _contracts(opened: Opened) -> tuple[ContractReport, ...]:
    engine = OfflineEngine(opened.drive)
    with ThreadPoolExecutor(1) as hashing:
        try:
            context = object_context(engine, NoKeys(), hashing)
            records = await engine.scan(SYSTEM, ACCOUNT, after_prefix(ACCOUNT), ACCOUNTS_MAX)
            contracts = await export.contracts(context)
            accounts = Counter(Account.decode(record.value).contract_id for record in records)
            return tuple(
                [
                    ContractReport(
                        contract.contract_id,
                        contract.name,
                        accounts[contract.contract_id],
                        len(await export.buckets(context, contract.contract_id)),
                        contract.objects,
                        contract.size_bytes,
                    )
                    for contract in sorted(contracts, key=lambda each: each.name)
                ]
            )
        finally:
            await engine.close()


class NoKeys:
    """A ``core.ports.KeyStore`` for looking at records alone."""

    async def credential(self, access_key: str) -> Credential | None:
        """None."""
        return None

    async def contract_key(self, contract: str) -> bytes:
        """Raises ``NotFound``."""
        raise NotFound(f"contract {contract}: no key was given")

    async def owner(self, contract: str, user_id: str) -> Owner | None:
        """None."""
        return None
