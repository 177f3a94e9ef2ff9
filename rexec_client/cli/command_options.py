"""The options that describe a command, shared by `run` and `exec`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import click

from rexec_client.cli.values import DURATION, PAIR, SIZE, TEXT
from rexec_client.errors import InvalidRequestError, PermissionDeniedError, UnauthenticatedError

if TYPE_CHECKING:
    from rexec_client.requests import ExecOptions
    from rexec_client.results import Arguments

_DECORATORS = (
    click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[--] COMMAND [ARG]..."),
    click.option("--shell", type=TEXT, metavar="LINE", help="A line for /bin/sh -c, instead of COMMAND."),
    click.option("--id", "exec_id", type=TEXT, metavar="ID", help="Its id; repeating it returns the same execution."),
    click.option("--cwd", type=TEXT, metavar="DIR", help="Absolute directory to start in."),
    click.option("--env", type=PAIR, multiple=True, metavar="K=V", help="Environment variable; repeatable."),
    click.option("--timeout", type=DURATION, metavar="TIME", help="End it after this long, such as 30s or 2h."),
    click.option("--kill-grace", type=DURATION, metavar="TIME", help="Between TERM and KILL.  [5s]"),
    click.option("--label", type=PAIR, multiple=True, metavar="K=V", help="For `rexec list`; repeatable."),
    click.option("--group", type=TEXT, metavar="NAME", help="At most one unfinished execution in this group."),
    click.option("--merge-stderr", is_flag=True, help="stderr into stdout, in the command's true order."),
    click.option("--leftovers", type=click.Choice(["kill", "keep"]), help="Processes that outlive it.  [kill]"),
    click.option("--max-output", type=SIZE, metavar="SIZE", help="Output kept, such as 64M."),
    click.option(
        "--on-overflow",
        type=click.Choice(["wait", "drop-oldest", "terminate"]),
        help="Beyond: the command waits for its reader, the oldest output goes, or the command is ended."
        "  [run: wait; exec: drop-oldest]",
    ),
    click.option("--retention", type=DURATION, metavar="TIME", help="How long it is kept after its end."),
)


def command_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; they arrive as keywords for `parse`."""
    return reduce(lambda decorated, decorator: decorator(decorated), reversed(_DECORATORS), function)


@dataclass(frozen=True)
class Command:
    """What the options say, as the client library takes it."""

    args: Arguments
    options: ExecOptions
    named: bool

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Around the start: when the server refuses it, nothing has an id that was made up here, and none is told."""
        try:
            yield
        except (UnauthenticatedError, PermissionDeniedError, InvalidRequestError) as error:
            if not self.named:
                error.exec_id = None
            raise


def parse(
    *,
    arguments: tuple[str, ...],
    shell: str | None,
    env: tuple[tuple[str, str], ...],
    label: tuple[tuple[str, str], ...],
    group: str | None,
    leftovers: str | None,
    **others: Any,
) -> Command:
    """From option values to a command.

    Raises:
        click.UsageError: there is no command, or two.
    """
    if bool(arguments) == (shell is not None):
        raise click.UsageError(
            "Give a command, as -- COMMAND [ARG]..., or as --shell LINE.", click.get_current_context()
        )
    options: dict[str, Any] = {key: value for key, value in others.items() if value is not None}
    options |= {"env": dict(env), "labels": dict(label), "keep_leftovers": leftovers == "keep"}
    if group:
        options["exclusive_group"] = group
    if shell is not None:
        options["shell"] = True
    named = "exec_id" in options
    return Command(list(arguments) if shell is None else shell, options, named)  # type: ignore[arg-type]
