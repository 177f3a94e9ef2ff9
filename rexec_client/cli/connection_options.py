"""The options before the command's name: they say which server, and prove who calls. Each has a variable."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import reduce
from typing import Any

import click
from click.core import ParameterSource

from rexec_client.cli.settings import Settings
from rexec_client.cli.values import TEXT

_FILE = click.Path(dir_okay=False)


def _option(flag: str, metavar: str, text: str, **attributes: Any) -> Callable[..., Any]:
    variable = "REXEC_" + flag.removeprefix("--").replace("-", "_").upper()
    attributes.setdefault("type", TEXT)
    return click.option(flag, envvar=variable, metavar=metavar, help=f"{text}  [{variable}]", **attributes)


_DECORATORS = (
    _option("--target", "ADDR", "Server: host:port or unix:PATH."),
    _option("--caller", "NAME", "Who you are: all that a --dev server asks."),
    _option("--key-file", "FILE", "Your key: every call gets a fresh token from it.", type=_FILE),
    _option("--audience", "NAME", "Whom the tokens are for, if the key file does not say."),
    _option("--ca", "FILE", "Authorities to trust (PEM), instead of the system's.", type=_FILE),
    _option("--cert", "FILE", "Your client certificate (PEM).", type=_FILE),
    _option("--key", "FILE", "The certificate's key (PEM).", type=_FILE),
    click.option("--tls/--no-tls", default=None, help="TLS or none; --ca and --cert mean TLS."),
)
_TLS_FILES = ("ca", "cert", "key")
# Nearly ours, and the server's.
_OF_OTHERS = ("REXEC_CALLERS",)


def connection_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; they arrive as keywords for `settings_of`."""
    return reduce(lambda decorated, decorator: decorator(decorated), reversed(_DECORATORS), function)


def settings_of(ctx: click.Context, options: dict[str, Any]) -> Settings:
    """From option values to settings.

    Raises:
        click.UsageError: --no-tls, and files for TLS; those that only the environment names are left aside.
    """
    _refuse_empty(ctx, options)
    _refuse_misspelt(ctx)
    if options["tls"] is False:
        typed = [name for name in _TLS_FILES if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
        if typed:
            raise click.UsageError(f"--no-tls is without certificates: leave out --{typed[0]}.", ctx)
        options |= dict.fromkeys(_TLS_FILES)
    return Settings(**options)


def _refuse_empty(ctx: click.Context, options: dict[str, Any]) -> None:
    """Refuse an empty variable: it is mostly one that was to be set from another, which is not there."""
    for name, value in options.items():
        variable = f"REXEC_{name.upper()}"
        if value == "" or (value is None and os.environ.get(variable) == ""):
            where = f"--{name.replace('_', '-')}" if value == "" else variable
            raise click.UsageError(f"{where} is empty: give it a value, or leave it out.", ctx)


def _refuse_misspelt(ctx: click.Context) -> None:
    """Refuse a variable that is nearly one of ours, which was meant. Others are the server's, or other programs'."""
    known = {option.envvar for option in ctx.command.params if isinstance(option, click.Option) and option.envvar}
    for variable in sorted(os.environ):
        if variable.startswith("REXEC_") and variable not in known and variable not in _OF_OTHERS:
            import difflib  # mostly there is no such variable

            if close := difflib.get_close_matches(variable, [str(name) for name in known], 1, cutoff=0.9):
                raise click.UsageError(f"{variable} is not a variable of rexec; {close[0]} is.", ctx)
