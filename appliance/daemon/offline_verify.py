"""``mirror verify``: every batch, record and blob chunk of one or two drives, compared.

Owns the order: logs first, which gives the indexes, then blob files, then the indexes themselves;
the drives side by side in each step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

from appliance.core.errors import InvalidInput
from appliance.core.offline import Finding, Remedy, Verification, VerifiedDrive
from appliance.core.ports import Progress
from appliance.daemon.offline import Telling
from appliance.engine.mirror.blob_check import verify_blobs
from appliance.engine.mirror.index_check import check_index
from appliance.engine.mirror.offline import OfflineDrive
from appliance.engine.mirror.verify import Examined, compare, settle_standings
from appliance.system.examine import examined

FINDINGS_MAX: Final = 100
"""In the report; the counts count them all."""
DRIVES_MAX: Final = 2


def verify(paths: Sequence[Path], scratch: Path, telling: Telling) -> Verification:
    """Check the drives. Blocking. Raises ``ApplianceError``."""
    if len(paths) > DRIVES_MAX:
        raise InvalidInput("cannot verify more than the two drives of one mirror")
    with ExitStack() as stack:
        drives: list[Examined] = []
        access: list[str] = []
        for number, path in enumerate(paths):
            place = scratch / str(number)
            place.mkdir()
            volume, how = stack.enter_context(examined(path, place))
            access.append(how)
            drives.append(Examined(stack.enter_context(closing(OfflineDrive(volume)))))
        settle_standings(drives)
        _read_everything(drives, scratch, telling)
        findings = compare(drives)
        return _report(paths, access, drives, findings)


def _read_everything(drives: Sequence[Examined], scratch: Path, telling: Telling) -> None:
    def replay(number: int, progress: Progress) -> None:
        place = scratch / f"index-{number}"
        place.mkdir()
        drives[number].drive.replay(place, progress)

    def blobs(number: int, progress: Progress) -> None:
        drive = drives[number].drive
        assert drive.index is not None, "replayed before"
        drives[number].blobs = verify_blobs(drive.volume, drive.index, progress)

    def index(number: int, progress: Progress) -> None:
        drive = drives[number].drive
        assert drive.index is not None, "replayed before"
        drives[number].index = check_index(drive.index.path, progress)

    with ThreadPoolExecutor(len(drives), "verify") as threads:
        steps = (("logs", replay), ("large objects", blobs), ("indexes", index))
        for what, step in steps:
            together = _Together(len(drives), telling.progress(f"checking the {what}"))
            list(threads.map(lambda n, s=step, t=together: s(n, t.of(n)), range(len(drives))))


class _Together:
    """The progress of several drives as one."""

    def __init__(self, count: int, progress: Progress) -> None:
        self._done = [0] * count
        self._total = [0] * count
        self._progress = progress

    def of(self, number: int) -> Callable[[int, int], None]:
        """Where one of them reports."""

        def tell(done: int, total: int) -> None:
            self._done[number], self._total[number] = done, total
            self._progress(sum(self._done), sum(self._total))

        return tell


def _report(
    paths: Sequence[Path],
    access: Sequence[str],
    drives: Sequence[Examined],
    findings: Sequence[Finding],
) -> Verification:
    counts = {remedy: sum(f.remedy is remedy for f in findings) for remedy in Remedy}
    # The worst first: a long list is cut at its end.
    order = [Remedy.NONE, Remedy.UNKNOWN, Remedy.PEER, Remedy.HARMLESS]
    shown = sorted(findings, key=lambda finding: order.index(finding.remedy))[:FINDINGS_MAX]
    return Verification(
        mirror_id=drives[0].drive.identity.mirror_id.hex(),
        drives=tuple(map(_drive, paths, access, drives)),
        findings=tuple(shown),
        harmless=counts[Remedy.HARMLESS],
        repairable=counts[Remedy.PEER],
        lost=counts[Remedy.NONE],
        unknown=counts[Remedy.UNKNOWN],
        index_records=max(each.index.records for each in drives),
        advice=_advice(paths, counts),
    )


def _drive(path: Path, access: str, examined_drive: Examined) -> VerifiedDrive:
    log = examined_drive.drive.log
    standing = examined_drive.standing
    return VerifiedDrive(
        path=str(path),
        access=access,
        drive_id=examined_drive.name,
        standing="not known" if standing is None else standing.value,
        batches=log.batches,
        records=log.records,
        log_bytes=log.bytes_read,
        last_sequence=log.tail.sequence,
        blobs=examined_drive.blobs.owned,
        blob_bytes=examined_drive.blobs.owned_bytes,
    )


def _advice(paths: Sequence[Path], counts: dict[Remedy, int]) -> tuple[str, ...]:
    if counts[Remedy.NONE]:
        return (
            "Copy both drives before anything else is tried (ddrescue to fresh disks).",
            f"Take away what can be read: appliance mirror export {paths[0]} --to DIRECTORY"
            " --master-key FILE; the same from the other drive into another directory.",
            "Only then start the appliance: it serves what is whole and asks before it goes on.",
        )
    if counts[Remedy.UNKNOWN]:
        return (f"Give both drives: appliance mirror verify {paths[0]} OTHER",)
    if counts[Remedy.PEER]:
        return (
            "Start the appliance with both drives: it repairs each from the other and counts it.",
            "Replace a drive that is repaired again and again: appliance mirror status shows it.",
        )
    return ()
