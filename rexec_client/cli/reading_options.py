"""The options of commands that show output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from rexec_client.cli.values import COUNT, OFFSET, TEXT

owner_option = click.option("--owner", type=TEXT, metavar="CALLER", help="Whose execution, for operators.")

gaps_option = click.option("--gaps", is_flag=True, help="Accept missing output: the status is the command's own.")

lines_option = click.option(
    "--json", "as_json", is_flag=True, help="A JSON object a line: pieces of output, and at last the execution."
)


def start_options(tail: str) -> Callable[..., Any]:
    """Add --since and --tail; `tail` is the help of the latter."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        function = click.option("--tail", type=COUNT, metavar="N", help=tail)(function)
        return click.option(
            "--since", "--offset", "since", type=OFFSET, metavar="OFFSET", help="Output from this offset."
        )(function)

    return decorate


def check_start(since: int | None, tail: int | None) -> None:
    """Raise click.UsageError when there are two places to begin at."""
    if since is not None and tail is not None:
        raise click.UsageError("Give --since or --tail: each says where to begin.", click.get_current_context())
