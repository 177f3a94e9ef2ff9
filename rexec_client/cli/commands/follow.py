"""`rexec follow`: an execution's output, from any point, as it appears."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from rexec_client.cli.reading_options import check_start, gaps_option, lines_option, owner_option, start_options
from rexec_client.cli.settings import Settings, pass_settings
from rexec_client.cli.telling import Announcer
from rexec_client.executions import is_ended

if TYPE_CHECKING:
    from rexec_client import Execution


@dataclass(frozen=True)
class Wish:
    """The wish that the options express."""

    exec_id: str
    since: int | None
    tail: int | None
    owner: str | None
    hold: bool
    gaps: bool
    as_json: bool

    def start(self, execution: Execution) -> int:
        """Return the offset to begin at. What a reader that is gone has used up of a waiting command's output is past.

        Where all is used up, or a reader that left let the rest go, it is everything that is kept; for one that only
        looks too.
        """
        if self.since is not None or self.tail is not None or self.owner or not self.hold or is_ended(execution):
            return self.since or 0
        held = execution.held_offset  # 0 where nothing is held
        return held if held < execution.log_end_offset else 0


@click.command("follow")
@click.argument("exec_id", metavar="ID")
@start_options("Begin with the newest N lines.")
@owner_option
@click.option("--hold/--no-hold", default=True, help="Be the reader that a command waits for, or only look.  [hold]")
@gaps_option
@lines_option
@pass_settings
def command(settings: Settings, /, **values: Any) -> int:
    """Show an execution's output as it appears, and exit with its status.

    A command that waits for its reader (--on-overflow wait) goes on as this one reads, from where the last one got to.
    Ctrl-C stops the showing, never the command. The exit status is as for `rexec run`: 255 when output is no longer
    kept, unless --gaps accepts it.
    """
    wish = Wish(**values)
    check_start(wish.since, wish.tail)
    return asyncio.run(_follow(settings, wish))


async def _follow(settings: Settings, wish: Wish) -> int:
    from rexec_client.cli.foreground import Foreground
    from rexec_client.cli.presentation import JsonLines, Streams

    def come_back(offset: int, waits: bool) -> str:
        options = [*(["--owner", wish.owner] if wish.owner else []), *([] if wish.hold else ["--no-hold"])]
        line = settings.command_line("follow", wish.exec_id, "--since", str(offset), *options)
        return f"{'it waits when its output is full; ' if waits else ''}go on with: {line}"

    async with settings.async_client() as client:
        handle = await client.attach(wish.exec_id, owner=wish.owner or "")
        start, holder = wish.start(handle.execution), None if wish.hold else ""
        stream = handle.output(since=start, tail_lines=wish.tail, gaps=True, holder=holder)
        presentation = JsonLines() if wish.as_json else Streams()
        with Announcer():
            return await Foreground(handle, stream, presentation, owns=False, gaps=wish.gaps).watch(None, come_back)
