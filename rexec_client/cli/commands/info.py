"""`rexec info`: what the server is and allows, or what is known of an execution."""

from __future__ import annotations

import click

from rexec_client.cli.reading_options import owner_option
from rexec_client.cli.settings import Settings, pass_settings


@click.command("info")
@click.argument("exec_id", metavar="[ID]", required=False)
@owner_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@pass_settings
def command(settings: Settings, exec_id: str | None, owner: str | None, as_json: bool) -> None:
    """Print the server's version, limits and features, and who you are to it; or, with ID, an execution."""
    from rexec_client.cli import render

    if exec_id is None and owner:
        raise click.UsageError("--owner is for an execution: give its ID.", click.get_current_context())
    with settings.client() as client:
        if exec_id is None:
            document = render.document(client.info())
            pairs = {"target": client.target} | document
        else:
            execution = client.get(exec_id, owner=owner or "")
            document, pairs = render.document(execution), render.execution_pairs(execution)
    if as_json:
        render.print_json(document)
    else:
        render.print_pairs(pairs)
