"""A scrub in words: what runs, what the last one found, and what to do next.

Owns sentences. Times are the reader's own.
"""

from __future__ import annotations

import time

from appliance.cli.output import Output, Standing, duration, eta, plain, size
from appliance.core.scrubs import DriveScrub, ScrubReport, ScrubRun, ScrubState

_STAMP = "%Y-%m-%d %H:%M"


def show_scrub(output: Output, report: ScrubReport) -> None:
    """Everything: the one that runs, the last one drive by drive, and what is lost."""
    if report.current is not None:
        output.say(f"[bold]{plain(report.mirror)}[/]  {plain(_current(report.current))}")
        _show_findings(output, report.current)
    if report.last is not None:
        output.say(f"[bold]{plain(report.mirror)}[/]  {plain(_last(report.last))}")
        if report.current is None:
            _show_findings(output, report.last)
    elif report.current is None:
        output.say(f"[bold]{plain(report.mirror)}[/]  never scrubbed")
    if report.current is None and report.next_in_s is not None:
        output.say(f"  next in {duration(report.next_in_s)}")


def scrub_lines(report: ScrubReport) -> list[str]:
    """The same in a line or two, for the status of a mirror."""
    lines = []
    if report.current is not None:
        lines.append(_current(report.current))
    if report.last is not None:
        lines.append(f"last {_last(report.last)}")
    elif report.current is None:
        lines.append("never scrubbed")
    if report.last is not None and report.last.unrepairable:
        lines.append(f"see `appliance mirror scrub {report.mirror} --show` for what is lost")
    return lines


def standing(report: ScrubReport) -> Standing:
    """For a progress bar: over once none is under way, or while it may not go on by itself."""
    run = report.current
    if run is None:
        ended = _last(report.last) if report.last is not None else "no scrub"
        return Standing(f"{report.mirror}: {ended}", 0, 0, True)
    text = f"{report.mirror}: {_current(run, with_eta=False)}"
    paused = run.state is ScrubState.PAUSED
    return Standing(text, run.done_bytes, run.total_bytes, paused, run.eta_s)


def _current(run: ScrubRun, *, with_eta: bool = True) -> str:
    text = f"scrub {run.state.value}"
    if run.total_bytes:
        share = run.done_bytes * 100 // run.total_bytes
        text += f" {share} % ({size(run.done_bytes)} of {size(run.total_bytes)})"
    if run.found:
        text += f", {_findings(run)}"
    if run.reason:
        text += f": {run.reason}"
    if with_eta and run.eta_s is not None:
        text += f", {eta(run.eta_s)}"
    return text


def _last(run: ScrubRun) -> str:
    ended = time.strftime(_STAMP, time.localtime(run.ended_ns / 1e9))
    text = f"scrub {run.state.value} {ended} after {duration(run.worked_s)}: {_findings(run)}"
    return f"{text}; index {run.index}" if run.index else text


def _findings(run: ScrubRun) -> str:
    if not run.found:
        return "nothing bad"
    if run.repaired == run.found:
        return f"{run.found} bad, all repaired"
    return f"{run.found} bad, {run.repaired} repaired, {run.unrepairable} unrepairable"


def _show_findings(output: Output, run: ScrubRun) -> None:
    rows = [_row(drive) for drive in run.drives]
    if rows:
        headers = ("  DRIVE", "READ", "BATCHES", "SEGMENTS", "BLOBS", "MISSING", "ORPHANS")
        output.table((*headers, "REPAIRED", "UNREPAIRABLE"), rows)
    for name in run.lost:
        output.say(f"  [bold red]lost[/] {plain(name)}")
    if run.lost_count > len(run.lost):
        output.say(f"  and {run.lost_count - len(run.lost)} more")
    if run.lost_count:
        output.say("  Every copy of these is bad. Have their owners store them again:")
        output.say("  appliance mirror export tells which objects they are, by the same numbers.")


def _row(drive: DriveScrub) -> tuple[str, ...]:
    counts = (
        drive.bad_batches,
        drive.bad_segments,
        drive.bad_blobs,
        drive.missing_files,
        drive.orphan_files,
        drive.repaired,
        drive.unrepairable,
    )
    return (f"  {plain(drive.drive_id)}", size(drive.read_bytes), *map(str, counts))
