"""What every command shares: which server, as whom."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from rexec_client.cli.explain import explain
from rexec_client.errors import RexecError

if TYPE_CHECKING:
    from rexec_client import AsyncClient, Client
    from rexec_client.tokens import TokenCredentials


@dataclass(frozen=True)
class Settings:
    """The options before the command's name: what a client takes, under the same names.

    The clients are imported one by one, from their own modules: each would bring the other one, and 10 ms, along.
    """

    target: str | None = None
    caller: str | None = None
    key_file: str | None = None
    audience: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    tls: bool | None = None

    def client(self) -> Client:
        from rexec_client._sync.client import Client

        return Client(**asdict(self))

    def async_client(self) -> AsyncClient:
        from rexec_client._async.client import AsyncClient

        return AsyncClient(**asdict(self))

    def tokens(self, *, read_only: bool, lifetime: float) -> TokenCredentials:
        """What makes the caller's tokens."""
        if not self.key_file:
            raise click.UsageError("A token is made from a key: give --key-file, before `token`, or REXEC_KEY_FILE.")
        from rexec_client.tokens import key_file

        return key_file(self.key_file, self.caller, self.audience, read_only=read_only, lifetime=lifetime)

    def command_line(self, *words: str) -> str:
        """A `rexec …` line that means the same server and caller, to be typed or pasted."""
        return shlex.join(["rexec", *self._options(), *words])

    def _options(self) -> Iterator[str]:
        for name, value in asdict(self).items():
            flag = name.replace("_", "-")
            if isinstance(value, bool):
                yield f"--{flag}" if value else f"--no-{flag}"
            elif value:
                yield f"--{flag}={value}"


def _may_name_owner(values: dict[str, Any]) -> bool:
    """Return True when the command has an option --owner, which was not given."""
    return "owner" in values and not values["owner"]


def pass_settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the settings, and whoever typed it a line of words for what it raises."""

    @click.pass_context
    def command(ctx: click.Context, /, **values: Any) -> Any:
        settings = ctx.find_object(Settings) or Settings()
        try:
            return function(settings, **values)
        except RexecError as error:
            raise click.ClickException(explain(error, settings, may_name_owner=_may_name_owner(values))) from error

    return functools.update_wrapper(command, function)
