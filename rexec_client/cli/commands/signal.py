"""`rexec signal`: send a signal to an execution."""

from __future__ import annotations

import click

from rexec_client.cli.reading_options import owner_option
from rexec_client.cli.settings import Settings, pass_settings
from rexec_client.cli.values import SIGNAL


@click.command("signal")
@click.argument("exec_id", metavar="ID")
@click.argument("number", type=SIGNAL, metavar="SIGNAL")
@click.option("--leader", is_flag=True, help="Only to the command itself, not to its process group.")
@owner_option
@pass_settings
def command(settings: Settings, exec_id: str, number: int, leader: bool, owner: str | None) -> None:
    """Send SIGNAL (HUP, SIGHUP or 1) to an execution's process group."""
    with settings.client() as client:
        client.attach(exec_id, owner=owner or "").send_signal(number, leader_only=leader)
