"""``mirror export``: every readable object of one drive, taken away without the service.

Owns the order of it: the key is tried before anything is written, then bucket by bucket, each
object whole or not at all. What cannot be read is named and passed over. Invariant: the drive is
only read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar, cast

from appliance.control.keys.offline import OfflineKeys
from appliance.core.documents import to_document
from appliance.core.errors import ApplianceError, Refused, Unreachable
from appliance.core.exportnames import path_of_key
from appliance.core.keywrap import MasterKey, RecoveryPrivate
from appliance.core.offline import Export, Unreadable, batches, counted
from appliance.core.ports import Progress
from appliance.daemon.export_directory import ExportDirectory
from appliance.daemon.offline import Telling
from appliance.daemon.offline_drive import Opened, object_context, opened_drive
from appliance.daemon.offline_keys import read_key
from appliance.engine.mirror.offline import LogFindings
from appliance.engine.mirror.offline_engine import OfflineEngine
from appliance.objects import export as stored
from appliance.objects.content import OpenObject
from appliance.objects.context import Context

T = TypeVar("T")
NAMED_MAX: Final = 20
"""Unreadable objects in the report; all of them are in a file beside the manifest."""


@dataclass(slots=True)
class _Counts:
    contracts: int = 0
    buckets: int = 0
    copied: int = 0
    copied_bytes: int = 0
    present: int = 0
    present_bytes: int = 0
    unreadable: int = 0
    named: list[Unreadable] = field(default_factory=list)


def export(
    path: Path,
    to: str,
    scratch: Path,
    telling: Telling,
    *,
    master_key: Path | None,
    recovery_key: str | None,
) -> Export:
    """Copy everything to a directory. Blocking. Raises ``ApplianceError`` when nothing, or nothing
    more, can be copied; running it again goes on."""
    key = read_key(master_key, recovery_key)
    target = Path(to)
    if path.is_dir() and target.resolve().is_relative_to(path.resolve()):
        raise Refused(f"cannot export to {to}: it is on the drive itself, which is only read")
    with opened_drive(path, scratch, telling) as opened:
        counts = asyncio.run(_export(opened, key, target, telling))
        damaged = damaged_batches(opened.drive.log)
        return Export(
            path=str(path),
            access=opened.access,
            target=to,
            contracts=counts.contracts,
            buckets=counts.buckets,
            copied=counts.copied,
            copied_bytes=counts.copied_bytes,
            present=counts.present,
            present_bytes=counts.present_bytes,
            unreadable_count=counts.unreadable,
            unreadable=tuple(counts.named),
            damaged_batches=damaged,
            advice=_advice(counts, damaged, path),
        )


def damaged_batches(log: LogFindings) -> str:
    """In words, which batches of the log do not verify; empty when all do."""
    open_damage = log.unaccepted
    if not open_damage:
        return ""
    first = open_damage[0]
    words = batches(first.first_sequence, first.last_sequence)
    more = len(open_damage) - 1
    return f"{words}, and {counted(more, 'more place')}" if more else words


def _advice(counts: _Counts, damaged: str, path: Path) -> tuple[str, ...]:
    if not counts.unreadable and not damaged:
        return ()
    return (
        "Export from the other drive, too, into another directory: it may have what this one lacks",
        f"See what is bad: appliance mirror verify {path} OTHER",
    )


def _generator(found: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    return cast("AsyncGenerator[T, None]", found)


async def _export(
    opened: Opened, key: MasterKey | RecoveryPrivate, root: Path, telling: Telling
) -> _Counts:
    engine = OfflineEngine(opened.drive)
    try:
        with ThreadPoolExecutor(1, "decrypting") as hashing:
            keys = OfflineKeys(engine, key)
            context = object_context(engine, keys, hashing)
            contracts = await stored.contracts(context)
            await _try_key(keys, contracts)
            with closing(ExportDirectory(root)) as target:
                run = _Run(context, target, contracts, telling.progress("exporting"))
                await run.everything()
                await asyncio.to_thread(target.finish)
                return run.counts
    finally:
        await engine.close()


async def _try_key(keys: OfflineKeys, contracts: list[stored.StoredContract]) -> None:
    """Raises the refusal of a key that opens no contract at all."""
    refusal: ApplianceError | None = None
    for contract in contracts:
        try:
            await keys.contract_key(contract.contract_id)
            return
        except ApplianceError as error:
            refusal = error
    if refusal is not None:
        raise refusal


class _Run:
    """One export from start to end."""

    def __init__(
        self,
        context: Context,
        target: ExportDirectory,
        contracts: list[stored.StoredContract],
        progress: Progress,
    ) -> None:
        self.counts: Final = _Counts(contracts=len(contracts))
        self._context: Final = context
        self._target: Final = target
        self._contracts: Final = contracts
        self._progress: Final = progress
        # An object of no bytes is work, too.
        self._total: Final = sum(each.size_bytes + each.objects for each in contracts)

    async def everything(self) -> None:
        """All contracts' buckets."""
        for contract in self._contracts:
            for bucket in await stored.buckets(self._context, contract.contract_id):
                self.counts.buckets += 1
                self._target.note("buckets", stored.describe_bucket(bucket))
                async with aclosing(_generator(stored.objects(self._context, bucket))) as found:
                    async for each in found:
                        await self._object(contract.contract_id, each)
        self._progress(self._total, self._total)

    async def _object(self, contract: str, found: stored.StoredObject) -> None:
        opened = found.opened
        if opened is None:
            self._cannot(found, found.trouble)
            return
        path = f"{found.bucket}/{path_of_key(found.key, is_folder=found.is_folder)}"
        info = opened.info
        counts = self.counts
        if self._target.has(path, info.size_bytes, info.modified_ns):
            counts.present += 1
            counts.present_bytes += info.size_bytes
        else:
            try:
                await self._target.store(path, self._bytes(opened), info.modified_ns)
            except ApplianceError as error:
                if isinstance(error, Unreachable):
                    raise
                self._cannot(found, str(error))
                return
            counts.copied += 1
            counts.copied_bytes += info.size_bytes
        where = {"contract": contract, "bucket": found.bucket, "key": found.key, "path": path}
        self._target.note("manifest", where | stored.describe_object(info))
        done = counts.copied + counts.copied_bytes + counts.present + counts.present_bytes
        self._progress(min(done, self._total), self._total)

    async def _bytes(self, opened: OpenObject) -> AsyncIterator[bytes]:
        counts = self.counts
        before = counts.copied + counts.copied_bytes + counts.present + counts.present_bytes
        size_bytes = 0
        async for piece in opened.read():
            yield piece
            size_bytes += len(piece)
            self._progress(min(before + size_bytes, self._total), self._total)

    def _cannot(self, found: stored.StoredObject, reason: str) -> None:
        self.counts.unreadable += 1
        unreadable = Unreadable(found.bucket, found.key, reason)
        if len(self.counts.named) < NAMED_MAX:
            self.counts.named.append(unreadable)
        self._target.note("unreadable", to_document(unreadable))
