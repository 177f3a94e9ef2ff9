"""The version of rexec-runner that is installed now, which a running one can become: in the same process, by exec."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any, NamedTuple

from rexec_server.runner.handover import FORMAT, Handover

# What it says of itself must come within this time: nobody is served meanwhile.
CHECK_SECONDS = 30.0
CHECK = "--check"


class Unfit(Exception):
    """It cannot take over; the message says why."""


class Successor(NamedTuple):
    """A program that has shown, in a child, that it starts, takes our flags, and understands what we would leave it."""

    program: str
    arguments: list[str]
    directory: str  # in which we were started: paths in the arguments may be relative
    version: str

    @classmethod
    def find(cls, directory: str, python: str | None = None) -> Successor:
        """Looks anew at what was started. python: of another installation, whose runner it shall be. Unfit."""
        program = _program(python)
        answer = _ask([*program, CHECK], directory)
        if FORMAT not in answer["handover"]:
            raise Unfit(f"version {answer['version']} cannot go on from this one")
        return cls(program[0], program, directory, answer["version"])

    def become(self, handover: Handover) -> None:
        """Does not return. OSError: it could not be done, and all is as before."""
        environment = handover.write()
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # it would end the new one before it listens
            os.chdir(self.directory)
            os.execve(self.program, self.arguments, {**os.environ, **environment})
        except OSError:
            os.chdir("/")
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
            handover.withdraw(environment)
            raise


def describe(version: str) -> str:
    """What a program answers to CHECK."""
    return json.dumps({"version": version, "handover": [FORMAT]})


def _program(python: str | None) -> list[str]:
    if python is not None:
        return [python, "-P", "-m", "rexec_server.runner", *sys.argv[1:]]
    if os.access(sys.argv[0], os.X_OK):  # an installed script: its first line names the Python of its own version
        return list(sys.argv)
    return [sys.executable, *sys.orig_argv[1:]]


def _ask(command: list[str], directory: str) -> dict[str, Any]:
    import subprocess  # memory that every shim would share, for something that hardly ever happens

    try:
        done = subprocess.run(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CHECK_SECONDS,
            check=False,
        )
        answer = json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise Unfit(str(error)) from error
    if not isinstance(answer, dict) or not {"version", "handover"} <= answer.keys():
        said = done.stderr.strip().splitlines() or ["it says nothing"]
        raise Unfit(f"{' '.join(command)}: exit code {done.returncode}: {said[-1]}")
    return answer
