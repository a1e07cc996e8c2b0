"""Laying out a new mirror on empty drives.

Owns the first epoch. Refuses drives that belong to a mirror already. Invariant: until the witness
is written, last, none of the drives is enough to serve, so a creation that was cut short is begun
again from the start and nothing of it is ever taken for a mirror with data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from appliance.core.epochs import successor
from appliance.core.errors import InvalidInput, Refused
from appliance.core.ports import Clock, Entropy, Volume
from appliance.engine.mirror.blob import BLOB_DIRECTORY, STAGING_DIRECTORY
from appliance.engine.mirror.format import BLOCK_BYTES
from appliance.engine.mirror.index_file import publish
from appliance.engine.mirror.log import Log
from appliance.engine.mirror.rebuild import create_index
from appliance.engine.mirror.segment import SEGMENT_BYTES_DEFAULT, SegmentState
from appliance.engine.mirror.superblock import Superblock, format_drive, read_superblock
from appliance.engine.mirror.witness import Witness, WitnessFile, create_witness

SEGMENT_BYTES_MIN: Final = 64 * 1024
FIRST_SEGMENTS: Final = 2


@dataclass(frozen=True, slots=True)
class NewDrive:
    """A claimed, empty drive. ``drive_id`` is its volume's name too."""

    drive_id: str
    volume: Volume
    serial: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class NewMirrorPlan:
    """Everything decided about a mirror before it exists. ``mirror_id``: 32 hex digits."""

    mirror_id: str
    drives: Sequence[NewDrive]
    index_directory: Volume
    index_path: str
    witness_directory: Volume
    witness_name: str = "witness"
    segment_size_bytes: int = SEGMENT_BYTES_DEFAULT


def create_mirror(plan: NewMirrorPlan, *, clock: Clock, entropy: Entropy) -> None:
    """Make the mirror. Blocking; durable on return. Raises ``InvalidInput``, ``Refused``,
    ``DriveFault``.

    Crash points: (1) after some directories and segments: no superblock names a mirror, or only
    one does, without a witness; the next call does all of it again.
    """
    _check(plan)
    for drive in plan.drives:
        found = read_superblock(drive.volume)
        if isinstance(found, Superblock) and found.mirror_id not in {"", plan.mirror_id}:
            raise Refused(
                f"cannot make a mirror: drive {drive.drive_id} belongs to mirror "
                f"{found.mirror_id}; detach and claim it first"
            )
    witness = WitnessFile.open(plan.witness_directory, plan.witness_name)
    if isinstance(witness, WitnessFile):
        made = witness.value.mirror_id
        witness.close()
        if made == plan.mirror_id:
            raise Refused(f"cannot make mirror {plan.mirror_id}: it exists already")
    publish(
        plan.index_directory,
        create_index(plan.index_directory, plan.index_path, bytes.fromhex(plan.mirror_id)),
    )
    names = tuple(sorted(drive.drive_id for drive in plan.drives))
    epoch_id = entropy.token(16).hex()
    history = successor((), number=1, epoch_id=epoch_id, in_sync=names)
    for drive in plan.drives:
        _lay_out(plan, drive.volume)
    for drive in plan.drives:
        format_drive(
            drive.volume,
            Superblock(
                drive_id=drive.drive_id,
                serial=drive.serial,
                label=drive.label,
                mirror_id=plan.mirror_id,
                segment_size_bytes=plan.segment_size_bytes,
                created_ns=clock.now_ns(),
                history=history,
            ),
        )
    create_witness(plan.witness_directory, plan.witness_name, Witness(plan.mirror_id, 0, history))


def _check(plan: NewMirrorPlan) -> None:
    if len(plan.drives) not in {1, 2} or len({d.drive_id for d in plan.drives}) != len(plan.drives):
        raise InvalidInput("cannot make a mirror: it takes two different drives")
    if plan.segment_size_bytes < SEGMENT_BYTES_MIN or plan.segment_size_bytes % BLOCK_BYTES:
        raise InvalidInput("cannot make a mirror: log segments are too small or no whole blocks")


def _lay_out(plan: NewMirrorPlan, volume: Volume) -> None:
    for directory in (BLOB_DIRECTORY, STAGING_DIRECTORY):
        volume.make_directory(directory)  # durable with the superblock, beside which they lie
    log = Log(volume, bytes.fromhex(plan.mirror_id), plan.segment_size_bytes)
    for segment in range(1, FIRST_SEGMENTS + 1):
        log.prepare(SegmentState(segment, 1))
    log.close()
