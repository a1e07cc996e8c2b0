"""What the admin API asks of the control plane: one narrow protocol per noun.

Owns no behaviour. The daemon hands in the objects that fulfil these; tests hand in fakes. All
methods raise errors of ``appliance.core.errors`` whose message is a sentence for the operator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.core.admin import (
    AccountReport,
    BucketReport,
    DriveReport,
    MirrorReport,
    NewAccount,
    StatusReport,
)
from appliance.core.decisions import Choice
from appliance.core.jobs import Job
from appliance.core.scrubs import ScrubOrder, ScrubReport


class DiskManager(Protocol):
    """Drives, mirrors and the jobs on them. ``appliance.control.disks.manager.Disks`` is one."""

    async def drive_reports(self) -> Sequence[DriveReport]:
        """Every drive the machine shows, and ours that are away from it are left out."""
        ...

    async def claim(self, identity: str, *, force_serial: str | None = None) -> Job:
        """Start formatting a drive. Raises ``Refused`` with every reason."""
        ...

    async def create_mirror(self, name: str, identities: Sequence[str]) -> MirrorReport:
        """Join two claimed drives to a new mirror."""
        ...

    async def resolve(self, name: str, choice: Choice, identity: str = "") -> MirrorReport:
        """Decide what a mirror waits for. Raises ``Refused`` for what it does not wait for."""
        ...

    async def mirror_reports(self) -> Sequence[MirrorReport]: ...

    async def scrub(self, name: str, order: ScrubOrder) -> ScrubReport:
        """Say something about a mirror's scrub, and learn how it stands. Raises ``Refused``."""
        ...

    async def replace(self, mirror: str, old: str, new: str) -> Job:
        """Let a claimed drive take the place of a member. Raises ``Refused``, ``NotFound``."""
        ...

    async def add_spare(self, mirror: str, identity: str) -> MirrorReport:
        """Keep a claimed drive ready to take a failed one's place."""
        ...

    async def remove_spare(self, mirror: str, identity: str) -> MirrorReport: ...

    async def pause_resync(self, mirror: str, *, paused: bool) -> MirrorReport:
        """Hold, or go on, bringing drives in."""
        ...

    def jobs(self) -> Sequence[Job]:
        """Running jobs and the last ended ones, oldest first."""
        ...

    def job(self, job_id: str) -> Job:
        """Raises ``NotFound``."""
        ...


class AccountManager(Protocol):
    """Accounts and their keys."""

    async def create(self, name: str) -> NewAccount:
        """A new account with keys and an initial bucket. Raises ``InvalidInput``, ``Refused``."""
        ...

    async def reports(self) -> Sequence[AccountReport]: ...


class BucketManager(Protocol):
    """Buckets over all accounts."""

    async def reports(self) -> Sequence[BucketReport]: ...


class StatusManager(Protocol):
    """The appliance at a glance."""

    async def report(self) -> StatusReport: ...


@dataclass(frozen=True, slots=True)
class Managers:
    """Everything the API serves."""

    disks: DiskManager
    accounts: AccountManager
    buckets: BucketManager
    status: StatusManager
