"""``appliance mirror scrub``: begin one, steer it, follow it."""

from __future__ import annotations

import dataclasses

import click

from appliance.cli.context import Context, json_option, pass_context
from appliance.cli.output import Standing, plain
from appliance.cli.scrub_text import show_scrub, standing
from appliance.client.admin import Client
from appliance.core.errors import NotFound
from appliance.core.scrubs import ScrubOrder, ScrubReport


@click.command("scrub")
@click.argument("name", required=False)
@click.option("--pause", "order", flag_value=ScrubOrder.PAUSE.value, help="Let it rest.")
@click.option("--resume", "order", flag_value=ScrubOrder.RESUME.value, help="Let it go on.")
@click.option("--cancel", "order", flag_value=ScrubOrder.CANCEL.value, help="End it.")
@click.option("--show", "order", flag_value=ScrubOrder.LOOK.value, help="Begin nothing, only show.")
@click.option("--wait", is_flag=True, help="Follow it until it has ended.")
@json_option
@pass_context
def scrub(context: Context, name: str | None, order: str | None, wait: bool) -> None:
    """Read everything on both drives, compare, and repair what is bad.

    A scrub reads every copy past the page cache, judges it by its checksums, repairs a bad one from
    the good one, and proves the index equal to the log. Clients come first. One that was paused, or
    that a restart interrupted, goes on where it was. Mirrors are scrubbed by themselves every 30
    days (store.scrub_interval_days).

    \b
    Examples:
      appliance mirror scrub --wait
      appliance mirror scrub m0
      appliance mirror scrub m0 --show
      appliance mirror scrub m0 --pause
    """
    client = context.client
    chosen = name or _first(client)
    report = _named(chosen, client.scrub(chosen, ScrubOrder(order or ScrubOrder.START.value)))
    if wait and order not in {ScrubOrder.PAUSE.value, ScrubOrder.CANCEL.value}:

        def look() -> Standing:
            return standing(_named(chosen, client.scrub(chosen)))

        context.output.follow(look)
        report = _named(chosen, client.scrub(chosen))
    if context.output.as_json:
        context.output.document(report)
        return
    show_scrub(context.output, report)
    if report.current is not None and order is None:
        # Not without --show: if it has ended by then, that would begin another one.
        context.output.say(
            f"\nFollow it with: appliance mirror scrub {plain(chosen)} --show --wait"
        )


def _named(mirror_name: str, report: ScrubReport) -> ScrubReport:
    return dataclasses.replace(report, mirror=mirror_name)


def _first(client: Client) -> str:
    reports = client.mirrors()
    if not reports:
        raise NotFound("cannot scrub: there is no mirror; see `appliance drive list`")
    return reports[0].name
