"""``appliance drive``: what is there, and claiming it."""

from __future__ import annotations

from typing import Final

import click

from appliance.cli.context import Context, json_option, pass_context
from appliance.cli.jobs import follow
from appliance.cli.output import plain, size
from appliance.core.admin import DriveReport, DriveState
from appliance.core.errors import ApplianceError

_COLOURS: Final = {
    DriveState.CLAIMABLE: "green",
    DriveState.MEMBER: "cyan",
    DriveState.CLAIMED: "cyan",
    DriveState.SPARE: "cyan",
    DriveState.DETACHED: "yellow",
    DriveState.FORMATTING: "yellow",
    DriveState.CLONE: "bold red",
    DriveState.FAULTY: "bold red",
    DriveState.REFUSED: "dim",
}


@click.group()
def drive() -> None:
    """See the machine's drives and claim them.

    Drives are named by identity (serial number, WWN, or our own drive id), never by
    /dev/sdX: those names change from boot to boot.
    """


@drive.command("list")
@json_option
@pass_context
def list_drives(context: Context) -> None:
    """Show every drive, whether it may be claimed, and if not why.

    \b
    Examples:
      appliance drive list
      appliance drive list --json
    """
    reports = context.client.drives()
    if context.output.as_json:
        context.output.document(reports)
        return
    if not reports:
        context.output.say("No drives. Attach one; it is shown here as soon as udev reports it.")
        return
    rows = [_row(report) for report in reports]
    context.output.table(("IDENTITY", "SIZE", "KIND", "NOW AT", "STATE", "WHY"), rows)
    ready = [report.drive.identity for report in reports if report.state is DriveState.CLAIMABLE]
    if ready:
        context.output.say(f"\nNext: appliance drive claim {plain(ready[0])}")


def _row(report: DriveReport) -> tuple[str, ...]:
    found = report.drive
    colour = _COLOURS[report.state]
    state = report.state.value + (f" of {report.mirror}" if report.mirror else "")
    why = "; ".join(report.reasons)
    if report.can_force:
        why += f" (--force-serial {found.serial} would destroy it)"
    kind = found.model or ("rotating" if found.rotational else "solid state")
    return (
        plain(found.identity or "none"),
        size(found.size_bytes),
        plain(kind),
        plain(found.node),
        f"[{colour}]{plain(state)}[/]",
        plain(why),
    )


def complete_identity(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Identities for the shell; none when the appliance cannot be asked."""
    try:
        reports = context.ensure_object(Context).client.drives()
    except ApplianceError:
        return []
    names = [report.drive.identity for report in reports]
    return [name for name in names if name and name.startswith(incomplete)]


@drive.command("claim")
@click.argument("identity", shell_complete=complete_identity)
@click.option(
    "--force-serial",
    metavar="SERIAL",
    help="Destroy what is on the drive. The serial typed must be the drive's own.",
)
@json_option
@pass_context
def claim_drive(context: Context, identity: str, force_serial: str | None) -> None:
    """Format a drive for the appliance and mount it privately.

    Refused when the drive carries anything: a file system, a RAID member, a partition
    table; destroying that takes its serial number typed after --force-serial. A drive that
    is in use (mounted, held, open) is always refused.

    \b
    Examples:
      appliance drive claim WD-WCC7K0AAAAAA
      appliance drive claim wwn-0x50014ee2b1c2d3e4
      appliance drive claim WD-WCC7K0AAAAAA --force-serial WD-WCC7K0AAAAAA
    """
    client = context.client
    job = follow(context, client.claim_drive(identity, force_serial=force_serial))
    if context.output.as_json:
        context.output.document(job)
        return
    context.output.say(f"[green]Claimed[/] {plain(identity)} (drive id {plain(job.result)}).")
    free = [
        report.drive.identity for report in client.drives() if report.state is DriveState.CLAIMED
    ]
    if len(free) >= 2:
        names = " ".join(plain(name) for name in free[:2])
        context.output.say(f"Next: appliance mirror create {names}")
    else:
        context.output.say("Next: claim a second drive, then join both with: mirror create")
