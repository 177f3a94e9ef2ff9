"""A group whose commands cost nothing until they are used."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import click


class LazyGroup(click.Group):
    """Finds each command in a module of its own, imported when it is asked for."""

    def __init__(self, *args: Any, package: str, names: Sequence[str], **attributes: Any) -> None:
        """package: has a module for each of the names, with the click command as its `command`."""
        super().__init__(*args, **attributes)
        self._package = package
        self._names = names

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._names:
            return None
        command = importlib.import_module(f"{self._package}.{cmd_name}").command
        return command if isinstance(command, click.Command) else None
