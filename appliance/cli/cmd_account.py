"""``appliance account``: accounts and their first keys."""

from __future__ import annotations

import click

from appliance.cli.context import Context, json_option, pass_context
from appliance.cli.output import plain


@click.group()
def account() -> None:
    """Create accounts and list them."""


@account.command("create")
@click.argument("name")
@json_option
@pass_context
def create_account(context: Context, name: str) -> None:
    """Create an account with an access key and an initial bucket.

    The secret key is shown now and never again.

    \b
    Examples:
      appliance account create office
      appliance account create office --json > office-keys.json
    """
    new = context.client.create_account(name)
    if context.output.as_json:
        context.output.document(new)
        return
    output = context.output
    output.say(f"[green]Created[/] account {plain(new.name)}.")
    rows = [
        ("User ID", new.user_id),
        ("Access key", new.access_key),
        ("Secret key", new.secret_key),
        ("Bucket", new.bucket),
    ]
    for label, value in rows:
        output.say(f"  {label:<11}{plain(value)}")
    output.say("\nWrite the secret key down now: it is not shown again.")


@account.command("list")
@json_option
@pass_context
def list_accounts(context: Context) -> None:
    """Show every account with its access keys.

    \b
    Examples:
      appliance account list
      appliance account list --json
    """
    reports = context.client.accounts()
    if context.output.as_json:
        context.output.document(reports)
        return
    if not reports:
        context.output.say("No accounts yet. Next: appliance account create NAME")
        return
    rows = [
        (
            plain(report.name),
            plain(report.user_id),
            plain(", ".join(report.access_keys)),
            plain(report.bucket),
            "[bold red]frozen[/]" if report.frozen else "active",
        )
        for report in reports
    ]
    context.output.table(("NAME", "USER ID", "ACCESS KEYS", "BUCKET", "STATE"), rows)
