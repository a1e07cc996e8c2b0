"""What the tools that work without the service find, and what each finding means.

Owns the reports of ``drive inspect``, ``mirror verify`` and ``mirror export`` as values, their exit
codes, and the sentences that say what they mean and what to do next. Pure.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Final

EXIT_REPAIRABLE: Final = 10
EXIT_LOST: Final = 11
EXIT_UNKNOWN: Final = 12


@dataclass(frozen=True, slots=True)
class EpochReport:
    """One epoch a drive knows of. ``leaves``: who left with it, and the last sequence it had."""

    number: int
    id: str
    in_sync: tuple[str, ...]
    leaves: tuple[str, ...] = ()
    forced: bool = False


@dataclass(frozen=True, slots=True)
class DamageReport:
    """A part of a log that does not verify. Sequences are those of the batches that lay there; a
    ``last_sequence`` of 0 is not known. ``accepted``: an operator knows and went on."""

    segment: int
    offset: int
    length: int
    first_sequence: int
    last_sequence: int
    reason: str
    accepted: bool = False


@dataclass(frozen=True, slots=True)
class LogReport:
    """A drive's log. ``beyond_leave`` counts batches behind the drive's leave: never
    acknowledged."""

    segment_size_bytes: int
    segments_used: int
    segments_free: int
    first_sequence: int
    last_sequence: int
    last_write_ns: int
    batches: int
    records: int
    torn: bool
    beyond_leave: int
    damage: tuple[DamageReport, ...] = ()


@dataclass(frozen=True, slots=True)
class BlobReport:
    """A drive's blob files. ``orphans`` belong to no record (left by a crash, or released)."""

    owned: int
    owned_bytes: int
    missing: int
    wrong_size: int
    orphans: int
    orphan_bytes: int


@dataclass(frozen=True, slots=True)
class ContractReport:
    """A contract as the log tells it. ``objects`` and ``size_bytes`` count its unfinished uploads'
    bytes too."""

    contract_id: str
    name: str
    accounts: int
    buckets: int
    objects: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Inspection:
    """One drive, as it lies there. ``left_at``: the sequence it left the mirror with, if it knows
    that it did. ``meaning`` and ``advice`` are sentences for a person."""

    path: str
    access: str
    drive_id: str
    serial: str
    label: str
    mirror_id: str
    created_ns: int
    heartbeat: int
    superblock_trouble: str
    in_sync: bool
    left_at: int | None
    epochs: tuple[EpochReport, ...]
    log: LogReport
    blobs: BlobReport
    contracts: tuple[ContractReport, ...]
    contracts_trouble: str
    total_bytes: int
    free_bytes: int
    meaning: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()


class Remedy(enum.Enum):
    """What can be done about a finding."""

    HARMLESS = "harmless"
    """The next start, or a resync, sees to it by itself."""
    PEER = "the other drive has it"
    NONE = "no drive has it"
    UNKNOWN = "the other drive was not looked at"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be on a drive."""

    drive: str
    what: str
    remedy: Remedy


@dataclass(frozen=True, slots=True)
class VerifiedDrive:
    """What was read of one drive."""

    path: str
    access: str
    drive_id: str
    standing: str
    batches: int
    records: int
    log_bytes: int
    last_sequence: int
    blobs: int
    blob_bytes: int


@dataclass(frozen=True, slots=True)
class Verification:
    """Everything that was compared. ``findings_left_out`` counts those beyond the first few."""

    mirror_id: str
    drives: tuple[VerifiedDrive, ...]
    findings: tuple[Finding, ...]
    harmless: int
    repairable: int
    lost: int
    unknown: int
    index_records: int
    advice: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 sound; what is lost counts for more than what is not known, and that for more than
        what the other drive has."""
        if self.lost:
            return EXIT_LOST
        if self.unknown:
            return EXIT_UNKNOWN
        return EXIT_REPAIRABLE if self.repairable else 0


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An object that could not be exported, and why. ``record``: the number that stands for it
    where keys may not be shown."""

    bucket: str
    key: str
    reason: str
    record: str = ""


@dataclass(frozen=True, slots=True)
class Export:
    """What was taken from a drive. ``present`` objects were there already and equal. ``unreadable``
    holds the first few of ``unreadable_count``; all are in a file beside the manifest."""

    path: str
    access: str
    target: str
    contracts: int
    buckets: int
    copied: int
    copied_bytes: int
    present: int
    present_bytes: int
    unreadable_count: int
    unreadable: tuple[Unreadable, ...]
    damaged_batches: str
    advice: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 when everything the drive's log names was taken along."""
        return EXIT_LOST if self.unreadable_count or self.damaged_batches else 0


@dataclass(frozen=True, slots=True)
class RecoveredKey:
    """A master key that was written again."""

    path: str
    key_id: str
    master_key_file: str


def counted(count: int, noun: str) -> str:
    """``1 batch``, ``2 batches``."""
    plural = f"{noun}es" if noun.endswith(("ch", "x")) else f"{noun}s"
    return f"{count} {noun if count == 1 else plural}"


def batches(first_sequence: int, last_sequence: int) -> str:
    """``batch 7``, ``batches 7 to 9``, with what is not known said so."""
    if first_sequence == last_sequence != 0:
        return f"batch {first_sequence}"
    return f"batches {first_sequence or 'unknown'} to {last_sequence or 'unknown'}"


def explain(found: Inspection) -> Inspection:
    """The same with ``meaning`` and ``advice``."""
    meaning = [*_standing(found), *_log(found), *_blobs(found)]
    return replace(found, meaning=tuple(meaning), advice=tuple(_advice(found)))


def _standing(found: Inspection) -> list[str]:
    if found.superblock_trouble:
        return [
            f"The superblock cannot be read ({found.superblock_trouble}): who the drive is and"
            " whether it counted is not known; what it holds was read from its log."
        ]
    newest = found.epochs[-1]
    others = [drive for drive in newest.in_sync if drive != found.drive_id]
    if found.left_at is not None:
        return [
            f"The drive left the mirror with batch {found.left_at} (epoch {newest.number}). It is"
            f" older than {' and '.join(others) or 'the others'}: do not use it if one of those is"
            " to be had."
        ]
    if not found.in_sync:
        return [
            f"The drive is not in sync in epoch {newest.number}, the newest it knows: its copy may"
            " be incomplete."
        ]
    if others:
        return [
            f"By all it knows it was in sync with {' and '.join(others)} (epoch {newest.number})."
            " Only the other drive or the witness can tell whether it was left behind later."
        ]
    return [
        f"It was the only drive in sync (epoch {newest.number}): it holds everything that was"
        " acknowledged."
    ]


def _log(found: Inspection) -> list[str]:
    log, told = found.log, []
    open_damage = [damage for damage in log.damage if not damage.accepted]
    if not log.batches:
        told.append("The log is empty: nothing was ever stored.")
    elif not open_damage:
        told.append(f"The log is whole: {batches(log.first_sequence, log.last_sequence)}.")
    else:
        told.append(
            f"The log is damaged in {counted(len(open_damage), 'place')}: objects written there are"
            " not known by name, and deletions written there may be undone. The other drive may"
            " have them."
        )
    if log.torn:
        told.append("Its last batch was cut short by a crash. It was never acknowledged.")
    if log.beyond_leave:
        beyond = counted(log.beyond_leave, "batch")
        told.append(f"Behind its leave: {beyond}, never acknowledged, not counted.")
    return told


def _blobs(found: Inspection) -> list[str]:
    blobs = found.blobs
    told = []
    if blobs.missing or blobs.wrong_size:
        told.append(
            f"Of the large objects, {counted(blobs.missing, 'file')} are missing and"
            f" {counted(blobs.wrong_size, 'file')} cut short. The other drive may have them."
        )
    if blobs.orphans:
        files = counted(blobs.orphans, "file")
        told.append(f"Of no object any more: {files}, left by a crash, or released.")
    return told


def _advice(found: Inspection) -> list[str]:
    path = found.path
    advice = []
    damaged = any(not damage.accepted for damage in found.log.damage)
    if damaged or found.blobs.missing or found.blobs.wrong_size:
        advice.append(f"See whether the other drive has it: appliance mirror verify {path} OTHER")
    else:
        advice.append(f"Check every byte: appliance mirror verify {path} [OTHER]")
    advice.append(
        "Serve from it: attach it, with the other drive if there is one, to an appliance that has"
        " the master key, and start that"
    )
    advice.append(
        f"Take everything away: appliance mirror export {path} --to DIRECTORY"
        " --master-key FILE (or --recovery-key FILE)"
    )
    return advice
