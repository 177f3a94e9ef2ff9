"""`rexec delete`: forget ended executions."""

from __future__ import annotations

import click

from rexec_client.cli.settings import Settings, pass_settings


@click.command("delete")
@click.argument("exec_ids", nargs=-1, required=True, metavar="ID...")
@pass_settings
def command(settings: Settings, exec_ids: tuple[str, ...]) -> None:
    """Forget the output and the record of ended executions. Their ids stay used."""
    with settings.client() as client:
        for exec_id in exec_ids:
            client.delete(exec_id)
