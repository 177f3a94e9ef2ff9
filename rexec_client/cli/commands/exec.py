"""`rexec exec`: start a command and print its id."""

from __future__ import annotations

from typing import Any

import click

from rexec_client.cli.command_options import command_options, parse
from rexec_client.cli.exit_status import exit_status, remark
from rexec_client.cli.settings import Settings, pass_settings
from rexec_client.cli.telling import tell
from rexec_client.cli.values import DURATION


@click.command("exec", context_settings={"allow_interspersed_args": False})
@command_options
@click.option("--unattended-timeout", type=DURATION, metavar="TIME", help="End it when nobody follows it for so long.")
@pass_settings
def command(settings: Settings, /, **values: Any) -> int:
    """Start a command and print its id; it goes on by itself.

    See it with `rexec poll ID` or `rexec follow ID`.
    """
    wanted = parse(**values)
    with settings.client() as client, wanted.starting():
        handle = client.start(wanted.args, **wanted.options)
    click.echo(handle.exec_id)
    if handle.execution.HasField("start_error"):
        tell(remark(handle.execution))
        return exit_status(handle.execution)
    return 0
