"""``appliance dev``: the whole service in the foreground, for development and for tests.

Owns the option names, which other tools rely on. The work is the daemon's, which this process
becomes: the command line itself knows nothing of it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click


def become(arguments: list[str]) -> None:
    """Replace this process by another program."""
    os.execv(arguments[0], arguments)  # noqa: S606  a fixed program, our own interpreter


@click.command()
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="APPLIANCE_STATE",
    show_envvar=True,
    default=Path("var"),
    show_default=True,
    help="Directory for everything the service keeps; a later start on it continues.",
)
@click.option(
    "--drive",
    "drives",
    type=click.Path(file_okay=False, path_type=Path),
    multiple=True,
    help="A directory that serves as a drive; give two. Default: two inside the state.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="HTTPS port, 8443 if not given; 0 takes a free one.",
)
@click.option(
    "--plain-http", type=click.IntRange(0, 65535), help="Also serve HTTP here (development only)."
)
@click.option(
    "--accounts", help="Accounts to make, as NAME,NAME,...; one called main if not given."
)
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Appears with endpoint, keys and process ids, as JSON, once the service serves.",
)
def dev(
    state: Path,
    drives: tuple[Path, ...],
    port: int | None,
    plain_http: int | None,
    accounts: str | None,
    ready_file: Path | None,
) -> None:
    """Run the whole service here, for development.

    In the foreground, with directories as drives; no root is needed. Ctrl-C or SIGTERM
    stops it and loses nothing. When it cannot start, the exit code is one of sysexits.h.

    \b
    Examples:
      appliance dev
      appliance dev --state /tmp/try --port 9443
      appliance dev --state /tmp/try --accounts main,alt --ready-file /tmp/try.json
    """
    arguments = [sys.executable, "-m", "appliance.daemon", "dev", "--state", str(state)]
    for path in drives:
        arguments += ["--drive", str(path)]
    optional = {
        "--port": port,
        "--plain-http": plain_http,
        "--accounts": accounts,
        "--ready-file": ready_file,
    }
    for name, value in optional.items():
        if value is not None:
            arguments += [name, str(value)]
    sys.stdout.flush()
    become(arguments)
