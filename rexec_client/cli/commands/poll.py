"""`rexec poll`: what an execution is doing now."""

from __future__ import annotations

import click

from rexec_client.cli.settings import Settings, pass_settings


@click.command("poll")
@click.argument("exec_id", metavar="ID")
@click.option("--since", type=click.IntRange(min=0), metavar="OFFSET", help="Output from this offset.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="The newest N lines.  [the server's setting]")
@click.option("--owner", default="", metavar="CALLER", help="Whose execution, for operators.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@pass_settings
def command(settings: Settings, exec_id: str, since: int | None, tail: int | None, owner: str, as_json: bool) -> None:
    """Print an execution's state on stderr and its newest output on stdout. Consumes nothing.

    With --json output that is UTF-8 is `text`, any other is `data` in base64.
    """
    from rexec_client.cli import render

    with settings.client() as client:
        result = client.attach(exec_id, owner=owner).poll(since=since, tail_lines=tail)
    if as_json:
        render.print_json(render.poll_document(result))
    else:
        render.print_poll(result)
