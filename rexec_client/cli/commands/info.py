"""`rexec info`: what the server is and allows."""

from __future__ import annotations

import click

from rexec_client.cli.settings import Settings, pass_settings


@click.command("info")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@pass_settings
def command(settings: Settings, as_json: bool) -> None:
    """Print the server's version, limits and features, and who you are to it."""
    from rexec_client.cli import render

    with settings.client() as client:
        document = render.document(client.info())
    if as_json:
        render.print_json(document)
    else:
        render.print_pairs({"target": client.target} | document)
