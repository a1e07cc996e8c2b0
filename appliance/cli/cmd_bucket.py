"""``appliance bucket``: what buckets there are."""

from __future__ import annotations

import click

from appliance.cli.context import Context, json_option, pass_context
from appliance.cli.output import moment, plain


@click.group()
def bucket() -> None:
    """See buckets. They are made and emptied through S3, by the accounts that own them."""


@bucket.command("list")
@json_option
@pass_context
def list_buckets(context: Context) -> None:
    """Show every bucket of every account.

    \b
    Examples:
      appliance bucket list
      appliance bucket list --json
    """
    reports = context.client.buckets()
    if context.output.as_json:
        context.output.document(reports)
        return
    if not reports:
        context.output.say("No buckets yet. Next: appliance account create NAME")
        return
    rows = [
        (plain(report.name), plain(report.owner), moment(report.created_ns)) for report in reports
    ]
    context.output.table(("BUCKET", "OWNER", "CREATED"), rows)
