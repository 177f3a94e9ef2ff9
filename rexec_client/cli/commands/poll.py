"""`rexec poll`: what an execution is doing now."""

from __future__ import annotations

import click

from rexec_client.cli.exit_status import FAILED, missing_output
from rexec_client.cli.reading_options import check_start, gaps_option, owner_option, start_options
from rexec_client.cli.settings import Settings, pass_settings
from rexec_client.cli.telling import tell


@click.command("poll")
@click.argument("exec_id", metavar="ID")
@start_options("The newest N lines.  [the server's setting]")
@owner_option
@gaps_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@pass_settings
def command(
    settings: Settings, exec_id: str, since: int | None, tail: int | None, owner: str | None, gaps: bool, as_json: bool
) -> int:
    """Print an execution's state on stderr and its newest output on stdout. Consumes nothing.

    With --json output that is UTF-8 is `text`, any other is `data` in base64. The exit status is 255 when output that
    was asked for is no longer kept (`skipped_bytes`), unless --gaps accepts it.
    """
    from rexec_client.cli import render

    check_start(since, tail)
    with settings.client() as client:
        result = client.attach(exec_id, owner=owner or "").poll(since=since, tail_lines=tail)
    if as_json:
        render.print_json(render.poll_document(result))
    else:
        render.print_poll(result)
    if result.skipped_bytes and not gaps:
        tell(missing_output(result.skipped_bytes, result.execution))
        return FAILED
    return 0
