"""`rexec exec`: start a command and print its id."""

from __future__ import annotations

from typing import Any

import click

from rexec_client.cli.command_options import command_options, parse
from rexec_client.cli.exit_status import exit_status, remark
from rexec_client.cli.settings import Settings, pass_settings
from rexec_client.cli.source import has_input
from rexec_client.cli.telling import tell
from rexec_client.cli.values import DURATION

WITH_INPUT = (
    "`rexec exec` gives a command no input, and there is some on standard input; "
    "use `rexec run` to pass it on, or -n when it is not for the command"
)


@click.command("exec", context_settings={"allow_interspersed_args": False})
@command_options
@click.option("--unattended-timeout", type=DURATION, metavar="TIME", help="End it when nobody follows it for so long.")
@click.option("--no-stdin", "-n", is_flag=True, help="What is on standard input is not for the command.")
@pass_settings
def command(settings: Settings, /, no_stdin: bool, **values: Any) -> int:
    """Start a command and print its id; it goes on by itself, without input.

    See it with `rexec poll ID` or `rexec follow ID`.
    """
    wanted = parse(**values)
    if not no_stdin and has_input():
        raise click.ClickException(WITH_INPUT)
    with settings.client() as client, wanted.starting():
        handle = client.start(wanted.args, **wanted.options)
    click.echo(handle.exec_id)
    if wanted.named and handle.already_existed and not handle.asked_again:
        tell(f"{handle.exec_id} was started before: nothing was started now")
    if handle.execution.HasField("start_error"):
        tell(remark(handle.execution))
        return exit_status(handle.execution)
    return 0
