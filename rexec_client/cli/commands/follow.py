"""`rexec follow`: an execution's output, from any point, as it appears."""

from __future__ import annotations

import asyncio

import click

from rexec_client.cli.settings import Settings, pass_settings
from rexec_client.cli.telling import Announcer


@click.command("follow")
@click.argument("exec_id", metavar="ID")
@click.option("--since", type=click.IntRange(min=0), default=0, metavar="OFFSET", help="Begin at this offset.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Begin with the newest N lines.")
@click.option("--owner", default="", metavar="CALLER", help="Whose execution, for operators.")
@pass_settings
def command(settings: Settings, exec_id: str, since: int, tail: int | None, owner: str) -> int:
    """Show an execution's output as it appears, and exit with its status.

    Ctrl-C stops the showing, never the command. The exit status is as for `rexec run`.
    """
    return asyncio.run(_follow(settings, exec_id, since, tail, owner))


async def _follow(settings: Settings, exec_id: str, since: int, tail: int | None, owner: str) -> int:
    from rexec_client.cli.foreground import Foreground

    whose = ["--owner", owner] if owner else []

    def come_back(offset: int) -> str:
        return f"go on with: {settings.command_line('follow', exec_id, '--since', str(offset), *whose)}"

    async with settings.async_client() as client:
        handle = await client.attach(exec_id, owner=owner)
        stream = handle.output(since=since, tail_lines=tail, gaps=True)
        with Announcer():
            return await Foreground(handle, stream, owns=False).watch(None, come_back)
