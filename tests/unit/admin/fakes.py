"""Fake managers behind a real API, and a fake client in front of none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from appliance.api.managers import Managers
from appliance.core.admin import (
    AccountReport,
    BucketReport,
    DriveReport,
    DriveState,
    MemberReport,
    MirrorReport,
    NewAccount,
    RoleReport,
    StatusReport,
)
from appliance.core.decisions import Choice
from appliance.core.drives import Drive, DriveKind, Signature
from appliance.core.errors import ApplianceError, NotFound
from appliance.core.jobs import Job, JobState
from appliance.core.scrubs import DriveScrub, ScrubOrder, ScrubReport, ScrubRun, ScrubState

FREE = DriveReport(
    Drive("ata-ONE_S1", DriveKind.DISK, "/dev/sdb", 4 * 10**12, serial="S1", model="ONE"),
    DriveState.CLAIMABLE,
)
FULL = DriveReport(
    Drive(
        "ata-TWO_S2",
        DriveKind.DISK,
        "/dev/sdc",
        4 * 10**12,
        serial="S2",
        rotational=True,
        signatures=(Signature("ext4", "old [bold]data"),),
    ),
    DriveState.REFUSED,
    reasons=('it carries a file system (ext4) labelled "old [bold]data"',),
    can_force=True,
)
MIRROR = MirrorReport(
    name="m0",
    mirror_id="ab" * 16,
    state="in sync",
    members=(
        MemberReport("d1", "S1", present=True, in_sync=True, path="/run/d1"),
        MemberReport("d2", "S2", present=True, in_sync=True, path="/run/d2", read_errors=2),
    ),
    epoch=3,
    sequence=99,
    total_bytes=4 * 10**12,
    free_bytes=3 * 10**12,
)
STATUS = StatusReport(
    version="0.1.0",
    summary="mirror m0 in sync, 2 gateways",
    healthy=True,
    endpoint="https://s3.example.test:443",
    region="local",
    ca_file="/etc/ca.pem",
    roles=(RoleReport("control", "serving", 17),),
    mirrors=(MIRROR,),
)
SCRUBBING = ScrubReport(
    "m0",
    ScrubRun(ScrubState.RUNNING, "log", 5, 0, 60.0, 25 * 10**9, 100 * 10**9, 180.0),
)
SCRUBBED = ScrubReport(
    "m0",
    last=ScrubRun(
        ScrubState.FINISHED,
        "blobs",
        5,
        7,
        3 * 3600.0,
        100 * 10**9,
        100 * 10**9,
        drives=(
            DriveScrub("d1", 10**11, bad_batches=1, repaired=1),
            DriveScrub("d2", 10**11, bad_blobs=2, repaired=1, unrepairable=1),
        ),
        index="proven equal to the log",
        lost=("an object in bucket acme-[1] (contract c1, record 7)",),
        lost_count=4,
    ),
    next_in_s=20 * 86_400.0,
)
RUNNING = Job("j1", "claim ata-ONE_S1", JobState.RUNNING, "wiping", 1, 4, 12.5)
DONE = Job("j1", "claim ata-ONE_S1", JobState.DONE, "passport", 4, 4, result="d1")


@dataclass(slots=True)
class FakeManagers:
    """Answers what it was given; ``error`` is raised by whatever is asked next."""

    error: Exception | None = None
    drives: list[DriveReport] = field(default_factory=lambda: [FREE, FULL])
    mirrors: list[MirrorReport] = field(default_factory=lambda: [MIRROR])
    job_states: list[Job] = field(default_factory=lambda: [RUNNING, DONE])
    claims: list[tuple[str, str | None]] = field(default_factory=list)
    created: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    scrubs: list[ScrubReport] = field(default_factory=lambda: [SCRUBBING])
    scrub_orders: list[tuple[str, ScrubOrder]] = field(default_factory=list)
    resolved: list[tuple[str, Choice, str]] = field(default_factory=list)

    orders: list[tuple[str, ...]] = field(default_factory=list)

    def managers(self) -> Managers:
        """As the API takes them."""
        return Managers(disks=self, accounts=_Accounts(self), buckets=_Buckets(self), status=self)

    def fail(self) -> None:
        if self.error is not None:
            raise self.error

    async def report(self) -> StatusReport:
        self.fail()
        return STATUS

    async def drive_reports(self) -> Sequence[DriveReport]:
        self.fail()
        return self.drives

    async def claim(self, identity: str, *, force_serial: str | None = None) -> Job:
        self.fail()
        self.claims.append((identity, force_serial))
        return RUNNING

    async def create_mirror(self, name: str, identities: Sequence[str]) -> MirrorReport:
        self.fail()
        self.created.append((name, tuple(identities)))
        return MIRROR

    async def scrub(self, name: str, order: ScrubOrder) -> ScrubReport:
        self.fail()
        self.scrub_orders.append((name, order))
        return self.scrubs.pop(0) if len(self.scrubs) > 1 else self.scrubs[0]

    async def resolve(self, name: str, choice: Choice, identity: str = "") -> MirrorReport:
        self.fail()
        self.resolved.append((name, choice, identity))
        return MIRROR

    async def mirror_reports(self) -> Sequence[MirrorReport]:
        self.fail()
        return self.mirrors

    async def replace(self, mirror: str, old: str, new: str) -> Job:
        self.fail()
        self.orders.append(("replace", mirror, old, new))
        return RUNNING

    async def add_spare(self, mirror: str, identity: str) -> MirrorReport:
        self.fail()
        self.orders.append(("add spare", mirror, identity))
        return self.mirrors[0]

    async def remove_spare(self, mirror: str, identity: str) -> MirrorReport:
        self.fail()
        self.orders.append(("remove spare", mirror, identity))
        return self.mirrors[0]

    async def pause_resync(self, mirror: str, *, paused: bool) -> MirrorReport:
        self.fail()
        self.orders.append(("pause" if paused else "resume", mirror))
        return self.mirrors[0]

    def jobs(self) -> Sequence[Job]:
        return self.job_states[:1]

    def job(self, job_id: str) -> Job:
        if job_id != RUNNING.id:
            raise NotFound(f"cannot find the job {job_id!r}")
        return self.job_states.pop(0) if len(self.job_states) > 1 else self.job_states[0]


@dataclass(slots=True)
class _Accounts:
    owner: FakeManagers

    async def create(self, name: str) -> NewAccount:
        self.owner.fail()
        return NewAccount(name, "u1", name.title(), "AK1", "SECRET1", f"{name}-bucket")

    async def reports(self) -> Sequence[AccountReport]:
        self.owner.fail()
        return [
            AccountReport("office", "u1", "Office", ("AK1",), "office-bucket"),
            AccountReport("lab", "u2", "Lab", ("AK2", "AK3"), "lab-bucket", frozen=True),
        ]


@dataclass(slots=True)
class _Buckets:
    owner: FakeManagers

    async def reports(self) -> Sequence[BucketReport]:
        self.owner.fail()
        return [BucketReport("office-bucket", "office", 1_700_000_000_000_000_000)]


class Unforeseen(ApplianceError):
    """A class the API's table does not name."""
