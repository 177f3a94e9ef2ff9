"""`rexec token`: one token, for programs that cannot make their own."""

from __future__ import annotations

import click

from rexec_client.cli.settings import Settings, pass_settings
from rexec_client.cli.values import DURATION


@click.command("token")
@click.option("--read", "read_only", is_flag=True, help="One that starts and ends nothing.")
@click.option("--ttl", type=DURATION, default="60s", metavar="TIME", help="How long it is good, at most 5m.  [60s]")
@pass_settings
def command(settings: Settings, read_only: bool, ttl: float) -> None:
    """Print a token, made from --key-file. Whoever has it is you, while it is good; it starts one command.

    \b
      grpcurl -H "authorization: Bearer $(rexec token)" ...
      http POST https://HOST/api/exec/$(rexec token) cmd=...
    """
    click.echo(settings.tokens(read_only=read_only, lifetime=ttl).token())
