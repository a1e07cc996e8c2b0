"""``appliance status``: the appliance at a glance."""

from __future__ import annotations

import click

from appliance.cli.cmd_mirror import show
from appliance.cli.context import Context, json_option, pass_context
from appliance.cli.output import eta, plain
from appliance.core.errors import ApplianceError


@click.command()
@click.option("--check", is_flag=True, help="Exit with 1 unless everything is well.")
@json_option
@pass_context
def status(context: Context, check: bool) -> None:
    """Show how the appliance is.

    Whether it serves, its processes, its mirrors with their drives, and running jobs.

    \b
    Examples:
      appliance status
      appliance status --check && echo well
    """
    client = context.client
    report = client.status()
    if context.output.as_json:
        context.output.document(report)
    else:
        output = context.output
        colour = "green" if report.healthy else "bold red"
        output.say(f"[{colour}]{plain(report.summary)}[/]")
        if report.endpoint:
            output.say(f"  endpoint {plain(report.endpoint)}, region {plain(report.region)}")
        if report.ca_file:
            output.say(f"  certificate authority {plain(report.ca_file)}")
        rows = [
            (
                f"  {plain(role.role)}",
                str(role.pid or ""),
                plain(role.state),
                plain(role.detail),
            )
            for role in report.roles
        ]
        if rows:
            output.say()
            output.table(("  PROCESS", "PID", "STATE", "DETAIL"), rows)
        if report.mirrors:
            output.say()
            show(output, list(report.mirrors))
        for job in client.jobs():
            if not job.ended:
                output.say(f"\njob {plain(job.title)}: {plain(job.step)}  {eta(job.eta_s)}")
    if check and not report.healthy:
        raise ApplianceError(f"not everything is well: {report.summary}")
