"""``python -m appliance.daemon ROLE``: the one entry of every process.

Owns the reading of arguments and of the configuration. Refuses what it does not know. Each role's
modules are imported only by that role, so that a process holds no more than it needs.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

from appliance.core.errors import ApplianceError
from appliance.daemon.config import DEFAULT_FILE, documentation, load
from appliance.daemon.exits import complain
from appliance.daemon.journal import start_logging


def main(arguments: list[str]) -> int:
    """Run one role; its exit code."""
    asked = _parser().parse_args(arguments)
    if asked.role == "documentation":
        print(documentation(), end="")  # noqa: T201 - a command's output
        return 0
    if asked.role == "dev":
        return _dev(asked)
    if asked.role == "offline":
        from appliance.daemon import offline

        return offline.run(asked)
    name = " ".join([asked.role, *(str(value) for value in _of_role(asked))])
    try:
        config = load(asked.config, os.environ)
        if asked.role == "setup":
            from appliance.daemon.setup import run_setup
            from appliance.runtime.clock import SystemEntropy

            run_setup(config, SystemEntropy())
            return 0
    except ApplianceError as error:
        return complain(name, error)
    start_logging(name, config.log.level, os.environ)
    from appliance.daemon.lifetime import live

    if asked.role == "control":
        from appliance.daemon import control

        return live(name, config, control.run)
    if asked.role == "store":
        from appliance.daemon import store

        return live(name, config, partial(store.run, mirror=asked.mirror))
    from appliance.daemon import gateway

    return live(name, config, partial(gateway.run, number=asked.number))


def _of_role(asked: argparse.Namespace) -> list[object]:
    return [getattr(asked, name) for name in ("mirror", "number") if hasattr(asked, name)]


def _dev(asked: argparse.Namespace) -> int:
    from appliance.daemon import dev

    names = (name.strip() for name in asked.accounts.split(","))
    return dev.run(
        dev.Options(
            state=asked.state,
            drives=tuple(asked.drive),
            port=dev.DEFAULT_PORT if asked.port is None else asked.port,
            plain_http=asked.plain_http,
            accounts=tuple(name for name in names if name),
            ready_file=asked.ready_file,
        )
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m appliance.daemon", description=__doc__)
    roles = parser.add_subparsers(dest="role", required=True)
    for role in ("control", "store", "gateway", "setup"):
        each = roles.add_parser(role)
        each.add_argument("--config", type=Path, default=DEFAULT_FILE)
        if role == "store":
            each.add_argument("mirror")
        elif role == "gateway":
            each.add_argument("number", type=int)
    roles.add_parser("documentation")
    _offline(roles.add_parser("offline"))
    dev = roles.add_parser("dev")
    dev.add_argument("--state", type=Path, required=True)
    dev.add_argument("--drive", type=Path, action="append", default=[])
    dev.add_argument("--port", type=int)
    dev.add_argument("--plain-http", type=int)
    dev.add_argument("--accounts", default="main")
    dev.add_argument("--ready-file", type=Path)
    return parser


def _offline(parser: argparse.ArgumentParser) -> None:
    """Tools for drives that nobody uses; ``appliance drive inspect`` and its like start them."""
    from appliance.daemon.offline import add_arguments

    add_arguments(parser)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
