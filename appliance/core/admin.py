"""What the admin API tells: one frozen type per answer.

Owns the shapes that managers return, the API renders and the client reads back, so that the three
cannot drift apart. Refuses secrets, with one exception: ``NewAccount`` is shown once, at creation.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from appliance.core.alerts import Alert
from appliance.core.drives import Drive
from appliance.core.scrubs import ScrubReport


class DriveState(enum.Enum):
    """What a drive is to this appliance."""

    CLAIMABLE = "claimable"
    REFUSED = "refused"
    FORMATTING = "formatting"
    CLAIMED = "claimed"
    MEMBER = "member"
    SPARE = "spare"
    DETACHED = "detached"
    """It was replaced, and still holds its mirror's data; only a claim wipes it."""
    CLONE = "clone"
    FAULTY = "faulty"


@dataclass(frozen=True, slots=True)
class DriveReport:
    """A drive, what it is to us, and why it may not be claimed. ``can_force``: the serial typed
    would be enough."""

    drive: Drive
    state: DriveState
    mirror: str = ""
    path: str = ""
    reasons: tuple[str, ...] = ()
    can_force: bool = False


@dataclass(frozen=True, slots=True)
class MemberReport:
    """One drive's place in a mirror, also when the drive is away. ``role``: ``member``,
    ``joining``, ``outgoing`` (until the joining one counts) or ``spare``."""

    drive_id: str
    serial: str = ""
    present: bool = False
    in_sync: bool = False
    path: str = ""
    reason: str = ""
    read_errors: int = 0
    repaired: int = 0
    detached: bool = False
    """Nobody writes to it: its history went its own way, or it is a clone."""
    role: str = "member"
    failed: bool = False


@dataclass(frozen=True, slots=True)
class DriveChoice:
    """A drive an operator may decide for, and what is known of it."""

    drive_id: str
    serial: str = ""
    words: str = ""


@dataclass(frozen=True, slots=True)
class MirrorReport:
    """A mirror. ``state`` is the engine's word, or ``assembling`` before its store answers.
    ``resync_*`` are bytes, both 0 when none runs; ``resync_eta_s`` None while unknown.
    ``unreadable``: how many records of which contract no drive could give, a sentence each."""

    name: str
    mirror_id: str
    state: str
    reason: str = ""
    members: tuple[MemberReport, ...] = ()
    epoch: int = 0
    sequence: int = 0
    total_bytes: int = 0
    free_bytes: int = 0
    resync_done: int = 0
    resync_total: int = 0
    resync_eta_s: float | None = None
    scrub: ScrubReport | None = None
    question: str = ""
    """What it waits for an operator to decide: see ``core.decisions``."""
    choices: tuple[DriveChoice, ...] = ()
    lost: tuple[str, ...] = ()
    """Records that no drive has; ``lost_more`` is how many are not named."""
    lost_more: int = 0
    resync_drive: str = ""
    resync_paused: bool = False
    unreadable: tuple[str, ...] = ()
    alerts: tuple[Alert, ...] = ()
    """The latest since the store's start, oldest first."""


@dataclass(frozen=True, slots=True)
class AccountReport:
    """An account without its secrets."""

    name: str
    user_id: str
    display_name: str
    access_keys: tuple[str, ...] = ()
    bucket: str = ""
    frozen: bool = False
    created_ns: int = 0


@dataclass(frozen=True, slots=True)
class NewAccount:
    """A fresh account with its secret, which is never shown again."""

    name: str
    user_id: str
    display_name: str
    access_key: str
    secret_key: str
    bucket: str

    def __repr__(self) -> str:
        """Without the secret, so that no log line can carry it."""
        return f"NewAccount(name={self.name!r}, user_id={self.user_id!r})"


@dataclass(frozen=True, slots=True)
class BucketReport:
    """A bucket and whose it is."""

    name: str
    owner: str
    created_ns: int = 0


@dataclass(frozen=True, slots=True)
class RoleReport:
    """A process of the appliance: ``control``, ``store m0``, ``gateway 0``, ..."""

    role: str
    state: str
    pid: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The appliance at a glance. ``summary`` is one sentence for a person."""

    version: str
    summary: str
    healthy: bool
    endpoint: str = ""
    region: str = ""
    ca_file: str = ""
    roles: tuple[RoleReport, ...] = ()
    mirrors: tuple[MirrorReport, ...] = ()
