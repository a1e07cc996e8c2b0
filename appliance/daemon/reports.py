"""What control tells operators about the whole: status and buckets.

Owns putting the parts' words together. Refuses to wait: a part that does not answer in a moment is
shown as away. Invariant: ``healthy`` is true only when every role is there, every mirror is in
sync and control can use its records.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from appliance import __version__
from appliance.core.admin import BucketReport, MirrorReport, RoleReport, StatusReport
from appliance.core.contracts import CONTRACT
from appliance.core.errors import ApplianceError
from appliance.core.recordkeys import after_prefix, bucket_key
from appliance.engine.interface import SYSTEM, Engine, MirrorState, Partition, Record

_PAGE: Final = 1000
_ANSWER_S: Final = 3.0
_BUCKETS: Final = b"b/"


class BucketReports:
    """Buckets over all contracts. Fulfils ``api.managers.BucketManager``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def reports(self) -> Sequence[BucketReport]:
        """Every bucket by name."""
        from appliance.objects.records import BucketRecord

        found: list[BucketReport] = []
        for contract in await self._scan(SYSTEM, CONTRACT):
            partition = Partition(contract.key.removeprefix(CONTRACT).decode())
            for record in await self._scan(partition, _BUCKETS):
                bucket = BucketRecord.decode(record.value)
                name = record.key.removeprefix(bucket_key("")).decode()
                found.append(BucketReport(name, bucket.owner.display_name, bucket.created_ns))
        return sorted(found, key=lambda report: report.name)

    async def _scan(self, partition: Partition, start: bytes) -> list[Record]:
        records: list[Record] = []
        position, end = start, after_prefix(start)
        while True:
            page = await self._engine.scan(partition, position, end, _PAGE)
            records += page
            if len(page) < _PAGE:
                return records
            position = page[-1].key + b"\x00"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a status is made of, asked for anew each time."""

    endpoint: Callable[[], str]
    region: str
    ca_file: str
    roles: Callable[[], Sequence[RoleReport]]
    mirrors: Callable[[], Awaitable[Sequence[MirrorReport]]]
    trouble: Callable[[], str] = str
    """What else is wrong, as a sentence; empty when nothing is."""


class StatusReports:
    """The appliance at a glance. Fulfils ``api.managers.StatusManager``."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    async def report(self) -> StatusReport:
        """Never fails and never waits long."""
        facts = self._facts
        try:
            async with asyncio.timeout(_ANSWER_S):
                mirrors = tuple(await facts.mirrors())
        except (TimeoutError, ApplianceError):
            mirrors = ()
        roles = tuple(facts.roles())
        trouble = facts.trouble()
        away = [role for role in roles if role.state != "running"]
        healthy = not away and all(mirror.state == MirrorState.IN_SYNC.value for mirror in mirrors)
        return StatusReport(
            version=__version__,
            summary="; ".join(filter(None, [summary(mirrors, roles), trouble])),
            healthy=healthy and bool(mirrors) and not trouble,
            endpoint=facts.endpoint(),
            region=facts.region,
            ca_file=facts.ca_file,
            roles=roles,
            mirrors=mirrors,
        )


def summary(mirrors: Sequence[MirrorReport], roles: Sequence[RoleReport]) -> str:
    """One line for a person: ``mirror m0 in sync, 41 % full; 2 of 2 gateways``."""
    parts = [_mirror_words(mirror) for mirror in mirrors] or ["no mirror yet"]
    gateways = [role for role in roles if role.role.startswith("gateway")]
    running = sum(role.state == "running" for role in gateways)
    return f"{', '.join(parts)}; {running} of {len(gateways)} gateways"


def _mirror_words(mirror: MirrorReport) -> str:
    words = f"mirror {mirror.name} {mirror.state}"
    if mirror.total_bytes:
        words += f", {100 * (mirror.total_bytes - mirror.free_bytes) // mirror.total_bytes} % full"
    return words
