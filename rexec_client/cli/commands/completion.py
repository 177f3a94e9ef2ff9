"""`rexec completion`: completion for a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    \b
      bash:  eval "$(rexec completion bash)"      in ~/.bashrc
      zsh:   eval "$(rexec completion zsh)"       in ~/.zshrc
      fish:  rexec completion fish | source       in ~/.config/fish/config.fish
    """
    script = get_completion_class(shell)
    if script is not None:
        click.echo(script(ctx.find_root().command, {}, "rexec", "_REXEC_COMPLETE").source())
