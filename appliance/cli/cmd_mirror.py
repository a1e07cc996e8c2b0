"""``appliance mirror``: joining two drives, and how the pair is."""

from __future__ import annotations

from typing import Final

import click

from appliance.cli.cmd_drive import complete_identity
from appliance.cli.context import Context, json_option, pass_context
from appliance.cli.output import Output, Standing, eta, moment, plain, size
from appliance.cli.scrub_text import scrub_lines
from appliance.core.admin import MemberReport, MirrorReport
from appliance.core.errors import NotFound

_COLOURS: Final = {"in sync": "green", "resyncing": "yellow", "assembling": "yellow"}
ALERTS_SHOWN: Final = 5
"""The latest; --json has all that the store keeps."""


@click.group()
def mirror() -> None:
    """Make mirrors of two drives and watch them.

    Everything stored is on both drives of a mirror before it is acknowledged.
    """


@mirror.command("create")
@click.argument(
    "names", nargs=-1, required=True, metavar="[NAME] A B", shell_complete=complete_identity
)
@json_option
@pass_context
def create_mirror(context: Context, names: tuple[str, ...]) -> None:
    """Join two claimed drives A and B to a mirror.

    Without NAME it is called m0, m1, and so on.

    \b
    Examples:
      appliance mirror create WD-WCC7K0AAAAAA WD-WCC7K0BBBBBB
      appliance mirror create archive WD-WCC7K0AAAAAA WD-WCC7K0BBBBBB
    """
    if len(names) not in {2, 3}:
        raise click.UsageError("give two drives, with or without the mirror's name before them")
    client = context.client
    name = names[0] if len(names) == 3 else _free_name(client.mirrors())
    report = client.create_mirror(name, list(names[-2:]))
    if context.output.as_json:
        context.output.document(report)
        return
    context.output.say(f"[green]Created[/] mirror {plain(report.name)}.")
    show(context.output, [report])
    context.output.say("\nNext: appliance account create NAME")


def _free_name(reports: list[MirrorReport]) -> str:
    taken = {report.name for report in reports}
    return next(f"m{number}" for number in range(len(taken) + 1) if f"m{number}" not in taken)


@mirror.command("status")
@click.argument("name", required=False)
@json_option
@pass_context
def mirror_status(context: Context, name: str | None) -> None:
    """Show every mirror (or NAME): state, drives, space, resync.

    \b
    Examples:
      appliance mirror status
      appliance mirror status m0 --json
    """
    reports = chosen_reports(context.client.mirrors(), name)
    if context.output.as_json:
        context.output.document(reports)
    elif not reports:
        context.output.say("No mirrors yet. Next: appliance drive list")
    else:
        show(context.output, reports)


def chosen_reports(reports: list[MirrorReport], name: str | None) -> list[MirrorReport]:
    """All, or the one of that name. Raises ``NotFound``."""
    if name is None:
        return reports
    found = [report for report in reports if report.name == name]
    if not found:
        known = ", ".join(report.name for report in reports) or "none"
        raise NotFound(f"cannot find the mirror {name!r}; there are: {known}")
    return found


def show(output: Output, reports: list[MirrorReport]) -> None:
    """Mirrors and their members as people read them."""
    for report in reports:
        colour = _COLOURS.get(report.state, "bold red")
        line = f"[bold]{plain(report.name)}[/]  [{colour}]{plain(report.state)}[/]"
        if report.reason:
            line += f"  {plain(report.reason)}"
        output.say(line)
        if report.total_bytes:
            free = f"{size(report.free_bytes)} free of {size(report.total_bytes)}"
            output.say(f"  {free}, epoch {report.epoch}, sequence {report.sequence}")
        if report.resync_drive or report.resync_total:
            output.say(f"  {plain(_resync_text(report))}  {eta(report.resync_eta_s)}")
        elif report.resync_paused:
            output.say("  [yellow]resync paused[/]  Next: appliance mirror resync --resume")
        for line in scrub_lines(report.scrub) if report.scrub is not None else ():
            output.say(f"  {plain(line)}")
        if report.question:
            output.say(
                f"  [bold red]waits for you[/]: appliance mirror resolve {plain(report.name)}"
            )
        if report.unreadable:
            lost = plain(", ".join(report.unreadable))
            output.say(f"  [bold red]no drive could give these records:[/] {lost}")
        for alert in report.alerts[-ALERTS_SHOWN:]:
            output.say(f"  [yellow]{moment(alert.when_ns)}[/]  {plain(alert.text)}")
        rows = [_member_row(member) for member in report.members]
        output.table(("  DRIVE", "SERIAL", "STATE", "AT", "NOTE"), rows)


def _member_row(member: MemberReport) -> tuple[str, ...]:
    if not member.present:
        state = "[bold red]missing[/]"
    elif member.role == "spare":
        state = "[cyan]spare[/]"
    elif member.in_sync:
        state = "[green]in sync[/]" if member.role == "member" else "[green]in sync, outgoing[/]"
    elif member.detached:
        state = "[bold red]detached[/]"
    else:
        state = "[yellow]joining[/]" if member.role == "joining" else "[yellow]present[/]"
    notes = [member.reason] if member.reason else []
    if member.read_errors:
        notes.append(f"{member.read_errors} read errors, {member.repaired} repaired")
    return (
        f"  {plain(member.drive_id)}",
        plain(member.serial),
        state,
        plain(member.path),
        plain("; ".join(notes)),
    )


def _resync_text(report: MirrorReport) -> str:
    what = "resync paused at" if report.resync_paused else "resync"
    share = report.resync_done * 100 // max(report.resync_total, 1)
    return f"{what} {share} % ({size(report.resync_done)} of {size(report.resync_total)})"


@mirror.command("resync")
@click.argument("name", required=False)
@click.option("--pause", "wanted", flag_value="pause", help="Hold it until it is resumed.")
@click.option("--resume", "wanted", flag_value="resume", help="Go on after a pause.")
@json_option
@pass_context
def follow_resync(context: Context, name: str | None, wanted: str | None) -> None:
    """Follow a mirror's resync until no drive is brought in any more.

    A returning drive is resynchronised by itself; this shows how far it is. It rests while
    clients are active. --pause holds it (a restart of the mirror's store ends the pause);
    --resume lets it go on.

    \b
    Examples:
      appliance mirror resync
      appliance mirror resync m0
      appliance mirror resync m0 --pause
    """
    client = context.client
    reports = chosen_reports(client.mirrors(), name)
    if not reports:
        raise NotFound("cannot follow a resync: there is no mirror; see `appliance drive list`")
    mirror_name = reports[0].name
    if wanted is not None:
        final = client.pause_resync(mirror_name, paused=wanted == "pause")
    else:
        follow_transfer(context, mirror_name)
        final = chosen_reports(client.mirrors(), mirror_name)[0]
    if context.output.as_json:
        context.output.document([final])
        return
    if wanted is not None:
        context.output.say(f"Bringing drives in is {wanted}d.")
    show(context.output, [final])


def follow_transfer(context: Context, name: str) -> None:
    """Show a mirror's resync until there is none, or it is paused."""
    client = context.client

    def look() -> Standing:
        report = chosen_reports(client.mirrors(), name)[0]
        if report.resync_drive:
            text = f"{report.name}: {_resync_text(report)}"
            return Standing(
                text,
                report.resync_done,
                report.resync_total,
                report.resync_paused,
                report.resync_eta_s,
            )
        waiting = not report.resync_paused and report.state in {"resyncing", "assembling"}
        return Standing(f"{report.name}: {report.state}", 0, 0, not waiting)

    context.output.follow(look)
