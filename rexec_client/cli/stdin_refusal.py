"""What becomes of standard input when the server does not let the command have it as it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rexec_client.cli.source import has_input

if TYPE_CHECKING:
    from rexec_client.cli.command_options import Command
    from rexec_client.cli.source import Source
    from rexec_client.errors import InvalidRequestError

NO_INPUT = "this command takes no standard input; use: rexec run -n -- …"
REPLAY = "{} was started before, and takes no new input: repeat it with -n, or give the input to a new --id"
TOO_MUCH = "this command takes at most {} bytes of standard input, and there are more"


def refuse_new_input(exec_id: str) -> None:
    """Raise click.ClickException where there is input for a command that was started before, and may have been fed."""
    if has_input():
        raise click.ClickException(REPLAY.format(exec_id))


async def settle_for_less(wanted: Command, source: Source | None, refusal: InvalidRequestError) -> None:
    """Make of `wanted` what the command may have, with `source` read or left alone. What is piped is never dropped.

    Raises:
        InvalidRequestError: the refusal is about something else.
        click.ClickException: there is input that the command cannot have.
    """
    piped = wanted.options.pop("input", None)  # a file that went with the request
    if "stdin_mode" not in refusal.violations or (source is None and piped is None):
        raise refusal
    if piped or (source is not None and not await _settled(wanted, source, refusal.metadata.get("stdin", "none"))):
        raise click.ClickException(NO_INPUT)


async def _settled(wanted: Command, source: Source, takes: str) -> bool:
    """False when there is input, and nobody to take it."""
    if source.is_terminal:  # nobody has typed anything yet: there is nothing to lose
        return True
    if takes == "none":
        return await source.is_at_end()
    from rexec_client.requests import INLINE_INPUT

    data = await source.read_all(INLINE_INPUT)
    if data is None:
        raise click.ClickException(TOO_MUCH.format(INLINE_INPUT))
    wanted.options["input"] = data
    return True
