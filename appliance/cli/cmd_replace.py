"""``appliance mirror replace`` and ``appliance mirror spare``: drives that take another's place."""

from __future__ import annotations

import click

from appliance.cli.cmd_drive import complete_identity
from appliance.cli.cmd_mirror import show
from appliance.cli.context import Context, json_option, pass_context
from appliance.cli.jobs import follow
from appliance.cli.output import plain
from appliance.core.admin import MirrorReport


@click.command("replace")
@click.argument("name")
@click.argument("old")
@click.argument("new", shell_complete=complete_identity)
@json_option
@pass_context
def replace_drive(context: Context, name: str, old: str, new: str) -> None:
    """Let the claimed drive NEW take the place of OLD in the mirror NAME.

    NEW must be at least as large. OLD may be missing or dead; if it is there it stays a member,
    and is read from, until NEW has everything. Then it is detached with all it holds; only a claim
    wipes it. Leaving this command does not end the work.

    \b
    Examples:
      appliance mirror replace m0 WD-WCC7K0AAAAAA WD-WCC7K0CCCCCC
      appliance mirror resync m0 --pause
    """
    client = context.client
    job = follow(context, client.replace_drive(name, old, new))
    if context.output.as_json:
        context.output.document(job)
        return
    context.output.say(f"[green]Replaced[/] {plain(old)} by {plain(new)} in mirror {plain(name)}.")
    show(context.output, [report for report in client.mirrors() if report.name == name])


@click.group("spare")
def spare() -> None:
    """Keep drives ready that take a failed one's place by themselves.

    At once when a drive fails, and when one has been missing for ten minutes (both are settings).
    The drive that was replaced is detached with all it holds, also when it comes back later.

    \b
    Examples:
      appliance mirror spare add m0 WD-WCC7K0CCCCCC
      appliance mirror spare remove m0 WD-WCC7K0CCCCCC
    """


@spare.command("add")
@click.argument("name")
@click.argument("drive", shell_complete=complete_identity)
@json_option
@pass_context
def add_spare(context: Context, name: str, drive: str) -> None:
    """Keep the claimed DRIVE ready for the mirror NAME.

    \b
    Example:
      appliance mirror spare add m0 WD-WCC7K0CCCCCC
    """
    _tell(context, context.client.add_spare(name, drive))


@spare.command("remove")
@click.argument("name")
@click.argument("drive")
@json_option
@pass_context
def remove_spare(context: Context, name: str, drive: str) -> None:
    """Free the spare DRIVE of the mirror NAME; it stays claimed and empty.

    \b
    Example:
      appliance mirror spare remove m0 WD-WCC7K0CCCCCC
    """
    _tell(context, context.client.remove_spare(name, drive))


def _tell(context: Context, report: MirrorReport) -> None:
    if context.output.as_json:
        context.output.document(report)
    else:
        show(context.output, [report])
