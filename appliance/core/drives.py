"""What a drive is, and the rules that decide whether it may be claimed.

Owns the inventory's value types, how a person names a drive, and the refusal rules. Refuses kernel
names (``/dev/sdb``): they change from boot to boot, so nothing that wipes may go by them.
Invariant: a drive that is in use in any way is never claimable, not even when forced; a drive that
carries anything at all is claimable only with its serial typed.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.core.errors import InvalidInput, NotFound, Refused

DRIVE_BYTES_MIN: Final = 320 * 1024 * 1024
"""mkfs.xfs makes no file system below 300 MiB."""

LABEL_PREFIX: Final = "appl:"
"""XFS labels have 12 bytes: the prefix that udev rules match, and the drive id's first 7 digits."""

_LABEL_DIGITS: Final = 7
_KERNEL_NAME: Final = re.compile(
    r"(/dev/)?((sd|hd|vd|xvd)[a-z]+\d*|nvme\d+n\d+(p\d+)?|loop\d+(p\d+)?|mmcblk\d+(p\d+)?|dm-\d+)"
)
_BY_ID: Final = "/dev/disk/by-id/"


class DriveKind(enum.Enum):
    """What stands behind the block layer."""

    DISK = "disk"
    LOOP = "loop"
    DIRECTORY = "directory"


@dataclass(frozen=True, slots=True)
class Signature:
    """Something a probe recognised on the drive: ``xfs``, ``gpt``, ``linux_raid_member``, ..."""

    type: str
    label: str = ""
    uuid: str = ""


@dataclass(frozen=True, slots=True)
class Drive:
    """One drive as the machine sees it now.

    ``identity`` is what an operator types and survives a reboot; ``aliases`` are accepted too.
    ``node`` is today's kernel name, for reading only. ``busy`` tells that the kernel refused an
    exclusive open. ``drive_id`` is ours, empty on a drive that carries no label of ours.
    ``faults`` are sentences about why the drive could not be probed.
    """

    identity: str
    kind: DriveKind
    node: str
    size_bytes: int
    serial: str = ""
    wwn: str = ""
    model: str = ""
    aliases: tuple[str, ...] = ()
    rotational: bool = False
    read_only: bool = False
    removable: bool = False
    signatures: tuple[Signature, ...] = ()
    partitions: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    busy: bool = False
    drive_id: str = ""
    faults: tuple[str, ...] = ()


class Objection(enum.Enum):
    """Why a drive may not be claimed."""

    NO_IDENTITY = "no identity"
    UNREADABLE = "unreadable"
    READ_ONLY = "read only"
    TOO_SMALL = "too small"
    MOUNTED = "mounted"
    HELD = "held"
    BUSY = "busy"
    WRONG_SERIAL = "wrong serial"
    PARTITIONED = "partitioned"
    OURS = "ours"
    SIGNATURE = "signature"


_FORCEABLE: Final = frozenset({Objection.PARTITIONED, Objection.OURS, Objection.SIGNATURE})


@dataclass(frozen=True, slots=True)
class Reason:
    """One objection with its sentence. ``forceable``: typing the serial overrides it."""

    objection: Objection
    sentence: str

    @property
    def forceable(self) -> bool:
        """Only what would be wiped can be overridden, never what is in use."""
        return self.objection in _FORCEABLE


@dataclass(frozen=True, slots=True)
class Claimable:
    """The drive may be claimed. ``wipe`` names what is on it and would be destroyed."""

    wipe: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """The drive may not be claimed, and every reason why."""

    reasons: tuple[Reason, ...]

    @property
    def forceable(self) -> bool:
        """Whether typing the serial would be enough."""
        return all(reason.forceable for reason in self.reasons)


def label_of(drive_id: str) -> str:
    """The XFS label of one of our drives."""
    return LABEL_PREFIX + drive_id[:_LABEL_DIGITS]


def is_our_label(label: str) -> bool:
    """Whether udev or blkid read a label that only we write."""
    return label.startswith(LABEL_PREFIX)


def claimable(drive: Drive, *, force_serial: str | None = None) -> Claimable | Refusal:
    """Decide on one drive. ``force_serial`` is what the operator typed to force it."""
    reasons = [*_in_the_way(drive)]
    contents = [*_contents(drive)]
    if force_serial is None:
        reasons += contents
    elif force_serial != drive.serial or not drive.serial:
        sentence = f"the serial typed is {force_serial!r}, the drive's is {drive.serial!r}"
        reasons += [Reason(Objection.WRONG_SERIAL, sentence), *contents]
    if reasons:
        return Refusal(tuple(reasons))
    return Claimable(tuple(reason.sentence for reason in contents))


def _in_the_way(drive: Drive) -> Iterable[Reason]:
    """What no serial overrides: it must be put right first."""
    if not drive.identity:
        yield Reason(
            Objection.NO_IDENTITY,
            "it reports neither serial number nor WWN, so it could not be recognised again",
        )
    for fault in drive.faults:
        yield Reason(Objection.UNREADABLE, f"it could not be examined: {fault}")
    if drive.read_only:
        yield Reason(Objection.READ_ONLY, "it is write-protected")
    if drive.size_bytes < DRIVE_BYTES_MIN and drive.kind is not DriveKind.DIRECTORY:
        size, least = drive.size_bytes // 1024**2, DRIVE_BYTES_MIN // 1024**2
        yield Reason(Objection.TOO_SMALL, f"it has {size} MiB, at least {least} MiB are needed")
    for mount in drive.mounts:
        yield Reason(Objection.MOUNTED, f"it is mounted at {mount}; unmount it first")
    for holder in drive.holders:
        yield Reason(Objection.HELD, f"it is held by {holder}; release it first")
    if drive.busy and not drive.mounts and not drive.holders:
        yield Reason(Objection.BUSY, "another program or the kernel holds it exclusively open")


def _contents(drive: Drive) -> Iterable[Reason]:
    """What a claim would destroy."""
    for partition in drive.partitions:
        yield Reason(Objection.PARTITIONED, f"it has the partition {partition}")
    if drive.drive_id:
        yield Reason(
            Objection.OURS, f"it is already a drive of an appliance (drive id {drive.drive_id})"
        )
    for signature in drive.signatures:
        if drive.drive_id and is_our_label(signature.label):
            continue
        label = f' labelled "{signature.label}"' if signature.label else ""
        yield Reason(Objection.SIGNATURE, f"it carries {_spoken(signature.type)}{label}")


def _spoken(signature_type: str) -> str:
    """How a person calls a signature type of blkid."""
    tables = {"gpt": "GPT", "dos": "MBR", "PMBR": "protective MBR", "mac": "Apple", "sun": "Sun"}
    if signature_type in tables:
        return f"a partition table ({tables[signature_type]})"
    if signature_type.endswith("_member"):
        return f"a member of something bigger ({signature_type})"
    if signature_type == "swap":
        return "a swap area (swap)"
    if signature_type == "files":
        return "files that are not ours (files)"
    if signature_type == "crypto_LUKS":
        return "an encrypted volume (crypto_LUKS)"
    return f"a file system ({signature_type})"


def resolve(drives: Sequence[Drive], identity: str) -> Drive:
    """The one drive an operator means.

    Raises ``InvalidInput`` for a kernel name, ``NotFound`` when none, ``Refused`` when several
    drives answer to the identity.
    """
    wanted = identity.strip()
    if wanted.startswith(_BY_ID):
        wanted = wanted[len(_BY_ID) :]
    if not wanted or _KERNEL_NAME.fullmatch(wanted):
        raise InvalidInput(
            f"cannot take {identity!r} for a drive: kernel names change from boot to boot; "
            "use an identity that `appliance drive list` shows"
        )
    found = [drive for drive in drives if answers_to(drive, wanted)]
    if not found:
        raise NotFound(
            f"cannot find a drive with identity {wanted!r}; `appliance drive list` shows all drives"
        )
    if len(found) > 1:
        nodes = ", ".join(drive.node for drive in found)
        raise Refused(
            f"cannot tell which drive is {wanted!r}: {nodes} answer to it; "
            "use a longer identity, or detach one of them"
        )
    return found[0]


def answers_to(drive: Drive, identity: str) -> bool:
    """Whether the drive is called so: identity, alias, serial, WWN or our drive id."""
    names = {drive.identity, drive.serial, drive.wwn, drive.drive_id, *drive.aliases}
    return identity in names - {""}
