"""The command before it reaches a server: help, errors, completion, and how fast it is there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

COMMANDS = ["run", "exec", "poll", "follow", "list", "signal", "cancel", "delete", "info", "token", "completion"]


def rexec(*arguments: str, **options) -> subprocess.CompletedProcess:
    """Run the command with nobody listening where it would connect."""
    environment = os.environ | {"REXEC_TARGET": "127.0.0.1:1"}
    return subprocess.run(
        [sys.executable, "-m", "rexec_client", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        stdin=subprocess.DEVNULL,
        **options,
    )


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["run", "--help"], ["run"], ["token"], ["nonsense"]], ids=str
)
def test_help_and_usage_errors_import_no_grpc(arguments: list[str]) -> None:
    """Importing gRPC takes longer than all of the rest: what needs no server does not pay for it."""
    code = (
        "import sys, rexec_client.cli.app as a; s = a.run_app(sys.argv[1:]);"
        "sys.exit(99 if {'grpc', 'google.protobuf', 'joserfc'} & set(sys.modules) else s)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode in (0, 255), done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    """Each says what it does."""
    done = rexec(command, "--help")
    assert done.returncode == 0, done.stderr
    assert f"Usage: rexec {command}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "Give a command"),
        (["run", "--shell", "true", "--", "true"], "Give a command"),
        (["run", "--timeout", "soon", "--", "true"], "not a duration"),
        (["run", "--env", "X", "--", "true"], "not KEY=VALUE"),
        (["signal", "x", "NONSENSE"], "not a signal"),
        (["frobnicate"], "No such command"),
    ],
)
def test_usage_errors_are_one_line_and_255(arguments: list[str], message: str) -> None:
    """255 is rexec's own failure: 2 could be the command's."""
    done = rexec(*arguments)
    assert (done.returncode, done.stdout) == (255, "")
    assert done.stderr.startswith("rexec: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_no_server_is_one_line_and_255() -> None:
    """No traceback, no minutes of waiting."""
    done = rexec("list", timeout=30)
    assert done.returncode == 255
    assert done.stderr.startswith("rexec: no server")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    """Each shell gets click's script for it."""
    done = rexec("completion", shell)
    assert done.returncode == 0, done.stderr
    assert "_REXEC_COMPLETE" in done.stdout


def test_without_click_it_says_what_to_install() -> None:
    """The library alone has no command line, and says how to get it."""
    code = "import sys; sys.modules['click'] = None; from rexec_client.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 255
    assert "pip install 'rexec[cli]'" in done.stderr
    assert "Traceback" not in done.stderr
