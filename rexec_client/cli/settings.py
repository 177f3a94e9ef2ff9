"""What every command shares: which server, as whom."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

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


pass_settings = click.make_pass_decorator(Settings)
