"""One or two drives of a mirror held against themselves and each other, without their store.

Owns what a finding is and what can be done about it. Repairs nothing. Invariant: only what a drive
that counts lacks, and no other drive that was looked at has, is called lost.

Two logs with the same last batch are the same: each batch carries its predecessor's CRC. So logs
are compared by their damage and their ends, blob files by their own checksums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from appliance.core.epochs import DriveVote, ReadOnly, Serve, Standing
from appliance.core.errors import Refused
from appliance.core.membership import decide
from appliance.core.offline import Finding, Remedy, batches
from appliance.core.ports import Volume
from appliance.engine.mirror.blob_check import BlobFindings
from appliance.engine.mirror.index_check import IndexCheck
from appliance.engine.mirror.log import Damage
from appliance.engine.mirror.offline import OfflineDrive
from appliance.engine.mirror.slots import SLOT_BYTES, SLOTS, decode_slot
from appliance.engine.mirror.superblock import SUPERBLOCK_KIND, SUPERBLOCK_PATH


@dataclass(slots=True)
class Examined:
    """Everything that was read of one drive. ``standing`` is None where it cannot be told."""

    drive: OfflineDrive
    blobs: BlobFindings = field(default_factory=BlobFindings)
    index: IndexCheck = field(default_factory=IndexCheck)
    standing: Standing | None = None

    @property
    def name(self) -> str:
        """The drive's id."""
        return self.drive.name

    @property
    def counts(self) -> bool:
        """Whether what this drive lacks matters: not where a resync rewrites it anyway."""
        return self.standing not in {Standing.STALE, Standing.ROLLED_BACK}


def settle_standings(drives: Sequence[Examined]) -> list[Finding]:
    """Work out what each drive is to the others. Raises ``Refused`` for drives that do not belong
    together."""
    mirrors = {each.drive.identity.mirror_id for each in drives}
    if len(mirrors) > 1:
        raise Refused("cannot compare these drives: they belong to different mirrors")
    if len({each.name for each in drives}) < len(drives):
        raise Refused(f"cannot compare: {drives[0].name} was given twice, or one is its copy")
    votes = [
        DriveVote(block.drive_id, block.mirror_id, block.history, block.heartbeat)
        for each in drives
        if (block := each.drive.identity.superblock) is not None and block.history
    ]
    decision = decide(votes, None, waited=True, forced=True)
    if isinstance(decision, Serve):
        for each in drives:
            each.standing = decision.standings.get(each.name)
    elif isinstance(decision, ReadOnly):
        for each in drives:
            each.standing = Standing.DIVERGED
        return [
            Finding(each.name, "its history and the other's went apart", Remedy.HARMLESS)
            for each in drives
        ]
    return []


def compare(drives: Sequence[Examined]) -> list[Finding]:
    """All findings, drive by drive. Reads superblocks and indexes alone."""
    findings = settle_standings(drives)
    for each in drives:
        others = [other for other in drives if other is not each]
        found = [
            *_superblock(each, others),
            *_log(each, others),
            *_end(each, others),
            *_blobs(each, others),
            *(
                Finding(each.name, f"the index made from its log: {trouble}", Remedy.NONE)
                for trouble in each.index.troubles
            ),
        ]
        if each.counts:
            findings += found
        else:
            findings += [Finding(f.drive, f.what, Remedy.HARMLESS) for f in found]
    return findings


def _absent(each: Examined, others: Sequence[Examined]) -> Remedy:
    """What can be done about what no drive that was given has."""
    block = each.drive.identity.superblock
    alone = block is not None and block.history[-1:] and block.history[-1].in_sync == (each.name,)
    return Remedy.NONE if others or alone else Remedy.UNKNOWN


def _superblock(each: Examined, others: Sequence[Examined]) -> list[Finding]:
    trouble = each.drive.identity.trouble
    if trouble:
        whole = any(not other.drive.identity.trouble for other in others)
        remedy = Remedy.PEER if whole else _absent(each, others)
        return [Finding(each.name, f"its superblock cannot be read: {trouble}", remedy)]
    bad = bad_slots(each.drive.volume)
    if not bad:
        return []
    what = f"one of its superblock's two slots is not valid ({bad[0]}); the other one counts"
    return [Finding(each.name, what, Remedy.HARMLESS)]


def bad_slots(volume: Volume) -> list[str]:
    """Why slots of the superblock are not valid. Raises ``DriveFault``."""
    file = volume.open(SUPERBLOCK_PATH)
    try:
        read = [
            decode_slot(
                file.read_at(number * SLOT_BYTES, SLOT_BYTES, past_cache=True), SUPERBLOCK_KIND
            )
            for number in range(SLOTS)
        ]
    finally:
        file.close()
    return [slot for slot in read if isinstance(slot, str)]


def _log(each: Examined, others: Sequence[Examined]) -> list[Finding]:
    log = each.drive.log
    open_damage = log.unaccepted
    findings = []
    for damage in log.damage:
        what = (
            f"log segment {damage.segment:08x} at {damage.offset}: {damage.reason}"
            f" ({batches(damage.first_sequence, damage.last_sequence)})"
        )
        if damage not in open_damage:
            findings.append(Finding(each.name, f"lost, as accepted: {what}", Remedy.HARMLESS))
        elif any(_has(other, damage) for other in others):
            findings.append(Finding(each.name, what, Remedy.PEER))
        else:
            findings.append(Finding(each.name, what, _absent(each, others)))
    if log.torn:
        what = "its last batch was cut short by a crash; it was never acknowledged"
        findings.append(Finding(each.name, what, Remedy.HARMLESS))
    return findings


def _has(other: Examined, damage: Damage) -> bool:
    """Whether another drive's log has what is damaged here."""
    log = other.drive.log
    state = log.table.get(damage.segment)
    if state is None or (damage.generation and state.generation != damage.generation):
        return False
    return log.tail.sequence >= damage.last_sequence and not any(
        damage.overlaps(theirs) for theirs in log.damage
    )


def _end(each: Examined, others: Sequence[Examined]) -> list[Finding]:
    """Where the log ends, held against the other drive's."""
    findings = []
    own = each.drive.log.tail
    for other in others:
        ends = dict(other.drive.log.ends)
        missing = other.drive.log.tail.sequence - own.sequence
        if own.sequence in ends and own.crc and ends[own.sequence] != own.crc:
            what = f"its log went another way than that of {other.name}: batch {own.sequence}"
            findings.append(Finding(each.name, what, Remedy.NONE))
        elif missing == 1:
            what = "it lacks the last batch, as after a crash; the next start copies it"
            findings.append(Finding(each.name, what, Remedy.HARMLESS))
        elif missing > 1:
            what = (
                f"its log ends {missing} batches before that of {other.name}: it lost what it had"
                " confirmed, or was left behind"
            )
            findings.append(Finding(each.name, what, Remedy.PEER))
    return findings


def _blobs(each: Examined, others: Sequence[Examined]) -> list[Finding]:
    index = each.drive.index
    assert index is not None, "it was replayed"
    findings = []
    for blob_id, reason in each.blobs.bad.items():
        owner = index.owner(blob_id)
        name = "nobody" if owner is None else index.words_for(*owner)
        whole = any(
            blob_id not in other.blobs.bad
            and other.drive.index is not None
            and other.drive.index.owner(blob_id) is not None
            for other in others
        )
        remedy = Remedy.PEER if whole else _absent(each, others)
        what = f"blob {blob_id.hex()} of {name}: {reason}"
        findings.append(Finding(each.name, what, remedy))
    return findings
