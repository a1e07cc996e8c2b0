"""``appliance``: the command line.

Owns the exit codes and the last word on every error. Refuses to show a traceback: whatever happens
is one sentence on stderr that says what to do next.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from appliance import __version__
from appliance.cli.cmd_account import account
from appliance.cli.cmd_bucket import bucket
from appliance.cli.cmd_completion import completion
from appliance.cli.cmd_dev import dev
from appliance.cli.cmd_drive import drive
from appliance.cli.cmd_mirror import mirror
from appliance.cli.cmd_mirror_resolve import resolve_mirror
from appliance.cli.cmd_offline import export_mirror, inspect_drive, keys, verify_mirror
from appliance.cli.cmd_replace import replace_drive, spare
from appliance.cli.cmd_scrub import scrub
from appliance.cli.cmd_status import status
from appliance.cli.context import SOCKET_VARIABLE, Context, json_option, pass_context
from appliance.cli.output import Output
from appliance.core import errors

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
EXIT_UNEXPECTED: Final = 70

# The first row that fits counts. Scripts may rely on these.
EXIT_CODES: Final[tuple[tuple[type[errors.ApplianceError], int], ...]] = (
    (errors.InvalidInput, EXIT_USAGE),
    (errors.NotFound, 3),
    (errors.Refused, 4),
    (errors.Unreachable, 5),
    (errors.NoSpace, 6),
    (errors.ApplianceError, EXIT_FAILED),
)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 refused by a safety
rule, 5 the appliance cannot be reached, 6 no space, 130 interrupted; 10 to 12 of
`mirror verify` and `mirror export` are in their own help.""",
)
@click.option(
    "--socket",
    "socket_path",
    type=click.Path(readable=False, path_type=Path),
    envvar=SOCKET_VARIABLE,
    show_envvar=True,
    help="The admin socket of the appliance to talk to.",
)
@click.version_option(__version__, "-V", "--version", prog_name="appliance")
@json_option
@pass_context
def appliance(context: Context, socket_path: Path | None) -> None:
    """Operate the storage appliance: drives, mirrors, accounts.

    \b
    From two drives to a working endpoint:
      appliance drive list
      appliance drive claim WD-WCC7K0AAAAAA
      appliance drive claim WD-WCC7K0BBBBBB
      appliance mirror create WD-WCC7K0AAAAAA WD-WCC7K0BBBBBB
      appliance account create office
    """
    if socket_path is not None:
        context.socket = socket_path


for _command in (drive, mirror, account, bucket, keys, status, dev, completion):
    appliance.add_command(_command)
drive.add_command(inspect_drive)
mirror.add_command(resolve_mirror)
mirror.add_command(verify_mirror)
mirror.add_command(export_mirror)
mirror.add_command(scrub)
mirror.add_command(replace_drive)
mirror.add_command(spare)


def run(arguments: Sequence[str], context: Context) -> int:
    """Carry out one command line and return its exit code. Never raises."""
    output = context.output
    try:
        code = appliance.main(
            args=list(arguments), prog_name="appliance", standalone_mode=False, obj=context
        )
    except click.ClickException as error:
        error.show(file=output.stderr)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        output.complain("interrupted; work inside the appliance goes on")
        return EXIT_INTERRUPTED
    except errors.ApplianceError as error:
        output.complain(str(error))
        return next(code for kind, code in EXIT_CODES if isinstance(error, kind))
    except BrokenPipeError:
        # The reader of our pipe left; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        output.complain(f"cannot write the answer: {error.strerror or error}")
        return EXIT_FAILED
    except Exception as error:  # noqa: BLE001  outermost: an operator never meets a traceback
        output.complain(
            f"an unexpected fault: {type(error).__name__}: {error}; please report it with the "
            "command you ran and `appliance --version`"
        )
        return EXIT_UNEXPECTED
    # Only a command that leaves with a code of its own gives one back.
    return code if isinstance(code, int) else 0


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:], Context(output=Output())))
