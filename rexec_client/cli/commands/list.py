"""`rexec list`: executions, running and ended."""

from __future__ import annotations

from itertools import islice

import click

from rexec_client.cli.settings import Settings, pass_settings
from rexec_client.cli.values import PAIR, TEXT

STATES = ("starting", "running", "succeeded", "failed", "lost")


@click.command("list")
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Only in this state; repeatable.")
@click.option("--label", type=PAIR, multiple=True, metavar="K=V", help="Only with this label; repeatable.")
@click.option("--group", type=TEXT, metavar="NAME", help="Only in this exclusive group.")
@click.option("--all-callers", is_flag=True, help="Everybody's, for operators.")
@click.option("--limit", type=click.IntRange(min=0), default=50, help="At most so many; 0 is all.  [50]")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@pass_settings
def command(
    settings: Settings,
    states: tuple[str, ...],
    label: tuple[tuple[str, str], ...],
    group: str | None,
    all_callers: bool,
    limit: int,
    as_json: bool,
) -> None:
    """List executions, newest first."""
    from rexec.v1.execution_pb2 import State

    from rexec_client.cli import render

    with settings.client() as client:
        found = client.list(
            states=[State.Value(f"STATE_{state.upper()}") for state in states],
            labels=dict(label),
            exclusive_group=group or "",
            owner="*" if all_callers else "",
            page_size=min(limit or 1000, 1000),
        )
        executions = list(islice(found, limit or None))
    if as_json:
        render.print_json({"executions": [render.document(execution) for execution in executions]})
    else:
        render.print_table(executions, callers=all_callers)
