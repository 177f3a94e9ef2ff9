"""What every command shares: which server, as whom."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rexec_client import AsyncClient, Client


@dataclass(frozen=True)
class Settings:
    """The options before the command's name.

    The clients are imported one by one, from their own modules: each would bring the other one, and 10 ms, along.
    """

    target: str | None
    caller: str | None

    def client(self) -> Client:
        from rexec_client._sync.client import Client

        return Client(self.target, caller=self.caller)

    def async_client(self) -> AsyncClient:
        from rexec_client._async.client import AsyncClient

        return AsyncClient(self.target, caller=self.caller)

    def command_line(self, *words: str) -> str:
        """A `rexec …` line that means the same server and caller, to be typed or pasted."""
        options = [f"--target={self.target}"] if self.target else []
        options += [f"--caller={self.caller}"] if self.caller else []
        return shlex.join(["rexec", *options, *words])


pass_settings = click.make_pass_decorator(Settings)
