"""``mirror export``: every readable object of one drive, taken away without the service.

Owns the order of it: the key is tried before anything is written, then bucket by bucket, each
object whole or not at all. What cannot be read is named and passed over. Invariant: the drive is
only read.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar, cast
from urllib.parse import unquote, urlsplit

from appliance.control.keys.offline import OfflineKeys
from appliance.core.documents import to_document
from appliance.core.errors import ApplianceError, InvalidInput, Refused, Unreachable
from appliance.core.keywrap import MasterKey, RecoveryPrivate
from appliance.core.offline import Export, Unreadable, batches, counted
from appliance.core.ports import Progress
from appliance.daemon.export_directory import ExportDirectory
from appliance.daemon.export_s3 import ExportS3
from appliance.daemon.export_target import Target
from appliance.daemon.offline import Telling
from appliance.daemon.offline_drive import Opened, object_context, opened_drive
from appliance.daemon.offline_keys import read_key
from appliance.engine.mirror.offline import LogFindings
from appliance.engine.mirror.offline_engine import OfflineEngine
from appliance.objects import export as stored
from appliance.objects.context import Context
from appliance.runtime.clock import SystemClock
from appliance.system.remote_s3 import RemoteAccount, RemoteS3

T = TypeVar("T")
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
NAMED_MAX: Final = 200
"""Unreadable objects in the report; a directory has all of them in a file beside the manifest."""


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
    check_target(to)
    key = read_key(master_key, recovery_key)
    inside = not is_endpoint(to) and Path(to).resolve().is_relative_to(path.resolve())
    if inside and path.is_dir():
        raise Refused(f"cannot export to {to}: it is on the drive itself, which is only read")
    with opened_drive(path, scratch, telling) as opened:
        counts = asyncio.run(_export(opened, key, to, telling))
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
    opened: Opened, key: MasterKey | RecoveryPrivate, to: str, telling: Telling
) -> _Counts:
    engine = OfflineEngine(opened.drive)
    try:
        with ThreadPoolExecutor(1, "decrypting") as hashing:
            keys = OfflineKeys(engine, key)
            context = object_context(engine, keys, hashing)
            contracts = await stored.contracts(context)
            await _try_key(keys, contracts)
            async with _target(to) as target:
                run = _Run(context, target, contracts, telling.progress("exporting"))
                await run.everything()
                await target.finish()
                return run.counts
    finally:
        await engine.close()


@asynccontextmanager
async def _target(to: str) -> AsyncIterator[Target]:
    if not is_endpoint(to):
        directory = ExportDirectory(Path(to))
        try:
            yield directory
        finally:
            await directory.close()
        return
    parts = urlsplit(to)
    bucket, _, prefix = unquote(parts.path).strip("/").partition("/")
    endpoint = f"{parts.scheme}://{parts.netloc}"
    async with RemoteS3(
        endpoint, _account(), SystemClock(), ca_file=os.environ.get("AWS_CA_BUNDLE")
    ) as remote:
        yield ExportS3(remote, bucket, f"{prefix}/" if prefix else "")


def is_endpoint(to: str) -> bool:
    """Whether a target is another S3 endpoint, not a directory."""
    return "://" in to


def check_target(to: str) -> None:
    """Raises ``InvalidInput`` for an address that is no endpoint, ``Refused`` for one to which
    what is no longer encrypted would cross a network in clear."""
    if not is_endpoint(to):
        return
    parts = urlsplit(to)
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise InvalidInput(
            f"cannot export to {to}: give a directory, or https://HOST/BUCKET/PREFIX"
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidInput(
            f"cannot export to {parts.hostname}: its address may hold neither credentials (set"
            " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) nor a query"
        )
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise Refused(
            f"cannot export to {to}: the objects would cross the network unencrypted; use https://"
        )


def _account() -> RemoteAccount:
    """From the variables every S3 tool knows."""
    access_key = os.environ.get("AWS_ACCESS_KEY_ID", "")
    secret_key = os.environ.get("AWS_SECRET_ACCESS_KEY", "")
    if not access_key or not secret_key:
        raise InvalidInput(
            "cannot export to an endpoint: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY first"
        )
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return RemoteAccount(access_key, secret_key, region)


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
        target: Target,
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
                await self._target.bucket(bucket)
                async with aclosing(_generator(stored.objects(self._context, bucket))) as found:
                    async for each in found:
                        await self._object(contract.contract_id, each)
        self._progress(self._total, self._total)

    async def _object(self, contract: str, found: stored.StoredObject) -> None:
        counts, opened = self.counts, found.opened
        if opened is None:
            self._cannot(found, found.trouble)
            return
        try:
            size_bytes = opened.info.size_bytes
            if await self._target.has(found, opened):
                counts.present += 1
                counts.present_bytes += size_bytes
            else:
                await self._target.store(found, opened, self._told)
                counts.copied += 1
                counts.copied_bytes += size_bytes
        except Unreachable:
            raise
        except ApplianceError as error:
            self._cannot(found, str(error))
            return
        where = {"contract": contract, "bucket": found.bucket, "key": found.key}
        where["path"] = self._target.where(found)
        self._target.note("manifest", where | stored.describe_object(opened.info))
        self._told(0)

    def _told(self, size_bytes: int) -> None:
        """So many bytes of the object that is under way are copied."""
        counts = self.counts
        done = counts.copied + counts.copied_bytes + counts.present + counts.present_bytes
        self._progress(min(done + size_bytes, self._total), self._total)

    def _cannot(self, found: stored.StoredObject, reason: str) -> None:
        self.counts.unreadable += 1
        unreadable = Unreadable(found.bucket, found.key, reason, f"{found.version:x}")
        if len(self.counts.named) < NAMED_MAX:
            self.counts.named.append(unreadable)
        self._target.note("unreadable", to_document(unreadable))
