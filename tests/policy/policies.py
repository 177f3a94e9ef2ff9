"""Policy files for tests, and the questions that are put to them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rexec_server.core.command import Command
from rexec_server.core.errors import NotAllowed
from rexec_server.policy.allowlist import Allowlist
from rexec_server.policy.caller import Caller
from rexec_server.policy.files import PolicyError

ALICE, BOB = Caller("alice"), Caller("bob")
CI = Caller("carol", frozenset({"ci"}))
NOBODY_ELSE = "not permitted: no rule allows it"


def write(directory: Path, text: str) -> str:
    """A file that only we can write. Returns its path."""
    path = directory / "policy.toml"
    path.touch(mode=0o600)
    path.write_text(text)
    return str(path)


def load(directory: Path, text: str) -> Allowlist:
    return Allowlist.load(write(directory, text))


def rule(arguments: str = '["/bin/echo", "{word}"]', more: str = "", name: str = "echo") -> str:
    """One rule for alice; `more` are further lines of it."""
    return f'[[rule]]\nname = "{name}"\narguments = {arguments}\ncallers = ["alice"]\n{more}\n'


def slot(kind: str, name: str = "word") -> str:
    return f"slots.{name} = {{ {kind} }}"


def problem(directory: Path, text: str) -> str:
    """What is wrong with a file, without its name."""
    with pytest.raises(PolicyError) as caught:
        load(directory, text)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(directory / "policy.toml"), "FILE", 1)


def ask(*arguments: str, **fields: Any) -> Command:
    return Command(arguments=arguments, **fields)


def denied(allowlist: Allowlist, command: Command, caller: Caller = ALICE) -> str:
    """What a caller is told who may not."""
    with pytest.raises(NotAllowed) as caught:
        allowlist.decide(caller, command)
    return caught.value.message


def us() -> str:
    """A line that lets the user of the tests own programs."""
    return f"trusted_owners = [{os.geteuid()}]\n"


def program(directory: Path, name: str = "program", text: str = "#!/bin/sh\n") -> Path:
    """A program that we own and nobody else can write."""
    path = directory / name
    path.write_text(text)
    path.chmod(0o755)
    return path
