"""``appliance completion``: tab completion for the shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    \b
    Examples:
      source <(appliance completion bash)
      appliance completion zsh > ~/.zfunc/_appliance
      appliance completion fish > ~/.config/fish/completions/appliance.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click knows the shells it offers"
    root = context.find_root()
    click.echo(kind(root.command, {}, "appliance", "_APPLIANCE_COMPLETE").source())
