"""``appliance mirror resolve``: what only an operator can decide about a mirror."""

from __future__ import annotations

from typing import Final

import click

from appliance.cli.cmd_mirror import chosen_reports, show
from appliance.cli.context import Context, json_option, pass_context
from appliance.cli.output import Output, plain
from appliance.core.admin import MirrorReport
from appliance.core.decisions import MEANINGS, Choice, choice_for
from appliance.core.errors import InvalidInput, Refused

LOST_SHOWN_MAX: Final = 20
_NOT_OPEN: Final = {"assembling", "offline"}


@click.command("resolve")
@click.argument("name")
@click.option("--keep", metavar="DRIVE", help="Go on with this drive's content.")
@click.option("--force", is_flag=True, help="Go on without the voter that is away.")
@click.option("--accept-losses", is_flag=True, help="Go on without what no drive has.")
@click.option("--resume", is_flag=True, help="Take writes again after repeated crashes.")
@click.option("--confirm", metavar="NAME", help="The mirror's name, instead of typing it.")
@json_option
@pass_context
def resolve_mirror(
    context: Context,
    name: str,
    keep: str | None,
    force: bool,
    accept_losses: bool,
    resume: bool,
    confirm: str | None,
) -> None:
    """Decide what mirror NAME waits for.

    Without an option: show what it waits for, what may be chosen, and what each choice
    means. With one: say what will be, ask for the mirror's name, and do it.

    \b
    Examples:
      appliance mirror resolve m0
      appliance mirror resolve m0 --keep WD-WCC7K0AAAAAA
      appliance mirror resolve m0 --force --confirm m0 --json
    """
    (report,) = chosen_reports(context.client.mirrors(), name)
    given = {
        Choice.KEEP: keep is not None,
        Choice.FORCE: force,
        Choice.ACCEPT_LOSSES: accept_losses,
        Choice.RESUME: resume,
    }
    choices = [choice for choice, is_given in given.items() if is_given]
    if len(choices) > 1:
        raise click.UsageError("give one of --keep, --force, --accept-losses and --resume")
    if not choices:
        _show_question(context.output, report)
        return
    _confirm(context.output, report, choices[0], confirm)
    after = context.client.resolve_mirror(name, choices[0], drive=keep)
    if context.output.as_json:
        context.output.document(after)
        return
    show(context.output, [after])


def _show_question(output: Output, report: MirrorReport) -> None:
    if output.as_json:
        output.document(report)
        return
    show(output, [report])
    choice = choice_for(report.question)
    if choice is None:
        if report.state in _NOT_OPEN:
            output.say("\nNothing is to be decided yet: the mirror is not open. Look again soon.")
        else:
            output.say("\nNothing is to be decided.")
        return
    meaning = MEANINGS[choice]
    output.say(f"\n{plain(meaning.asks)}")
    for lost in report.lost[:LOST_SHOWN_MAX]:
        output.say(f"  lost: {plain(lost)}")
    more = max(len(report.lost) - LOST_SHOWN_MAX, 0) + report.lost_more
    if more:
        output.say(f"  and {more} more; --json lists up to a thousand")
    for each in report.choices:
        output.say(f"  drive {plain(each.drive_id)} ({plain(each.serial)}): {plain(each.words)}")
    output.say(f"\n{meaning.option}: {plain(meaning.consequence)}")
    output.say(f"\nNext: appliance mirror resolve {plain(report.name)} {meaning.option}")


def _confirm(output: Output, report: MirrorReport, choice: Choice, confirm: str | None) -> None:
    """Raises ``Refused`` for anything but the mirror's name."""
    if confirm is None and output.as_json:
        raise InvalidInput(f"cannot ask with --json: add --confirm {report.name}")
    if confirm is None:
        output.say(plain(MEANINGS[choice].consequence))
        confirm = click.prompt(f"\nType {report.name} to go on", default="", show_default=False)
    if confirm.strip() != report.name:
        raise Refused(f"nothing was done: {report.name!r} was not confirmed")
