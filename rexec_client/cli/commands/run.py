"""`rexec run`: a command somewhere else, as if it ran here."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import click

from rexec_client.cli.command_options import Command, command_options, parse
from rexec_client.cli.reading_options import gaps_option, lines_option
from rexec_client.cli.settings import Settings, pass_settings
from rexec_client.cli.source import Source, open_source, small_file
from rexec_client.cli.stdin_refusal import refuse_new_input, settle_for_less
from rexec_client.cli.telling import Announcer, tell
from rexec_client.cli.values import DURATION
from rexec_client.errors import InvalidRequestError
from rexec_client.executions import is_ended

if TYPE_CHECKING:
    from rexec_client import AsyncClient, AsyncExecutionHandle


@click.command("run", context_settings={"allow_interspersed_args": False})
@command_options
@click.option(
    "--die-with-client",
    type=DURATION,
    is_flag=False,
    flag_value="30s",
    metavar="[=TIME]",
    help="End it when nobody has followed it for TIME [30s]. Write the = and the --.",
)
@click.option("--no-stdin", "-n", is_flag=True, help="No input. In a `while read` loop it would eat the loop's.")
@gaps_option
@lines_option
@pass_settings
def command(
    settings: Settings, /, die_with_client: float | None, no_stdin: bool, gaps: bool, as_json: bool, **values: Any
) -> int:
    """Run a command and show it as if it ran here.

    Standard output and standard error stay apart, standard input is passed on, Ctrl-C goes to the command; a
    second Ctrl-C leaves it running and says how to come back. A command that may have no input gets none from a
    terminal; input that it cannot have is refused. It waits while its output is not read, as it would here.

    \b
    Exit status:  the command's own; 128+n when signal n ended it;
                  127 when there is no such program; 126 when it cannot be started;
                  255 when it is lost, when output is missing (unless --gaps), or when rexec itself failed.
    """
    wanted = parse(**values)
    if die_with_client is not None:
        wanted.options["unattended_timeout"] = die_with_client
    return asyncio.run(_run(settings, wanted, forward=not no_stdin, gaps=gaps, as_json=as_json))


async def _run(settings: Settings, wanted: Command, *, forward: bool, **showing: bool) -> int:
    source = _prepare_stdin(wanted) if forward else None
    # Made here and not in the library, so that whoever interrupts the very first call can be told it.
    exec_id = wanted.options.setdefault("exec_id", uuid.uuid4().hex)
    with Announcer():
        return await _start_and_watch(settings, wanted, source, exec_id, **showing)


async def _start_and_watch(
    settings: Settings, wanted: Command, source: Source | None, exec_id: str, *, gaps: bool, as_json: bool
) -> int:
    from rexec_client.cli.foreground import Foreground
    from rexec_client.cli.presentation import JsonLines, Streams

    async with settings.async_client() as client:
        try:
            handle = await _start(client, settings, wanted, stdin=source is not None)
        except InvalidRequestError as error:
            await settle_for_less(wanted, source, error)
            source = None
            handle = await _start(client, settings, wanted, stdin=False)
        replay = wanted.named and handle.already_existed and not handle.asked_again
        if replay:
            _tell_of_replay(handle, source)
        presentation = JsonLines() if as_json else Streams()
        foreground = Foreground(handle, handle.output(gaps=True), presentation, owns=True, gaps=gaps)
        status = await foreground.watch(
            None if replay else source, lambda *where: _come_back(settings, wanted, exec_id, *where)
        )
    if replay and source is not None:
        refuse_new_input(exec_id)  # it came later
    return status


def _tell_of_replay(handle: AsyncExecutionHandle, source: Source | None) -> None:
    """Tell that the command is not run again: what it wrote is shown again, and new input is refused."""
    if is_ended(handle.execution):
        tell(f"{handle.exec_id} already ran; replaying its output")
    else:
        tell(f"{handle.exec_id} already runs; showing its output from the start")
    if source is not None:
        refuse_new_input(handle.exec_id)


async def _start(client: AsyncClient, settings: Settings, wanted: Command, *, stdin: bool) -> AsyncExecutionHandle:
    try:
        with wanted.starting():
            if "on_overflow" not in wanted.options and await client.supports("overflow_wait"):
                wanted.options["on_overflow"] = "wait"
            return await client.start(wanted.args, stdin=stdin, **wanted.options)
    except asyncio.CancelledError:
        come_back = settings.command_line("poll", wanted.options["exec_id"])
        tell(f"left before the server answered; it may run: {come_back}")
        raise


def _prepare_stdin(wanted: Command) -> Source | None:
    """A small file goes with the request; anything else is read while the command runs."""
    from rexec_client.requests import INLINE_INPUT

    data = small_file(INLINE_INPUT)
    if data is None:
        return open_source()
    wanted.options["input"] = data
    return None


def _come_back(settings: Settings, wanted: Command, exec_id: str, offset: int, waits: bool) -> str:
    line = settings.command_line("follow", exec_id, "--since", str(offset))
    if "unattended_timeout" in wanted.options:
        return f"detached; it is ended in {wanted.options['unattended_timeout']:g} s unless followed: {line}"
    if waits:
        return f"detached; it goes on until its output is full, and then waits for a reader. Come back: {line}"
    return f"detached; it goes on. Come back: {line}"
