"""`rexec cancel`: end executions."""

from __future__ import annotations

import click

from rexec_client.cli.reading_options import owner_option
from rexec_client.cli.settings import Settings, pass_settings
from rexec_client.cli.values import DURATION


@click.command("cancel")
@click.argument("exec_ids", nargs=-1, required=True, metavar="ID...")
@click.option("--kill-grace", type=DURATION, metavar="TIME", help="Between TERM and KILL.  [the execution's own]")
@click.option("--wait", is_flag=True, help="Return when they have ended.")
@owner_option
@pass_settings
def command(
    settings: Settings, exec_ids: tuple[str, ...], kill_grace: float | None, wait: bool, owner: str | None
) -> None:
    """End executions and everything that they started: TERM, a grace, KILL."""
    with settings.client() as client:
        handles = [client.attach(exec_id, owner=owner or "") for exec_id in exec_ids]
        for handle in handles:
            handle.cancel(kill_grace=kill_grace)
        for handle in handles if wait else ():
            handle.wait()
