"""What every command is handed: the client, the printer, and the options they share.

Owns where the admin socket is looked for. Invariant: tests replace the client here and nowhere
else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from appliance.cli.output import Output
from appliance.client.admin import Client

SOCKET: Final = Path("/run/appliance/admin.sock")
SOCKET_VARIABLE: Final = "APPLIANCE_SOCKET"

F = TypeVar("F", bound=Callable[..., Any])


def default_socket() -> Path:
    """The socket named by the environment, or the installed service's."""
    return Path(os.environ.get(SOCKET_VARIABLE) or SOCKET)


@dataclass(slots=True)
class Context:
    """One invocation."""

    socket: Path = field(default_factory=default_socket)
    output: Output = field(default_factory=Output)
    make_client: Callable[[Path], Client] = Client

    @property
    def client(self) -> Client:
        """A client of the socket that was chosen."""
        return self.make_client(self.socket)


pass_context = click.make_pass_decorator(Context, ensure=True)


def json_option(command: F) -> F:
    """``--json`` on every command, besides the one in front of the noun."""

    def remember(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            context.ensure_object(Context).output.as_json = True

    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=remember,
        help="Print one JSON document instead of text.",
    )(command)
